"""`%scontrol show job|node|partition`: what is asked, and how the answer is given back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpchub.errors import UnexpectedOutput
from slurm_magics.columns import kinds_by_heading
from slurm_magics.errors import translated
from slurm_magics.output import Text
from slurm_magics.records import NODE_KINDS, PARTITION_KINDS, Record, Records, parse_jobs, parse_table
from slurm_magics.session import UNFILTERED, WHOLE_LISTS, Session

if TYPE_CHECKING:
    import pandas as pd

_KINDS = {"node": NODE_KINDS, "partition": PARTITION_KINDS}
_ENTITIES = {f"{name}{end}": name for name in ("job", "node", "partition") for end in ("", "s")}
# With any other option the text has another shape, or is JSON.
_HARMLESS = re.compile(r"-a|--all|-F|--future|--hide|--local|-M.+|--clusters?=.+")
_CLUSTER = re.compile(r"-M.+|--clusters?=.+")
_NUMBER = re.compile(r"[0-9]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Showing:
    """A line that can be read: options, what is shown, and of what."""

    options: tuple[str, ...]
    entity: str
    names: tuple[str, ...]


def read_showing(words: Sequence[str]) -> Showing | None:
    """What is to be shown; None where the answer is to stay text."""
    options: list[str] = []
    rest = list(words)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in {"-M", "--cluster", "--clusters"} and rest:
            option = f"--clusters={rest.pop(0)}"
        options.append(option)
    if len(rest) not in (2, 3) or rest[0] != "show" or rest[1] not in _ENTITIES:
        return None
    if not all(_HARMLESS.fullmatch(option) for option in options):
        return None
    return Showing(tuple(options), _ENTITIES[rest[1]], tuple(rest[2:]))


def show(session: Session, showing: Showing) -> Record | Records | Text | pd.DataFrame:
    """The job as a mapping, several as a list of them, nodes and partitions as a table.

    Raises:
        SlurmError: Slurm refuses or does not answer, or its answer is cut in the middle of a record.
    """
    words = ("show", showing.entity, *showing.names)
    if showing.entity == "job":
        return _jobs(session, showing, words)
    from slurm_magics import frames

    argv = ("scontrol", "--oneliner", *showing.options, *words)
    answer = session.run(argv, environ={"SLURM_TIME_FORMAT": "%s", **WHOLE_LISTS})
    table = parse_table(answer.text)
    if not table.headings:
        return Text(answer.text + answer.stderr)
    _require_end(answer.text, "\n")
    kinds = kinds_by_heading(_KINDS[showing.entity])
    return frames.table_to_frame(table, kinds, zone=session.machine.zone)


def _jobs(session: Session, showing: Showing, words: Sequence[str]) -> Record | Records | Text:
    environ = {"SLURM_TIME_FORMAT": "standard", **WHOLE_LISTS}
    answer = session.run(("scontrol", *showing.options, *words), environ=environ)
    if answer.text.startswith("JobId="):
        _require_end(answer.text, "\n\n")
    cluster = [option for option in showing.options if _CLUSTER.fullmatch(option)]
    these = [f"--jobs={name}" for name in showing.names]
    argv = ("squeue", "--noheader", "--states=all", *cluster, *these, "--format=%A")
    # With a cluster, its name stands in a line of its own.
    lines = session.run(argv, environ=UNFILTERED).text.split("\n")
    records = parse_jobs(answer.text, [line.strip() for line in lines if _NUMBER.fullmatch(line.strip())])
    if not records:
        return Text(answer.text + answer.stderr)
    return records[0] if len(records) == 1 else records


def _require_end(text: str, end: str) -> None:
    """SlurmError where a record is cut in the middle: half of one would be taken for all there is."""
    if not text.endswith(end):
        raise translated(UnexpectedOutput("scontrol", f"…{text[-80:]}"))
