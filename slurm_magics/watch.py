"""The states of all jobs that a kernel follows, asked for together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from hpchub.core.command import Command, CommandResult
from hpchub.core.job import JobId, JobState, JobStatus, JobTimes
from hpchub.errors import HpchubError, UnexpectedOutput
from hpchub.schedulers.slurm import Slurm
from hpchub.schedulers.slurm_rows import SEPARATOR, unix_time
from slurm_magics.errors import SlurmError, is_passing, translated
from slurm_magics.hostlist import expand_numbers
from slurm_magics.job_ids import expand_job_id, parse_job_id

# The first that any task of an array has is the array's own.
ORDER = (
    JobState.RUNNING,
    JobState.QUEUED,
    JobState.UNKNOWN,
    JobState.FAILED,
    JobState.CANCELLED,
    JobState.FINISHED,
)
UNKNOWN = JobStatus(state=JobState.UNKNOWN, native="UNKNOWN")
NO_TIMES = JobTimes(native="")
# squeue(1): start (a guess while the job waits) and end, in Unix seconds.
_TIMES = f"{SEPARATOR}%S{SEPARATOR}%e"
_WIDTH = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is known of a job at a moment. `tasks` is zero where it is no array.

    `trouble` is why the newest query told nothing of it: then this is what was known before.
    """

    status: JobStatus
    times: JobTimes = NO_TIMES
    tasks: int = 0
    ended: int = 0
    failed: int = 0
    trouble: SlurmError | None = None


@dataclass(slots=True)
class Watch:
    """One cluster's jobs, by the number that an array's tasks have in common.

    `run` runs a command, with some variables, for a scheduler of hpchub's; it raises where Slurm does not
    answer. Such a failure is an answer, too: it is as new, and serves all who ask in that time.
    """

    scheduler: Slurm
    run: Callable[[Command, Mapping[str, str]], CommandResult]
    _rows: dict[int, dict[JobId, JobStatus]] = field(default_factory=dict)
    _times: dict[JobId, JobTimes] = field(default_factory=dict)
    _over: set[int] = field(default_factory=set)
    _troubles: dict[int, SlurmError] = field(default_factory=dict)
    _asked_about: set[int] = field(default_factory=set)
    _asked: float = float("-inf")
    _forgotten: int = 0
    # Held while a query runs, so that there is one at a time. What is known can be read meanwhile.
    _asking: threading.Lock = field(default_factory=threading.Lock)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def follow(self, job: int) -> None:
        """From now on every query asks about this one, too."""
        with self._lock:
            self._rows.setdefault(job, {})

    def look(self, job_id: str, max_age_s: float, *, ask: bool = True) -> Look:
        """A job's, a task's or a whole array's state, no older than that many seconds.

        With its times, and how many tasks of an array have ended; as known, if not to `ask`.
        """
        job = parse_job_id(job_id).job
        self.follow(job)
        if ask:
            self._ask(job, max_age_s)
        with self._lock:
            rows = self._rows[job]
            status = pick(rows, job_id)
            shown = [row for row, one in rows.items() if one is status]
            counts = _counted(rows) if parse_job_id(job_id).task is None else (0, 0, 0)
            tasks, ended, failed = counts
            times = self._times.get(shown[0], NO_TIMES) if shown else NO_TIMES
            trouble = None if status.state.is_final else self._troubles.get(job)
            return Look(status=status, times=times, tasks=tasks, ended=ended, failed=failed, trouble=trouble)

    def forget(self) -> None:
        """Ask again next time: something has been changed."""
        with self._lock:
            self._forgotten += 1
            self._asked = float("-inf")

    def _ask(self, job: int, max_age_s: float) -> None:
        """A query, unless the last one is new enough and was about this job."""
        with self._asking:
            with self._lock:
                is_new = time.monotonic() - self._asked < max_age_s and job in self._asked_about
                if is_new or job in self._over:
                    return
                jobs = [one for one in self._rows if one not in self._over]
                forgotten = self._forgotten
            try:
                self._refresh([JobId(str(one)) for one in jobs])
            except HpchubError as error:
                trouble = translated(error, is_passing(error))
                with self._lock:
                    self._troubles = dict.fromkeys(jobs, trouble)
            with self._lock:
                self._asked_about = set(jobs)
                # What was changed while the query ran may not be in its answer.
                self._asked = time.monotonic() if forgotten == self._forgotten else float("-inf")

    def _refresh(self, ids: list[JobId]) -> None:
        """One query for all jobs that are not over; one more for what has left the queue."""
        found, times = self._queue(ids)
        grouped = _by_job("squeue", found)
        asked = [one for one in ids if _is_incomplete(self._rows[int(one)], grouped.get(int(one), {}))]
        troubles: dict[int, SlurmError] = {}
        over: set[int] = set()
        known, trouble = self._accounting(asked)
        for job in map(int, asked):
            before, in_queue = self._rows[job], grouped.get(job, {})
            if trouble:
                grouped[job] = _doubtful(job, before, in_queue)
                if before or not in_queue:
                    troubles[job] = trouble
                continue
            grouped[job] = _together(known.get(job, {}), in_queue)
            if grouped[job] and all(status.state.is_final for status in grouped[job].values()):
                over.add(job)
        grouped = {job: _ends_kept(self._rows.get(job, {}), rows) for job, rows in grouped.items()}
        with self._lock:
            self._rows |= {job: rows for job, rows in grouped.items() if rows}
            self._times |= times
            self._over |= over
            self._troubles = troubles

    def _accounting(self, jobs: list[JobId]) -> tuple[dict[int, dict[JobId, JobStatus]], SlurmError | None]:
        """What the accounting knows, or why it does not answer.

        The queue forgets an array's early tasks before it forgets the last one: the accounting has all.
        """
        if not jobs:
            return {}, None
        try:
            done = self.run(self.scheduler.history_command(jobs), {})
            return _by_job("sacct", self.scheduler.parse_history(done)), None
        except HpchubError as error:
            said = translated(error, is_passing(error))
            words = "It has left the queue, and how it ended only the accounting knows."
            return {}, SlurmError(f"{words} {said.message}", said.hint, retryable=said.retryable)

    def _queue(self, ids: list[JobId]) -> tuple[dict[JobId, JobStatus], dict[JobId, JobTimes]]:
        """squeue's rows: states, and beside them when each starts and ends."""
        command = self.scheduler.status_command(ids)
        argv = tuple(f"{word}{_TIMES}" if word.startswith("--format=") else word for word in command.argv)
        result = self.run(replace(command, argv=argv), {"SLURM_TIME_FORMAT": "%s"})
        lines = [line.split(SEPARATOR) for line in result.stdout.split("\n")]
        text = "\n".join(SEPARATOR.join(line[:-2] if len(line) == _WIDTH else line) for line in lines)
        states = self.scheduler.parse_status(replace(result, stdout=text))
        times = {
            JobId(row.strip()): JobTimes(native=native, starts_at=unix_time(start), ends_at=unix_time(end))
            for row, native, _, _, start, end in (line for line in lines if len(line) == _WIDTH)
        }
        return states, times


def _is_incomplete(before: dict[JobId, JobStatus], in_queue: dict[JobId, JobStatus]) -> bool:
    """Whether the accounting may know of more: the job has ended, or some tasks of an array have.

    The queue forgets an array's early tasks while the others go on.
    """
    if all(status.state.is_final for status in in_queue.values()):
        return True
    if not before:  # seen for the first time, and it may have run for long
        return any(parse_job_id(row).task is not None for row in in_queue)
    named = _tasks(in_queue)
    return any(
        not one.state.is_final and not named.issuperset(expand_job_id(row)) for row, one in before.items()
    )


def _ends_kept(before: dict[JobId, JobStatus], now: dict[JobId, JobStatus]) -> dict[JobId, JobStatus]:
    """The rows, and the ends that were seen before of tasks that have left the queue since."""
    if not any(map(_names_tasks, now)):
        return now
    named = _tasks(now)
    gone = {
        row: one for row, one in before.items() if one.state.is_final and named.isdisjoint(expand_job_id(row))
    }
    return gone | now


def _tasks(rows: dict[JobId, JobStatus]) -> set[str]:
    """Each task of the rows by itself."""
    return {task for row in rows for task in expand_job_id(row)}


def _together(
    in_accounting: dict[JobId, JobStatus], in_queue: dict[JobId, JobStatus]
) -> dict[JobId, JobStatus]:
    """The queue's rows with the accounting's exit codes, and the accounting's other rows."""
    # Of ended ones it knows the exit code; of others it may know less than the queue.
    codes = {row: one.exit_code for row, one in in_accounting.items() if one.state.is_final}
    queue = {row: replace(one, exit_code=codes.get(row, "")) for row, one in in_queue.items()}
    return _without_whole(in_accounting | queue)


def _doubtful(
    job: int, before: dict[JobId, JobStatus], in_queue: dict[JobId, JobStatus]
) -> dict[JobId, JobStatus]:
    """Without the accounting: ends that were seen count, and what has left the queue unseen is unknown."""
    rows = {row: one for row, one in before.items() if one.state.is_final} | in_queue
    unseen = _tasks(before) - _tasks(rows)
    if any(map(_names_tasks, in_queue)):
        return rows | {JobId(task): UNKNOWN for task in unseen if _names_tasks(JobId(task))}
    return rows | ({JobId(str(job)): UNKNOWN} if unseen or not rows else {})


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
    return min(statuses, key=lambda status: ORDER.index(status.state), default=UNKNOWN)


def _without_whole(rows: dict[JobId, JobStatus]) -> dict[JobId, JobStatus]:
    """Without an array's own number, where its tasks are known.

    For a moment slurmdbd has the last task of an array under that number, before it hears which task it is.
    """
    tasks = {row: status for row, status in rows.items() if _names_tasks(row)}
    return tasks or rows


def _names_tasks(row: JobId) -> bool:
    parsed = parse_job_id(row)
    return parsed.task is not None or bool(parsed.tasks)


def _counted(rows: dict[JobId, JobStatus]) -> tuple[int, int, int]:
    """How many tasks an array has, how many have ended, how many failed; nothing of a job that is none."""
    if not any(map(_names_tasks, rows)):
        return 0, 0, 0
    counts = [(max(1, len(expand_job_id(row))), status.state) for row, status in rows.items()]
    ended = sum(n for n, state in counts if state.is_final)
    return sum(n for n, _ in counts), ended, sum(n for n, state in counts if state is JobState.FAILED)


def _by_job(tool: str, found: dict[JobId, JobStatus]) -> dict[int, dict[JobId, JobStatus]]:
    """The rows of each job. UnexpectedOutput where one names tasks in a way that nobody knows."""
    grouped: dict[int, dict[JobId, JobStatus]] = {}
    for job_id, status in found.items():
        try:
            expand_job_id(job_id)
        except ValueError as error:
            raise UnexpectedOutput(tool, job_id) from error
        grouped.setdefault(parse_job_id(job_id).job, {})[job_id] = status
    return grouped
