"""What a person is told of a job beside its state: when it starts, who goes first, when its time is up."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpchub.core.job import JobId, PendingJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is known of one job. `queue_place` is how many go first. Unix seconds; None is unknown."""

    reason: str = ""
    partition: str = ""
    queue_place: int | None = None
    expected_start: int | None = None
    ends_at: int | None = None

    def words(self, now: float) -> str:
        """Sentences for whoever waits, each after a space; empty where nothing is known."""
        said = ""
        if self.queue_place is not None:
            before = f"About {self.queue_place} before" if self.queue_place else "Nobody before"
            said += f" {before} it in partition {self.partition}."
        if self.expected_start is not None and self.expected_start > now:
            said += f" Expected start: {_clock(self.expected_start, now)}."
        return said

    def placed(self, job_id: JobId, pending: Sequence[PendingJob]) -> Outlook:
        """With the job's place among all that wait in its partition."""
        own = next((job for job in pending if job.job_id == job_id), None)
        if own is None or not own.priority:  # it has started, or is held and in no line at all
            return replace(self, partition="", queue_place=None)
        partition = own.partitions[0]
        rivals = [job for job in pending if partition in job.partitions and job is not own]
        first = sum(_goes_before(job, own) for job in rivals)
        return replace(self, partition=partition, queue_place=first)


def _goes_before(job: PendingJob, own: PendingJob) -> bool:
    """Slurm takes the higher priority, and of two alike the older job."""
    if job.priority != own.priority:
        return job.priority > own.priority
    return _number(job.job_id) < _number(own.job_id)


def _number(job_id: JobId) -> int:
    """The number that an array's `42_[1-9]` and a heterogeneous job's `42+1` begin with."""
    return int(job_id.partition("_")[0].partition("+")[0])


def _clock(at: float, now: float) -> str:
    """A time of day in the hub's own zone, with the date where that is not today's."""
    moment, today = time.localtime(at), time.localtime(now)
    pattern = "%H:%M %Z" if moment[:3] == today[:3] else "%d %b, %H:%M %Z"
    return time.strftime(pattern, moment)
