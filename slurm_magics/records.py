"""What `scontrol show` prints, as mappings and tables. No input or output.

A job's name and comment are its owner's text and may look like fields or whole records. So a text is
read only where nothing in it is doubtful: no field stands twice, and the jobs are those that Slurm names
elsewhere. Otherwise it stays text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from slurm_magics.delimited import Table
from slurm_magics.output import Printer
from slurm_magics.values import Kind

_FIELD = re.compile(r"(?:^|(?<=\s))([A-Z][A-Za-z0-9_/:]*)=")
_JOB = re.compile(r"^JobId=([0-9]+)(?= )", re.MULTILINE)
# The first line of a job ends in its name, which may hold anything; Slurm's own text goes on with this.
_AFTER_NAME = "\n   UserId="
_OF_COMPONENTS = "\n   HetJobIdSet="
# From here on a record holds paths and comments, each alone in its line.
_USER_TEXT = "\n   Command="
_LINE = re.compile(r"^   ([A-Z][A-Za-z]*)=", re.MULTILINE)

NODE_KINDS = {
    Kind.WORD: "Arch State Version OS Owner MCS_label CapWatts SuspendTime "
    "ExtSensorsJoules ExtSensorsWatts ExtSensorsTemp",
    Kind.COUNT: "CoresPerSocket CPUAlloc CPUEfctv CPUErr CPUTot Sockets Boards ThreadsPerCore Weight Port "
    "CurrentWatts AveWatts",
    Kind.NUMBER: "CPULoad",
    Kind.MEGABYTES: "RealMemory AllocMem FreeMem TmpDisk",
    Kind.MOMENT: "BootTime SlurmdStartTime LastBusyTime ResumeAfterTime",
}
PARTITION_KINDS = {
    Kind.WORD: "Default DisableRootJobs Exclusive ExclusiveTopo ExclusiveUser Hidden LLN RootOnly ReqResv "
    "OverSubscribe PreemptMode State QoS",
    Kind.COUNT: "MaxNodes MinNodes MaxCPUsPerNode MaxCPUsPerSocket PriorityJobFactor PriorityTier TotalCPUs "
    "TotalNodes GraceTime",
    Kind.MEGABYTES: "DefMemPerCPU DefMemPerNode MaxMemPerCPU MaxMemPerNode",
    Kind.DURATION: "DefaultTime MaxTime",
}


class Record(dict[str, str]):
    """One job as `scontrol show job` tells of it: Slurm's names of the fields, and its own words."""

    def _repr_pretty_(self, printer: Printer, cycle: bool) -> None:
        width = max(map(len, self), default=0)
        printer.text("\n".join(f"{name:<{width}}  {value}" for name, value in self.items()))

    def _repr_html_(self) -> str:
        cell = '<td style="text-align: left">'
        rows = "".join(
            f"<tr><th>{escape(name)}</th>{cell}{escape(value)}</td></tr>" for name, value in self.items()
        )
        return f"<table>{rows}</table>"


class Records(list[Record]):
    """Several jobs."""

    def _repr_pretty_(self, printer: Printer, cycle: bool) -> None:
        for place, record in enumerate(self):
            if place:
                printer.text("\n\n")
            record._repr_pretty_(printer, cycle)

    def _repr_html_(self) -> str:
        return "<br>".join(record._repr_html_() for record in self)


def parse_jobs(text: str, known: Sequence[str]) -> Records | None:
    """The records of these jobs, and of no others; None where some of the text might be forged.

    Args:
        text: What `scontrol show job` printed.
        known: The jobs' numbers, each task of an array by its own, from a query without anybody's text.
    """
    starts = [*_JOB.finditer(text)]
    if sorted(start[1] for start in starts) != sorted(known) or (starts and starts[0].start()):
        return None
    ends = [*(start.start() for start in starts[1:]), len(text)]
    found = [_job(text[start.start() : end].rstrip()) for start, end in zip(starts, ends, strict=True)]
    records = Records(record for record in found if record is not None)
    return records if len(records) == len(found) else None


def _job(text: str) -> Record | None:
    name, slurms, rest = text.partition(_AFTER_NAME)
    middle, users, tail = rest.partition(_USER_TEXT)
    head, named, job_name = name.partition(" JobName=")
    if not (slurms and users and named):
        return None
    parts = _fields(head)
    if any(key == "HetJobId" for key, _ in parts):
        job_name, _, numbers = job_name.rpartition(_OF_COMPONENTS)
        parts.append(("HetJobIdSet", numbers))
    parts += [("JobName", job_name), *_fields(f"{slurms}{middle}")]
    parts += _lines(f"{users}{tail}".removeprefix("\n"))
    record = Record(parts)
    # Slurm's own fields stand once: a second one is somebody's text.
    return record if len(record) == len(parts) else None


def _fields(text: str) -> list[tuple[str, str]]:
    return _cut([*_FIELD.finditer(text)], text)


def _lines(text: str) -> list[tuple[str, str]]:
    return _cut([*_LINE.finditer(text)], text)


def _cut(starts: Sequence[re.Match[str]], text: str) -> list[tuple[str, str]]:
    """Each field's name, and what stands between it and the next one."""
    ends = [start.start() for start in starts[1:]] + [len(text)]
    return [(start[1], text[start.end() : end].strip()) for start, end in zip(starts, ends, strict=False)]


def parse_table(text: str) -> Table:
    """One row for each line of `scontrol --oneliner show node` or `partition`; what one lacks is empty.

    Staff write these: a field that stands twice in a line has its first value. A line without any field, such
    as what a site's wrapper says, is no row.
    """
    found = [fields for line in text.split("\n") if (fields := _fields(line))]
    rows = [dict(reversed(fields)) for fields in found]
    headings = tuple(dict.fromkeys(name for fields in found for name, _ in fields))
    columns = tuple([row.get(heading, "") for row in rows] for heading in headings)
    return Table(headings=headings, columns=columns, rows=len(rows))
