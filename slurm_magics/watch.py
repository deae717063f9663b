"""The states of all jobs that a kernel follows, asked for together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from hpchub.core.command import Command, CommandResult
from hpchub.core.job import JobId, JobState, JobStatus
from hpchub.schedulers.slurm import Slurm
from slurm_magics.hostlist import expand_numbers
from slurm_magics.job_ids import parse_job_id

# The first that any task of an array has is the array's own.
_ORDER = (
    JobState.RUNNING,
    JobState.QUEUED,
    JobState.UNKNOWN,
    JobState.FAILED,
    JobState.CANCELLED,
    JobState.FINISHED,
)
UNKNOWN = JobStatus(state=JobState.UNKNOWN, native="UNKNOWN")


@dataclass(slots=True)
class Watch:
    """One cluster's jobs, by the number that an array's tasks have in common.

    `run` runs a command for a scheduler of hpchub's; it raises where Slurm does not answer.
    """

    scheduler: Slurm
    run: Callable[[Command], CommandResult]
    _rows: dict[int, dict[JobId, JobStatus]] = field(default_factory=dict)
    _over: set[int] = field(default_factory=set)
    _asked: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def follow(self, job: int) -> None:
        """From now on every query asks about this one, too."""
        with self._lock:
            self._rows.setdefault(job, {})

    def status(self, job_id: str, max_age_s: float) -> JobStatus:
        """A job's, a task's or a whole array's state, no older than that many seconds."""
        job = parse_job_id(job_id).job
        with self._lock:
            self._rows.setdefault(job, {})
            stale = time.monotonic() - self._asked >= max_age_s or not self._rows[job]
            if job not in self._over and stale:
                self._refresh()
            return pick(self._rows[job], job_id)

    def forget(self) -> None:
        """Ask again next time: something has been changed."""
        with self._lock:
            self._asked = float("-inf")

    def _refresh(self) -> None:
        """One query for all jobs that are not over; one more for those that have left the queue."""
        ids = [JobId(str(job)) for job in self._rows if job not in self._over]
        found = self._parsed(self.scheduler.parse_status, self.scheduler.status_command(ids))
        grouped = _by_job(found)
        ended = [
            job_id
            for job_id in ids
            if all(status.state.is_final for status in grouped.get(int(job_id), {}).values())
        ]
        if ended:
            # The queue forgets an array's early tasks before it forgets the last one: the accounting has all.
            known = _by_job(self._parsed(self.scheduler.parse_history, self.scheduler.history_command(ended)))
            for job_id in ended:
                job = int(job_id)
                rows = known.get(job, {}) | grouped.get(job, {})
                grouped[job] = rows
                if rows and all(status.state.is_final for status in rows.values()):
                    self._over.add(job)
        for job, rows in grouped.items():
            if rows:
                self._rows[job] = rows
        self._asked = time.monotonic()

    def _parsed(
        self, parse: Callable[[CommandResult], dict[JobId, JobStatus]], command: Command
    ) -> dict[JobId, JobStatus]:
        return parse(self.run(command))


def pick(rows: dict[JobId, JobStatus], job_id: str) -> JobStatus:
    """The status of one id among the rows of its job; of several tasks, the one that says most."""
    if job_id in rows:
        return rows[JobId(job_id)]
    wanted = parse_job_id(job_id)
    if wanted.task is None and wanted.het is None:
        return _foremost(rows.values())
    for row, status in rows.items():
        tasks = parse_job_id(row).tasks
        if wanted.task is not None and tasks and wanted.task in expand_numbers(tasks):
            return status
    return UNKNOWN


def _foremost(statuses: Iterable[JobStatus]) -> JobStatus:
    return min(statuses, key=lambda status: _ORDER.index(status.state), default=UNKNOWN)


def _by_job(found: dict[JobId, JobStatus]) -> dict[int, dict[JobId, JobStatus]]:
    grouped: dict[int, dict[JobId, JobStatus]] = {}
    for job_id, status in found.items():
        grouped.setdefault(parse_job_id(job_id).job, {})[job_id] = status
    return grouped
