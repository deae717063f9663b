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
_FORMATTER = string.Formatter()


def split_words(line: str, names: Mapping[str, Any], expanded: Callable[[str], str]) -> list[str]:
    """The words of a line. A value that is filled in stays one word, whatever is in it.

    `expanded` puts the home folder in the place of a word's first `~`.

    Raises:
        SlurmError: A quote has no end.
    """
    values: list[str] = []

    def keep(value: str) -> str:
        values.append(value)
        return f"\0{len(values) - 1}\0"

    try:
        words = shlex.split(_filled(line.replace("\0", ""), names, keep))
    except ValueError as error:
        raise SlurmError(
            f"The line cannot be read as a shell reads it: {error}.", "Close the quote."
        ) from error
    filled = [_KEPT.sub(lambda match: values[int(match[1])], word) for word in words]
    return [expanded(word) if word.startswith("~") else word for word in filled]


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
    while (start := text.find("{", place)) >= 0:
        parts.append(text[place:start])
        end = _closing(text, start)
        inside = text[start + 1 : end - 1]
        is_doubled = inside.startswith("{") and inside.endswith("}")
        field = _field(inside[1:-1] if is_doubled else inside, names)
        if end > 0 and start and text[start - 1] in _NOT_OURS:
            parts.append(text[start:end])
            place = end
        elif end < 0 or field is None:
            parts.append("{")
            place = start + 1
        else:
            parts.append(inside if is_doubled else keep(_value(*field, names)))
            place = end
    return "".join((*parts, text[place:]))


def _closing(text: str, start: int) -> int:
    """The place behind the brace that closes this one on the same line; -1 where there is none."""
    depth = 0
    for place in range(start, len(text)):
        match text[place]:
            case "{":
                depth += 1
            case "}":
                depth -= 1
                if depth == 0:
                    return place + 1
            case "\n":
                return -1
    return -1


def _field(inside: str, names: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Expression, conversion and format of what stands in braces; None where it is not ours to fill in."""
    try:
        ((_, name, form, conversion),) = _FORMATTER.parse(f"{{{inside}}}")
        expression = name or ""
        tree = ast.parse(expression, mode="eval")
    except (ValueError, SyntaxError):
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
        raise SlurmError(f"{{{expression}}} cannot be filled in: {type(error).__name__}: {error}.") from error


def take_option(words: list[str], name: str) -> tuple[list[str], str | None]:
    """The words without `--name VALUE` or `--name=VALUE`, and the value. What follows `--` is left alone.

    Raises:
        SlurmError: The value is missing.
    """
    kept: list[str] = []
    found = None
    waiting = iter(words)
    for word in waiting:
        if word == "--":
            return [*kept, word, *waiting], found
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
    """The words without a flag, and whether it was there. What follows `--` is left alone."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word not in names]
    return [*kept, *words[end:]], len(kept) < end
