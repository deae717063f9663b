"""Asks the scheduler about waiting jobs: one query for all that can be asked about together.

With a service account these are all jobs of a cluster (ADR 0008). Without one they are one user's,
for a person controls their own login shell, and nobody's answer may decide about another's job
(ADR 0004).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from hpchub.bridge.metrics import BridgeMetrics
from hpchub.bridge.queries import Queries
from hpchub.core.job import JobId, JobStatus
from hpchub.errors import HpchubError
from hpchub.schedulers.base import Scheduler
from hpchub.ssh.pool import Pool

# How long since the newest submission, and how often to ask, in seconds. Most notebooks start at
# once or not for minutes.
_INTERVALS = ((3.0, 0.2), (15.0, 1.0), (60.0, 3.0), (float("inf"), 10.0))

# After an answer that took t, wait at least 5 t: a slow controller is not to be hurried. But no longer
# than this, or whoever waits would not see for minutes that it is back.
PATIENCE = 5.0
_LONGEST_S = 30.0

# What fails fast would otherwise be asked five times a second.
_AFTER_FAILURE_S = 2.0

# This many queries may follow each other at the pace of a new job, and one more for every 3 s: people
# who keep coming, as to a lecture, would otherwise hold a whole cluster at that pace.
_BURST = 30
_REFILL_S = 3.0


def interval_s(age_s: float, answer_took_s: float) -> float:
    """Seconds until the next query."""
    usual = next(pause for limit, pause in _INTERVALS if age_s < limit)
    return max(usual, min(PATIENCE * answer_took_s, _LONGEST_S))


@dataclass(slots=True)
class Allowance:
    """How many queries may still be made at once."""

    left: float = field(default_factory=lambda: float(_BURST))
    counted_at: float = 0.0

    def take(self, now: float) -> float:
        """Take one query; how long to wait before it, in seconds. `now` is monotonic."""
        self.left = min(float(_BURST), self.left + (now - self.counted_at) / _REFILL_S)
        self.counted_at = now
        self.left -= 1.0
        return max(0.0, -self.left * _REFILL_S)


@dataclass(slots=True)
class _Watch:
    """The waiting jobs on one cluster that are asked about together."""

    listeners: dict[JobId, asyncio.Queue[JobStatus | HpchubError]] = field(default_factory=dict)
    names: dict[JobId, str] = field(default_factory=dict)
    newest: float = 0.0
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Watcher:
    """Delivers each waiting job's status, for as long as somebody listens."""

    def __init__(
        self,
        pool: Pool,
        schedulers: Mapping[str, Scheduler],
        accounts: Mapping[str, str] | None = None,
        metrics: BridgeMetrics | None = None,
    ) -> None:
        """`accounts` maps a cluster to its service account, where it has one."""
        self.metrics = metrics or BridgeMetrics()
        self.queries = Queries(pool, schedulers, accounts, self.metrics)
        self._watches: dict[tuple[str, str], _Watch] = {}
        self._allowances: dict[tuple[str, str], Allowance] = {}

    async def ask(
        self, user: str, cluster: str, ids: list[JobId], names: Mapping[JobId, str] | None = None
    ) -> dict[JobId, JobStatus]:
        """Status now; ids that the queue has forgotten are looked up in the history.

        An id that neither knows is UNKNOWN: it may be too new, and doubt is never death. So is one whose
        job does not bear the name that `names` has.
        """
        statuses: dict[JobId, JobStatus] = {}
        for job_id, answer in (await self.queries.statuses(user, cluster, ids, names)).items():
            if isinstance(answer, HpchubError):
                raise answer
            statuses[job_id] = answer
        return statuses

    @asynccontextmanager
    async def following(
        self, user: str, cluster: str, job_id: JobId, job_name: str = ""
    ) -> AsyncIterator[asyncio.Queue[JobStatus | HpchubError]]:
        """A queue that receives every answer about a job, and every failure to get one."""
        answers: asyncio.Queue[JobStatus | HpchubError] = asyncio.Queue()
        key = (self.queries.asker(user, cluster), cluster)
        watch = self._watches.get(key)
        if watch is None:
            watch = self._watches[key] = _Watch()
            watch.task = asyncio.create_task(self._run(key, watch))
        watch.listeners[job_id] = answers
        watch.names[job_id] = job_name
        watch.newest = time.monotonic()
        watch.wake.set()
        try:
            yield answers
        finally:
            del watch.listeners[job_id], watch.names[job_id]
            if not watch.listeners:
                watch.wake.set()

    async def close(self) -> None:
        """Ask no more about anything."""
        for watch in list(self._watches.values()):
            if watch.task is not None:
                watch.task.cancel()
                with suppress(asyncio.CancelledError):
                    await watch.task
        await self.queries.close()

    async def _run(self, key: tuple[str, str], watch: _Watch) -> None:
        allowance = self._allowances.setdefault(key, Allowance())
        while watch.listeners:
            await asyncio.sleep(allowance.take(time.monotonic()))
            watch.wake.clear()
            began = time.monotonic()
            answers = await self.queries.statuses(*key, list(watch.listeners), watch.names)
            for job_id, listener in watch.listeners.items():
                if job_id in answers:
                    listener.put_nowait(answers[job_id])
            now = time.monotonic()
            failed = any(isinstance(answer, HpchubError) for answer in answers.values())
            with suppress(TimeoutError):
                pause_s = interval_s(now - watch.newest, now - began)
                async with asyncio.timeout(max(pause_s, _AFTER_FAILURE_S) if failed else pause_s):
                    await watch.wake.wait()
        del self._watches[key]
