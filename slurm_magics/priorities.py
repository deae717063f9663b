"""Which command answers `%sprio`, and how its answer becomes a frame. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo

from slurm_magics.columns import SPRIO, SPRIO_KINDS
from slurm_magics.delimited import Marked, unique
from slurm_magics.errors import SlurmError
from slurm_magics.formats import short_format, short_letters
from slurm_magics.options import HELP, NO_HEADINGS, Syntax, scan
from slurm_magics.reading import Reading
from slurm_magics.values import Kind

_SYNTAX = Syntax(
    with_value="MoSpu",
    known={
        **HELP, **NO_HEADINGS, "--helpformat": "text", "-h": "noheader", "-o": "format=",
        "--format": "format=", "-l": "long", "--long": "long", "-n": "norm", "--norm": "norm",
        "-w": "weights", "--weights": "weights",
    },
    kept=frozenset({"text", "norm", "weights"}),
)  # fmt: skip
_WEIGHTED = "iruYSABFJPQNT"
_NORMALIZED = "iruyabfjpqt"
# sprio ends well and prints this where no waiting job is what was asked for.
_NONE_FOUND = "Unable to find jobs"


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorityQuery:
    """A command and the way to read it. Nothing in its table is anybody's text but staff's names."""

    argv: tuple[str, ...]
    environ: Mapping[str, str | None]
    letters: str
    mark: str = field(repr=False)
    parts: tuple[str, ...] = ()

    def reading(self, zone: tzinfo) -> Reading:
        """What makes a frame of the answer as it comes. An older sprio leaves out what it does not know."""
        names = unique([SPRIO[letter] for letter in self.letters])
        kinds = {
            name: SPRIO_KINDS.get(letter, Kind.TEXT) for name, letter in zip(names, self.letters, strict=True)
        }
        layout = Marked("sprio", self.mark)
        return Reading(layout, kinds, zone, parts=self.parts, names=names, none_found=_NONE_FOUND)


def plan_priorities(words: Sequence[str], environ: Mapping[str, str], mark: str) -> PriorityQuery | None:
    """The query for sprio; None where the options ask for text.

    Raises:
        SlurmError: The format has no field of sprio's, or an option's value is missing.
    """
    options = scan(words, _SYNTAX)
    found = options.found
    if "text" in found:
        return None
    spec = found.get("format") or ("" if "long" in found else environ.get("SPRIO_FORMAT", ""))
    letters = short_letters(spec, _WEIGHTED) if spec else _NORMALIZED if "norm" in found else _WEIGHTED
    unknown = [letter for letter in letters if letter not in SPRIO]
    if unknown:
        raise SlurmError(f"sprio has no field %{unknown[0]}.", f"It has %{', %'.join(SPRIO)}.")
    is_plain = not spec and "weights" not in found
    return PriorityQuery(
        argv=("sprio", *options.rest),
        environ={"SPRIO_FORMAT": short_format(letters, mark, is_marked=True)},
        letters=letters,
        mark=mark,
        parts=("JOB",) if is_plain else (),
    )
