"""Keeps the outlook of every server that has a job, with few queries.

A running server's own tunnel says that it lives. What the tunnel cannot tell, such as an end that the
staff moved, is noticed by a rare look at all that run. No answer here ends anything.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from hpchub.bridge.outlook import places_in
from hpchub.bridge.progress import Progress
from hpchub.bridge.queries import Queries
from hpchub.bridge.watcher import PATIENCE
from hpchub.core.job import JobId
from hpchub.core.server import Phase
from hpchub.core.slugs import job_name
from hpchub.errors import HpchubError

log = logging.getLogger(__name__)

_TICK_S = 2.0
# Whoever asks on a cluster rests this long, however many jobs come and start meanwhile; after a
# failure as long as between two looks at those that wait.
_REST_S = 15.0
_WAITING_S = 60.0
# One query for everybody, or one for each person.
_RUNNING_S = 300.0
_RUNNING_OF_EACH_S = 1800.0

WAITING = frozenset({Phase.SUBMITTED, Phase.QUEUED})
RUNNING = frozenset({Phase.STARTING, Phase.READY})


@dataclass(slots=True)
class _Asker:
    """Who asks on a cluster, and when: monotonic seconds. `answered` counts answers by server and phase."""

    not_before: float = float("-inf")
    waiting_at: float = float("-inf")
    running_at: float = float("-inf")
    answered: Counter[tuple[str, bool]] = field(default_factory=Counter)


class Sweep:
    """Looks after the servers that `servers` lists, from `begin` until `close`."""

    def __init__(self, queries: Queries, servers: Callable[[], Iterable[Progress]]) -> None:
        self._queries = queries
        self._servers = servers
        self._askers: dict[tuple[str, str], _Asker] = {}
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start, in a task of its own."""
        self._task = asyncio.create_task(self._run(), name="sweep")

    async def close(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def look(self, now: float) -> None:
        """Ask about all that is due. `now` is monotonic."""
        groups: dict[tuple[str, str], list[Progress]] = defaultdict(list)
        for server in self._servers():
            record = server.record
            if record.job_id and record.phase in WAITING | RUNNING:
                groups[self._queries.asker(record.user, record.cluster), record.cluster].append(server)
        self._askers = {key: self._askers.get(key, _Asker()) for key in groups}
        await asyncio.gather(*(self._ask(*key, group, now) for key, group in groups.items()))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            await self.look(time.monotonic())

    async def _ask(self, user: str, cluster: str, servers: Sequence[Progress], now: float) -> None:
        asker = self._askers[user, cluster]
        due = self._due(asker, cluster, servers, now)
        if not due:
            return
        began = time.monotonic()
        asker.not_before = now + _WAITING_S
        try:
            await self._update(user, cluster, due)
        except HpchubError as error:
            log.info("sweep.failed asker=%s cluster=%s error=%s", user, cluster, error)
            return
        except Exception:
            # A fault of ours must not end the sweep of all servers.
            log.exception("sweep.crashed asker=%s cluster=%s", user, cluster)
            return
        took = time.monotonic() - began
        asker.not_before = now + max(_REST_S, PATIENCE * took)
        asker.answered.update(_key(server) for server in due)
        asker.answered = Counter({_key(server): asker.answered[_key(server)] for server in servers})

    def _due(self, asker: _Asker, cluster: str, servers: Sequence[Progress], now: float) -> list[Progress]:
        """All that wait or all that run, where it is time for that or one of them is new."""
        if now < asker.not_before:
            return []
        waiting = [server for server in servers if server.record.phase in WAITING]
        running = [server for server in servers if server.record.phase in RUNNING]
        new = {id(server) for server in servers if _is_new(server, asker.answered[_key(server)])}
        due = []
        if waiting and (now - asker.waiting_at >= _WAITING_S or any(id(server) in new for server in waiting)):
            due += waiting
            asker.waiting_at = now
        every = _RUNNING_S if self._queries.sees_all(cluster) else _RUNNING_OF_EACH_S
        if running and now - asker.running_at >= every:
            due += running
            asker.running_at = now
        else:
            due += [server for server in running if id(server) in new]
        return due

    async def _update(self, user: str, cluster: str, servers: Sequence[Progress]) -> None:
        names = {JobId(one.record.job_id): job_name(one.record.server_name, one.record.id) for one in servers}
        times = await self._queries.times(user, cluster, list(names), names)
        for server in servers:
            found = times.get(JobId(server.record.job_id))
            if found is None:
                continue
            if server.record.phase in WAITING:
                server.outlook = replace(server.outlook, expected_start=found.starts_at)
            elif server.record.phase in RUNNING:
                if found.ends_at is not None:
                    server.end.set(found.ends_at)
                server.record.native_state = found.native
        waiting = [server for server in servers if server.record.phase in WAITING]
        if waiting and self._queries.sees_all(cluster):
            partitions = {server.record.options["resources"]["partition"] for server in waiting}
            places = places_in(await self._queries.pending(cluster, sorted(partitions)))
            for server in waiting:
                server.outlook = server.outlook.placed(places.get(JobId(server.record.job_id)))


def _is_new(server: Progress, answers: int) -> bool:
    """A job that waits is asked about twice soon: the scheduler guesses its start some time after it came."""
    return answers < (2 if server.record.phase in WAITING else 1)


def _key(server: Progress) -> tuple[str, bool]:
    """A server that has begun to run is as good as new: only then its end is known."""
    return server.record.id, server.record.phase in WAITING
