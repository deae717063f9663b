"""Asks the scheduler about waiting jobs: one query for all of a user's jobs on a cluster.

The queries run as the jobs' own user. A person controls their own login shell, so nobody's answer
may decide about another's job (ADR 0004).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from hpchub.core.job import JobId, JobState, JobStatus
from hpchub.errors import HpchubError
from hpchub.schedulers.base import Scheduler
from hpchub.ssh.pool import Pool

log = logging.getLogger(__name__)

# An argv of 200 ids is 2 kB: far from any limit, and more than one person waits for.
_MOST_IDS = 200

# How long since the newest submission, and how often to ask, in seconds. Most notebooks start at
# once or not for minutes.
_INTERVALS = ((3.0, 0.2), (15.0, 1.0), (60.0, 3.0), (float("inf"), 10.0))

# After an answer that took t, wait at least 5 t: a slow controller is not to be hurried. But no longer
# than this, or whoever waits would not see for minutes that it is back.
_PATIENCE = 5.0
_LONGEST_S = 30.0

# What fails fast would otherwise be asked five times a second.
_AFTER_FAILURE_S = 2.0


def interval_s(age_s: float, answer_took_s: float) -> float:
    """Seconds until the next query."""
    usual = next(pause for limit, pause in _INTERVALS if age_s < limit)
    return max(usual, min(_PATIENCE * answer_took_s, _LONGEST_S))


@dataclass(slots=True)
class _Watch:
    """One user's waiting jobs on one cluster."""

    listeners: dict[JobId, asyncio.Queue[JobStatus | HpchubError]] = field(default_factory=dict)
    newest: float = 0.0
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Watcher:
    """Delivers each waiting job's status, for as long as somebody listens."""

    def __init__(self, pool: Pool, schedulers: Mapping[str, Scheduler]) -> None:
        self._pool = pool
        self._schedulers = schedulers
        self._watches: dict[tuple[str, str], _Watch] = {}

    async def ask(self, user: str, cluster: str, ids: list[JobId]) -> dict[JobId, JobStatus]:
        """Status now; ids that the queue has forgotten are looked up in the history.

        An id that neither knows is UNKNOWN: it may be too new, and doubt is never death.
        """
        statuses: dict[JobId, JobStatus] = {}
        for job_id, answer in (await self._answers(user, cluster, ids)).items():
            if isinstance(answer, HpchubError):
                raise answer
            statuses[job_id] = answer
        return statuses

    @asynccontextmanager
    async def following(
        self, user: str, cluster: str, job_id: JobId
    ) -> AsyncIterator[asyncio.Queue[JobStatus | HpchubError]]:
        """A queue that receives every answer about a job, and every failure to get one."""
        answers: asyncio.Queue[JobStatus | HpchubError] = asyncio.Queue()
        watch = self._watches.get((user, cluster))
        if watch is None:
            watch = self._watches[user, cluster] = _Watch()
            watch.task = asyncio.create_task(self._run(user, cluster, watch))
        watch.listeners[job_id] = answers
        watch.newest = time.monotonic()
        watch.wake.set()
        try:
            yield answers
        finally:
            del watch.listeners[job_id]
            if not watch.listeners:
                watch.wake.set()

    async def close(self) -> None:
        """Ask no more about anything."""
        for watch in list(self._watches.values()):
            if watch.task is not None:
                watch.task.cancel()
                with suppress(asyncio.CancelledError):
                    await watch.task

    async def _run(self, user: str, cluster: str, watch: _Watch) -> None:
        while watch.listeners:
            watch.wake.clear()
            began = time.monotonic()
            answers = await self._answers(user, cluster, list(watch.listeners))
            for job_id, listener in watch.listeners.items():
                if job_id in answers:
                    listener.put_nowait(answers[job_id])
            now = time.monotonic()
            failed = any(isinstance(answer, HpchubError) for answer in answers.values())
            with suppress(TimeoutError):
                pause_s = interval_s(now - watch.newest, now - began)
                async with asyncio.timeout(max(pause_s, _AFTER_FAILURE_S) if failed else pause_s):
                    await watch.wake.wait()
        del self._watches[user, cluster]

    async def _answers(
        self, user: str, cluster: str, ids: list[JobId]
    ) -> dict[JobId, JobStatus | HpchubError]:
        """For each id its status, or why there is none: one failure hides nothing that is known."""
        answers: dict[JobId, JobStatus | HpchubError] = {}
        for start in range(0, len(ids), _MOST_IDS):
            batch = ids[start : start + _MOST_IDS]
            try:
                answers |= await self._batch(user, cluster, batch)
            except HpchubError as error:
                answers |= _failed(user, cluster, batch, error)
            except Exception as error:
                # Whoever waits must not wait for a task that has died.
                log.exception("scheduler.query_crashed user=%s cluster=%s", user, cluster)
                what = f"hpchub failed while asking the scheduler: {type(error).__name__}."
                answers |= dict.fromkeys(batch, HpchubError(what, "The bridge's log has more."))
        return answers

    async def _batch(self, user: str, cluster: str, ids: list[JobId]) -> dict[JobId, JobStatus | HpchubError]:
        scheduler = self._schedulers[cluster]
        queued = scheduler.parse_status(await self._pool.run(user, cluster, scheduler.status_command(ids)))
        answers: dict[JobId, JobStatus | HpchubError] = {
            job_id: queued[job_id] for job_id in ids if job_id in queued
        }
        missing = [job_id for job_id in ids if job_id not in queued]
        if missing:
            try:
                result = await self._pool.run(user, cluster, scheduler.history_command(missing))
                found = scheduler.parse_history(result)
            except HpchubError as error:  # the accounting is away, the queue is not
                return answers | _failed(user, cluster, missing, error)
            unknown = JobStatus(state=JobState.UNKNOWN, native="", reason="")
            answers |= {job_id: found.get(job_id, unknown) for job_id in missing}
        return answers


def _failed(user: str, cluster: str, ids: list[JobId], error: HpchubError) -> dict[JobId, HpchubError]:
    log.warning("scheduler.query_failed user=%s cluster=%s error=%s", user, cluster, error)
    return dict.fromkeys(ids, error)
