"""What a person is told of a job beside its state: when it starts, who goes first, when its time is up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from hpchub.core.job import JobId, PendingJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is known of a job that waits. `queue_place` is how many go first. Unix seconds; None: unknown."""

    reason: str = ""
    partition: str = ""
    queue_place: int | None = None
    expected_start: int | None = None

    def words(self, now: float) -> str:
        """Sentences for whoever waits, each after a space; empty where nothing is known."""
        said = ""
        if self.queue_place is not None:
            before = f"About {self.queue_place} before" if self.queue_place else "Nobody before"
            said += f" {before} it in partition {self.partition}."
        if self.expected_start is not None and self.expected_start > now:
            said += f" Expected start: {_clock(self.expected_start, now)}."
        return said

    def placed(self, place: Place | None) -> Outlook:
        """With the job's place in the queue. It has none once it has started, or while it is held."""
        partition, before = place or ("", None)
        return replace(self, partition=partition, queue_place=before)


Place = tuple[str, int]
"""A partition, and how many jobs go first in it."""


def places_in(pending: Iterable[PendingJob]) -> dict[JobId, Place]:
    """The place of every job that is not held. Of several partitions a job's first one counts.

    Slurm takes the higher priority, and of two alike the older job.
    """
    before: Counter[str] = Counter()
    places: dict[JobId, Place] = {}
    in_line = (job for job in pending if job.priority)
    for job in sorted(in_line, key=lambda job: (-job.priority, _number(job.job_id))):
        places[job.job_id] = (job.partitions[0], before[job.partitions[0]])
        before.update(job.partitions)
    return places


def _number(job_id: JobId) -> int:
    """The number that an array's `42_[1-9]` and a heterogeneous job's `42+1` begin with."""
    return int(job_id.partition("_")[0].partition("+")[0])


def _clock(at: float, now: float) -> str:
    """A time of day in the hub's own zone, with the date where that is not today's."""
    moment, today = time.localtime(at), time.localtime(now)
    pattern = "%H:%M %Z" if moment[:3] == today[:3] else "%d %b, %H:%M %Z"
    return time.strftime(pattern, moment)
