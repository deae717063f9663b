"""Node lists as Slurm writes them, `nid[00001-00012,00020],login1`, written out."""

from __future__ import annotations

import re
from itertools import product
from math import prod

_MOST = 1_000_000
_PART = re.compile(r"\[([^\[\]]*)\]|([^\[\],]+)")
_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+))?", re.ASCII)


def expand_nodes(text: str) -> list[str]:
    """Each node's name, in order, with its leading zeros. Nothing for an empty list.

    Raises:
        ValueError: This is no node list, or one of more than a million names.
    """
    names: list[str] = []
    for word in _words(text):
        parts = list(_PART.finditer(word))
        if "".join(part[0] for part in parts) != word:
            raise ValueError(f"{text[:80]!r} is no node list")
        choices = [[part[2]] if part[2] else _numbers(part[1]) for part in parts]
        if len(names) + prod(map(len, choices)) > _MOST:
            raise ValueError(f"{text[:80]!r} names more than {_MOST} nodes")
        names += map("".join, product(*choices))
    return names


def expand_numbers(text: str) -> list[int]:
    """The numbers of `1-9:2,12%2`, as array tasks are written; what follows `%` is a limit, no number.

    Raises:
        ValueError: This is no such list, or one of more than a million numbers.
    """
    numbers: list[int] = []
    for word in text.partition("%")[0].split(","):
        span, _, step = word.partition(":")
        first, last, _ = _span(span)
        if step and not (step.isascii() and step.isdecimal() and int(step)):
            raise ValueError(f"{word[:40]!r} has no step")
        more = range(first, last + 1, int(step or 1))
        if len(numbers) + len(more) > _MOST:
            raise ValueError(f"{text[:40]!r} has more than {_MOST} numbers")
        numbers += more
    return numbers


def _words(text: str) -> list[str]:
    """Cut at commas outside of brackets."""
    return [word for word in re.split(r",(?![^\[]*\])", text) if word]


def _numbers(inside: str) -> list[str]:
    spans = [_span(word) for word in inside.split(",")]
    if sum(last + 1 - first for first, last, _ in spans) > _MOST:
        raise ValueError(f"{inside[:40]!r} has more than {_MOST} numbers")
    return [f"{number:0{width}d}" for first, last, width in spans for number in range(first, last + 1)]


def _span(word: str) -> tuple[int, int, int]:
    match = _RANGE.fullmatch(word)
    if not match:
        raise ValueError(f"{word[:40]!r} is no range of numbers")
    first, last = int(match[1]), int(match[2] or match[1])
    if last - first >= _MOST:
        raise ValueError(f"{word[:40]!r} has more than {_MOST} numbers")
    return first, last, len(match[1])
