"""Text of Slurm's tables as values: times, sizes, counts. One function for each kind of column."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, tzinfo
from enum import StrEnum

# With these Slurm says that there is no value, or none yet, or no limit.
ABSENT = frozenset(
    [
        "",
        "N/A",
        "n/a",
        "NA",
        "Unknown",
        "None",
        "NONE",
        "(null)",
        "NOT_SET",
        "INVALID",
        "UNLIMITED",
        "Partition_Limit",
        "infinite",
        "*",
        "INFINITE",
        "?",
        "16?",  # 2**64 MB: sacct's ReqMem, until the accounting has heard what the job asked for
        "parent",  # a share that is the parent's
    ]
)

_DURATION = re.compile(
    r"(?:([0-9]{1,7})-)?(?:([0-9]{1,9}):)?([0-9]{1,9}):([0-9]{2})(?:\.([0-9]{1,3})[0-9]*)?", re.ASCII
)
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)([KMGTPE]?)\+?", re.ASCII)
_COUNT = re.compile(r"(-?[0-9]{1,15})([KMGT]?)\+?", re.ASCII)
_POWER: dict[str, int] = {unit: 1024**power for power, unit in enumerate(("", *"KMGTPE"))}


class Kind(StrEnum):
    """What a column holds."""

    TEXT = "text"
    WORD = "word"
    COUNT = "count"
    NUMBER = "number"
    FRACTION = "fraction"
    SIZE = "size"
    MEGABYTES = "megabytes"
    DURATION = "duration"
    SECONDS = "seconds"
    MINUTES = "minutes"
    MOMENT = "moment"


def duration_ms(text: str) -> int | None:
    """Milliseconds of `MM:SS`, `HH:MM:SS`, `D-HH:MM:SS`, with or without a fraction. None: absent."""
    if text in ABSENT:
        return None
    match = _DURATION.fullmatch(text)
    if not match:
        raise ValueError(f"{text[:40]!r} is no duration")
    parts = [int(part or 0) for part in match.groups()[:4]]
    fraction = (match[5] or "").ljust(3, "0")
    return (((parts[0] * 24 + parts[1]) * 60 + parts[2]) * 60 + parts[3]) * 1000 + int(fraction)


def seconds_ms(text: str) -> int | None:
    """Milliseconds of a plain number of seconds, with or without a fraction."""
    seconds = number(text)
    return None if seconds is None else round(seconds * 1000)


def minutes_ms(text: str) -> int | None:
    """Milliseconds of a plain number of minutes."""
    minutes = count(text)
    return None if minutes is None else minutes * 60_000


def count(text: str) -> int | None:
    """A whole number. Slurm writes 2048 nodes as `2K`, and `16+` where some of a group have more."""
    if text in ABSENT:
        return None
    match = _COUNT.fullmatch(text)
    if not match:
        raise ValueError(f"{text[:40]!r} is no whole number")
    return int(match[1]) * _POWER[match[2]]


def number(text: str) -> float | None:
    """A number with or without a fraction."""
    return None if text in ABSENT else float(text)


def size(text: str) -> int | None:
    """Bytes of `500M`, `1.50G`, `12K` or a plain number of bytes; the factor is 1024."""
    return _bytes(text, "")


def megabytes(text: str) -> int | None:
    """Bytes, where a plain number counts megabytes: sinfo's memory, squeue's MIN_MEMORY."""
    return _bytes(text, "M")


def _bytes(text: str, unit: str) -> int | None:
    if text in ABSENT:
        return None
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(f"{text[:40]!r} is no size")
    amount, factor = match[1], _POWER[match[2] or unit]
    return int(amount) * factor if "." not in amount else round(float(amount) * factor)


def moment(zone: tzinfo) -> Callable[[str], int | None]:
    """A reader of times, in Unix seconds: from these, or from `2026-11-21T12:05:55` in that zone."""

    def read(text: str) -> int | None:
        if text in ABSENT:
            return None
        if text.isascii() and text.isdecimal():
            return int(text) or None  # squeue's zero is a job that has no such time
        return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=zone).timestamp())

    return read
