"""The words of a magic's line, as a shell cuts them, and `{expressions}` filled in."""

from __future__ import annotations

import ast
import builtins
import re
import shlex
import string
from collections.abc import Callable, Mapping
from typing import Any

from slurm_magics.errors import SlurmError

# What a shell means by braces after these is the shell's: ${name}, \{.
_NOT_OURS = "$\\"
# Stands for a value while the line is cut into words.
_KEPT = re.compile("\0([0-9]+)\0")
_BRACE = re.compile(r"[{}\n]")
_NAME = re.compile(r"[^\W\d]\w*")
_FORMATTER = string.Formatter()
# Longer ones are somebody's data, and take long to read.
_LONGEST = 4096


def split_words(line: str, names: Mapping[str, Any], expanded: Callable[[str], str]) -> list[str]:
    """The words of a line. A value that is filled in stays one word, whatever is in it.

    `expanded` puts the home folder in the place of a word's first `~`.

    Raises:
        SlurmError: A quote has no end, or a value cannot be made a word.
    """
    values: list[str] = []

    def keep(value: str) -> str:
        values.append(value)
        return f"\0{len(values) - 1}\0"

    filled = _filled(line.replace("\0", ""), names, keep)
    try:
        words = shlex.split(filled)
    except ValueError as error:
        raise SlurmError(
            f"The line cannot be read as a shell reads it: {error}.", "Close the quote."
        ) from error
    # Before the values: a `~` in one of these is a part of it.
    words = [expanded(word) if word.startswith("~") else word for word in words]
    return [_sendable(_KEPT.sub(lambda match: values[int(match[1])], word)) for word in words]


def _sendable(word: str) -> str:
    """The word, if a command can be given it."""
    try:
        word.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise SlurmError(f"{word[:60]!r} is no text that a command can be given.") from error
    if "\0" in word:
        raise SlurmError(f"{word[:60]!r} holds a zero byte: no command can be given it.")
    return word


def fill(text: str, names: Mapping[str, Any]) -> str:
    """The text with `{name}`, `{name.part[0]}`, `{name * 2:.3f}` and other expressions filled in.

    Shells, awk and C have their own use for braces. So braces are left alone after `$` or a backslash, and
    where what they hold is no Python expression on one line, begins or ends with a blank, is a list as in
    `{a,b}`, or uses a name that is not among `names`, or none of them. Doubled braces around what would be
    filled in become single ones.

    Raises:
        SlurmError: The names are there, but the expression fails.
    """
    return _filled(text, names, str)


def _filled(text: str, names: Mapping[str, Any], keep: Callable[[str], str]) -> str:
    """The text with what `keep` makes of each value."""
    parts: list[str] = []
    place = 0
    ends = _closings(text)
    while (start := text.find("{", place)) >= 0:
        parts.append(text[place:start])
        if (end := ends.get(start)) is None:
            parts.append("{")
            place = start + 1
            continue
        if start and text[start - 1] in _NOT_OURS:
            parts.append(text[start:end])
            place = end
            continue
        inside = text[start + 1 : end - 1]
        is_doubled = inside.startswith("{") and inside.endswith("}")
        field = _field(inside[1:-1] if is_doubled else inside, names)
        if field is None:
            parts.append("{")
            place = start + 1
        else:
            parts.append(inside if is_doubled else keep(_value(*field, names)))
            place = end
    return "".join((*parts, text[place:]))


def _closings(text: str) -> dict[int, int]:
    """Where each brace is closed on its line: the place behind it, by the place of the one that opens."""
    ends: dict[int, int] = {}
    opened: list[int] = []
    for match in _BRACE.finditer(text):
        if match[0] == "{":
            opened.append(match.start())
        elif match[0] == "\n":
            opened.clear()
        elif opened:
            ends[opened.pop()] = match.end()
    return ends


def _field(inside: str, names: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Expression, conversion and format of what stands in braces; None where it is not ours to fill in."""
    # Python would warn of other languages' backslashes.
    if len(inside) > _LONGEST or not any(name in names for name in _NAME.findall(inside)):
        return None
    try:
        ((_, name, form, conversion),) = _FORMATTER.parse(f"{{{inside}}}")
        expression = name or ""
        tree = ast.parse(expression, mode="eval")
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    if expression != expression.strip():  # a shell's own `{ command; }` has blanks inside
        return None
    nodes = list(ast.walk(tree))
    used = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    free = used - bound
    known = {name for name in free if name in names}
    if (
        isinstance(tree.body, ast.Tuple)
        or not known
        or not all(hasattr(builtins, one) for one in free - known)
    ):
        return None
    return expression, conversion or "", form or ""


def _value(expression: str, conversion: str, form: str, names: Mapping[str, Any]) -> str:
    try:
        found = eval(expression, dict(names))  # noqa: S307  the person's own, in the person's own notebook
        return format(_FORMATTER.convert_field(found, conversion or None), fill(form, names))
    except Exception as error:
        raise SlurmError(f"{{{expression}}} cannot be filled in: {told(error)}.") from error


def told(error: BaseException) -> str:
    """An exception's type and its words; people's own exceptions may have none that can be had."""
    try:
        words = str(error)
    except Exception:
        words = ""
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


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
