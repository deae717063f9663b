"""The fields of a format that somebody asks for, and the format that Slurm is asked for. No I/O."""

from __future__ import annotations

import re

from slurm_magics.delimited import UNIT
from slurm_magics.errors import SlurmError

_LETTER = re.compile(r"%\.?[0-9]*([A-Za-z])")
_LONG_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_/-]*", re.ASCII)


def short_letters(spec: str, everything: str) -> str:
    """The fields of `%.18i %9P`. Widths cut text and mean nothing to a frame.

    Raises:
        SlurmError: There is no field in it.
    """
    if spec.lower() in {"all", "%all"}:
        return everything
    letters = "".join(_LETTER.findall(spec))
    if not letters:
        raise SlurmError(
            f"The format {spec[:60]!r} has no field.", "Write fields as %i, for example '%i %j %T'."
        )
    return letters


def short_format(letters: str, mark: str, is_marked: bool) -> str:
    """The fields between marks, as `Marked` or else `Delimited` reads them."""
    if is_marked:
        return UNIT.join((mark, *(f"%{letter}" for letter in letters), mark))
    return "".join((mark, *(f"%{letter}{mark}" for letter in letters)))


def long_format(spec: str, mark: str, guard: str) -> str:
    """The fields of `jobid:12,name:.30`, each in full and followed by the mark.

    Raises:
        SlurmError: A field has no name.
    """
    names = [_LONG_NAME.match(part.strip()) for part in spec.split(",")]
    if not all(names):
        raise SlurmError(f"The format {spec[:60]!r} has a field without a name.")
    return ",".join(f"{name}:0{mark}" for name in (guard, *(match[0] for match in names if match)))
