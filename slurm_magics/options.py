"""Finds in a command's options the few that decide what a table looks like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from slurm_magics.errors import SlurmError

# What several commands know.
HELP = {"--help": "text", "--usage": "text", "-V": "text", "--version": "text"}
JSON = {"--json": "text", "--yaml": "text"}
# `scan` knows abbreviations from six characters on. Without headings the first row would be taken for them.
NO_HEADINGS = {"--noheader": "noheader", "--noh": "noheader"}


@dataclass(frozen=True, slots=True)
class Syntax:
    """One command's options, as far as they matter here.

    `with_value` are its short options that take a value. `known` maps spellings of the options looked for
    to a name; an `=` at the name's end says that it takes a value. Those are taken out of the words unless
    they are in `kept`.
    """

    with_value: str
    known: dict[str, str]
    kept: frozenset[str] = frozenset()


@dataclass(slots=True)
class Options:
    """What was found: flags and values by name, and the words that go to the command as they are."""

    found: dict[str, str] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)


def scan(words: Sequence[str], syntax: Syntax) -> Options:
    """Read options as getopt does: `-o X`, `-oX`, `--format=X`, `--form X`, several short ones in a word.

    Raises:
        SlurmError: The value of an option is missing.
    """
    options = Options()
    waiting = iter(words)
    for word in waiting:
        if word == "--":
            options.rest += [word, *waiting]
        elif word.startswith("--"):
            spelling, has_value, value = word.partition("=")
            name = _long(spelling, syntax)
            if name.endswith("=") and not has_value:
                value = _value(waiting, spelling)
                word = f"{spelling}={value}"
            _take(options, syntax, name, value, [word])
        elif word.startswith("-") and len(word) > 1:
            _short(options, syntax, word, waiting)
        else:
            options.rest.append(word)
    return options


def _long(spelling: str, syntax: Syntax) -> str:
    """The name of an option that may be abbreviated, empty where it is none of those looked for."""
    if spelling in syntax.known or len(spelling) < 6:
        return syntax.known.get(spelling, "")
    names = {name for long, name in syntax.known.items() if long.startswith(spelling)}
    return names.pop() if len(names) == 1 else ""


def _short(options: Options, syntax: Syntax, word: str, waiting: Iterator[str]) -> None:
    rest = word[1:]
    while rest:
        letter, rest = rest[0], rest[1:]
        name = syntax.known.get(f"-{letter}", "")
        if letter not in syntax.with_value:
            _take(options, syntax, name, "", [f"-{letter}"])
            continue
        value = rest or _value(waiting, f"-{letter}")
        _take(options, syntax, name, value, [f"-{letter}", value] if not rest else [f"-{letter}{value}"])
        return


def _value(waiting: Iterator[str], spelling: str) -> str:
    value = next(waiting, None)
    if value is None:
        raise SlurmError(f"The option {spelling} needs a value.")
    return value


def _take(options: Options, syntax: Syntax, name: str, value: str, words: list[str]) -> None:
    if name:
        options.found[name.rstrip("=")] = value
    if not name or name.rstrip("=") in syntax.kept:
        options.rest += words
