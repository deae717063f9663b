"""The words of a magic's line, as a shell cuts them, and `{variables}` filled in."""

from __future__ import annotations

import re
import shlex
import string
from collections.abc import Callable, Mapping
from typing import Any

from slurm_magics.errors import SlurmError

# A name, its attributes and items, a conversion and a format: what str.format reads. Not a shell's ${name}.
_FIELD = re.compile(
    r"(?<![$\\])\{([A-Za-z_]\w*)((?:\.[A-Za-z_]\w*|\[[^\[\]{}]+\])*)(![rsa])?(:[^{}]*)?\}", re.ASCII
)


def split_words(line: str, names: Mapping[str, Any], expanded: Callable[[str], str]) -> list[str]:
    """The words of a line. A value that is filled in stays one word, whatever is in it.

    `expanded` puts the home folder in the place of a word's first `~`.

    Raises:
        SlurmError: A quote has no end.
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise SlurmError(
            f"The line cannot be read as a shell reads it: {error}.", "Close the quote."
        ) from error
    filled = [fill(word, names) for word in words]
    return [expanded(word) if word.startswith("~") else word for word in filled]


def fill(text: str, names: Mapping[str, Any]) -> str:
    """The text with `{name}`, `{name.part}`, `{name[0]}` and `{name:.3f}` filled in.

    A name that is not among `names` is left as it is, and so is all else in braces: shells, awk and C
    have their own use for them.

    Raises:
        SlurmError: The name is there, but not the part or the format that is asked for.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in names:
            return match[0]
        try:
            return string.Formatter().vformat(match[0], (), names)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise SlurmError(f"{match[0]} cannot be filled in: {type(error).__name__}: {error}.") from error

    return _FIELD.sub(value, text)


def take_option(words: list[str], name: str) -> tuple[list[str], str | None]:
    """The words without `--name VALUE` or `--name=VALUE`, and the value.

    Raises:
        SlurmError: The value is missing.
    """
    kept, found = [], None
    waiting = iter(words)
    for word in waiting:
        if word == f"--{name}":
            found = next(waiting, "")
        elif word.startswith(f"--{name}="):
            found = word.partition("=")[2]
        else:
            kept.append(word)
            continue
        if not found:
            raise SlurmError(f"--{name} needs a value.")
    return kept, found


def take_flag(words: list[str], *names: str) -> tuple[list[str], bool]:
    """The words without a flag, and whether it was there."""
    kept = [word for word in words if word not in names]
    return kept, len(kept) < len(words)
