"""Times and sizes as people and Slurm write them."""

from __future__ import annotations

import re

from hpchub.core.shown import shown

_TIME = re.compile(r"(?:([0-9]{1,3})-)?([0-9]{1,4}):([0-9]{2}):([0-9]{2})", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,3}))?\s?([KMGT])(?:i?B)?", re.ASCII | re.IGNORECASE)
_COUNT = re.compile(r"[0-9]{1,9}", re.ASCII)
_FACTORS = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


def parse_time(text: str) -> int:
    """Seconds of `HH:MM:SS` or `D-HH:MM:SS`. ValueError on anything else."""
    match = _TIME.fullmatch(text)
    if not match:
        raise ValueError(f"{shown(text)} is not a time; write HH:MM:SS, for example 01:30:00")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    if minutes > 59 or seconds > 59:
        raise ValueError(f"{shown(text)} has more than 59 minutes or seconds; write HH:MM:SS")
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def render_time(seconds: int) -> str:
    """`HH:MM:SS`; hours may exceed 24. Slurm reads it as such: sbatch(1), --time."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}"


def render_long_time(seconds: int) -> str:
    """`HH:MM:SS`, or `D-HH:MM:SS` from a day on."""
    days, rest = divmod(seconds, 86400)
    return f"{days}-{render_time(rest)}" if days else render_time(rest)


def parse_memory(text: str) -> int:
    """Bytes of `500M`, `4G`, `1.5G`, `2GB`, `2GiB`; the factor is 1024, as in Slurm."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(f"{shown(text)} is not a size; write a number and K, M, G or T, for example 4G")
    whole, fraction, unit = match.groups()
    return int(float(f"{whole}.{fraction or 0}") * _FACTORS[unit.upper()])


def render_memory(size: int) -> str:
    """The shortest exact form: `2G`, `1536M`. Rounds up to a whole K."""
    for unit in "TGM":
        if size >= _FACTORS[unit] and size % _FACTORS[unit] == 0:
            return f"{size // _FACTORS[unit]}{unit}"
    return f"{-(-size // 1024)}K"


def parse_count(text: str) -> int:
    """A whole number in ASCII digits: no sign, no `1e9`, no other script's digits."""
    if not _COUNT.fullmatch(text):
        raise ValueError(f"{shown(text)} is not a whole number; write digits, for example 2")
    return int(text)
