"""Job ids as Slurm writes them: `42`, `42_7`, `42_[1-9%2]`, `42+1`, and steps such as `42_7.batch`."""

from __future__ import annotations

import re
from typing import NamedTuple

from slurm_magics.hostlist import expand_numbers

_ID = re.compile(
    r"([0-9]{1,18})(?:_(?:([0-9]{1,18})|\[([0-9,:%.-]+)\])|\+([0-9]{1,18}))?(?:\.(.+))?", re.ASCII
)


class JobIdParts(NamedTuple):
    """One id taken apart. `tasks` is the text in brackets, where one row stands for several tasks."""

    job: int
    task: int | None = None
    het: int | None = None
    step: str = ""
    tasks: str = ""


def parse_job_id(text: str) -> JobIdParts:
    """The parts. ValueError where it is no job id."""
    job, _, task = text.partition("_")
    if len(text) < 20 and text.isascii() and job.isdecimal() and task.isdecimal():  # quicker, and frequent
        return JobIdParts(int(job), int(task))
    match = _ID.fullmatch(text)
    if not match:
        raise ValueError(f"{text[:40]!r} is no job id")
    job, task, tasks, het, step = match.groups()
    return JobIdParts(
        int(job), int(task) if task else None, int(het) if het else None, step or "", tasks or ""
    )


def expand_job_id(text: str) -> list[str]:
    """`42_[1-3%2]` as `42_1`, `42_2`, `42_3`; any other id as it is. ValueError where it is none."""
    parts = parse_job_id(text)
    if not parts.tasks:
        return [text]
    return [f"{parts.job}_{task}" for task in expand_numbers(parts.tasks)]
