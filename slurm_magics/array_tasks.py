"""The tasks of an array, by their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slurm_magics.errors import SlurmError
from slurm_magics.job_ids import parse_job_id

if TYPE_CHECKING:
    from slurm_magics.job import Job


class NoSuchTask(SlurmError, IndexError):
    """The job has no such task: it is no array, or one without that number."""


@dataclass(frozen=True, slots=True)
class Tasks:
    """The tasks of an array. Each is a job."""

    job: Job

    def __getitem__(self, number: int) -> Job:
        """The task with that number, which need not be its place among the others."""
        job, known = self.job, self.job.outputs
        is_known = bool(known.tasks or known.by_task)
        if parse_job_id(job.id).task is not None or number < 0 or (is_known and number not in known.tasks):
            there = f"Its tasks are {min(known.tasks)} to {max(known.tasks)}." if known.tasks else ""
            raise NoSuchTask(f"Job {job.id} has no array task {number}.", there)
        return job._task(number)

    def __iter__(self) -> Iterator[Job]:
        return map(self.job._task, self._numbers())

    def __len__(self) -> int:
        return len(self._numbers())

    def _numbers(self) -> list[int]:
        job = self.job
        if parse_job_id(job.id).task is not None:
            return []
        if not (job.outputs.tasks or job.outputs.by_task):
            job.outputs.learn(job._jobs.outputs(job))
        return sorted(job.outputs.tasks)
