"""Asks schedulers about jobs: as the site's service account where there is one, else as the jobs' owner.

Whoever asks has one question at a time under way on a cluster; those who come meanwhile ask together
next. So a crowd that loses its tunnels at once is one query, and a slow controller is not piled on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from hpchub.bridge.metrics import BridgeMetrics
from hpchub.core.command import CommandResult
from hpchub.core.job import JobId, JobState, JobStatus, JobTimes, PendingJob, Query
from hpchub.errors import HpchubError
from hpchub.schedulers.base import Scheduler
from hpchub.ssh.pool import Pool

log = logging.getLogger(__name__)

Answers = dict[JobId, JobStatus | HpchubError]

# Ids in one argv. 200 are 2 kB, more than one person waits for; 2,000 are 22 kB, and an argument may
# have 128 (MAX_ARG_STRLEN).
_MOST_IDS = 200
_MOST_IDS_OF_ALL = 2000


@dataclass(slots=True)
class _Line:
    """Who asks on one cluster: the round under way holds `busy`, those who came since wait for `next`."""

    wanted: dict[JobId, str] = field(default_factory=dict)
    next: asyncio.Task[Answers] | None = None
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)


class Queries:
    """Questions about jobs. `accounts` maps a cluster to its service account, where it has one."""

    def __init__(
        self,
        pool: Pool,
        schedulers: Mapping[str, Scheduler],
        accounts: Mapping[str, str] | None = None,
        metrics: BridgeMetrics | None = None,
    ) -> None:
        self._metrics = metrics or BridgeMetrics()
        self._pool = pool
        self._schedulers = schedulers
        self._accounts = {name: account for name, account in (accounts or {}).items() if account}
        self._lines: dict[tuple[str, str], _Line] = {}
        self._rounds: set[asyncio.Task[Answers]] = set()

    def asker(self, user: str, cluster: str) -> str:
        """Who asks about a user's jobs: the cluster's service account, else the user."""
        return self._accounts.get(cluster, user)

    def sees_all(self, cluster: str) -> bool:
        """Whether everybody's jobs can be asked about."""
        return cluster in self._accounts

    async def statuses(
        self, user: str, cluster: str, ids: Sequence[JobId], names: Mapping[JobId, str] | None = None
    ) -> Answers:
        """For each id its status, or why there is none.

        `names` are the jobs' own: one of another name is not the job that is meant.
        """
        key = (self.asker(user, cluster), cluster)
        line = self._lines.setdefault(key, _Line())
        line.wanted.update({job_id: (names or {}).get(job_id, "") for job_id in ids})
        if line.next is None:
            line.next = asyncio.create_task(self._round(key, line))
            self._rounds.add(line.next)
            line.next.add_done_callback(self._rounds.discard)
        answers = await asyncio.shield(line.next)  # others may wait for it
        return {job_id: answers[job_id] for job_id in ids}

    async def times(
        self, user: str, cluster: str, ids: Sequence[JobId], names: Mapping[JobId, str] | None = None
    ) -> dict[JobId, JobTimes]:
        """When jobs start and end, of those that the queue still has."""
        found: dict[JobId, JobTimes] = {}
        for batch in self._batches(cluster, ids):
            with self._metrics.query(cluster, Query.TIMES.value):
                result = await self._ask(user, cluster, Query.TIMES, batch, names)
                found |= self._schedulers[cluster].parse_times(result)
        return {job_id: found[job_id] for job_id in ids if job_id in found}

    async def pending(self, cluster: str, partitions: Sequence[str]) -> list[PendingJob]:
        """Everybody's jobs that wait in some partitions; only where `sees_all`."""
        with self._metrics.query(cluster, Query.PENDING.value):
            result = await self._ask("", cluster, Query.PENDING, partitions)
            return self._schedulers[cluster].parse_pending(result)

    async def close(self) -> None:
        """Ask no more."""
        for task in list(self._rounds):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _round(self, key: tuple[str, str], line: _Line) -> Answers:
        async with line.busy:
            wanted, line.wanted, line.next = line.wanted, {}, None
            answers = await self._answers(*key, wanted)
            if line.next is None:
                self._lines.pop(key, None)
            return answers

    async def _answers(self, asker: str, cluster: str, wanted: Mapping[JobId, str]) -> Answers:
        """One failure hides nothing that is known."""
        answers: Answers = {}
        for batch in self._batches(cluster, list(wanted)):
            try:
                answers |= await self._batch(asker, cluster, batch, wanted)
            except HpchubError as error:
                answers |= _failed(asker, cluster, batch, error)
            except Exception as error:
                # Whoever waits must not wait for a task that has died.
                log.exception("scheduler.query_crashed asker=%s cluster=%s", asker, cluster)
                what = f"hpchub failed while asking the scheduler: {type(error).__name__}."
                answers |= dict.fromkeys(batch, HpchubError(what, "The bridge's log has more."))
        return answers

    async def _batch(
        self, asker: str, cluster: str, ids: Sequence[JobId], names: Mapping[JobId, str]
    ) -> Answers:
        scheduler = self._schedulers[cluster]
        with self._metrics.query(cluster, Query.STATUS.value):
            queued = scheduler.parse_status(await self._ask(asker, cluster, Query.STATUS, ids, names))
        answers: Answers = {job_id: queued[job_id] for job_id in ids if job_id in queued}
        missing = [job_id for job_id in ids if job_id not in queued]
        if missing:
            try:
                with self._metrics.query(cluster, Query.HISTORY.value):
                    result = await self._ask(asker, cluster, Query.HISTORY, missing, names)
                    found = scheduler.parse_history(result)
            except HpchubError as error:  # the accounting is away, the queue is not
                return answers | _failed(asker, cluster, missing, error)
            unknown = JobStatus(state=JobState.UNKNOWN, native="", reason="")
            answers |= {job_id: found.get(job_id, unknown) for job_id in missing}
        return answers

    async def _ask(
        self,
        user: str,
        cluster: str,
        query: Query,
        items: Sequence[str],
        names: Mapping[JobId, str] | None = None,
    ) -> CommandResult:
        scheduler = self._schedulers[cluster]
        ids = [JobId(item) for item in items]
        known = [(names or {}).get(job_id, "") for job_id in ids]
        known = known if all(known) else []  # a name that is not known leaves nobody out
        if account := self._accounts.get(cluster):
            return await self._pool.query(account, cluster, scheduler.account_command(query, items, known))
        build = {
            Query.STATUS: scheduler.status_command,
            Query.HISTORY: scheduler.history_command,
            Query.TIMES: scheduler.times_command,
        }[query]
        return await self._pool.run(user, cluster, build(ids, known))

    def _batches(self, cluster: str, ids: Sequence[JobId]) -> Iterator[Sequence[JobId]]:
        most = _MOST_IDS_OF_ALL if self.sees_all(cluster) else _MOST_IDS
        for start in range(0, len(ids), most):
            yield ids[start : start + most]


def _failed(asker: str, cluster: str, ids: Sequence[JobId], error: HpchubError) -> dict[JobId, HpchubError]:
    log.warning("scheduler.query_failed asker=%s cluster=%s error=%s", asker, cluster, error)
    return dict.fromkeys(ids, error)
