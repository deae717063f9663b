"""What a crowd does to hpchub: a lecture begins, many work while some wait, everything restarts."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench.crowd.fake_slurm import WAITS
from bench.crowd.hub_side import HubSide
from bench.crowd.meter import Load, Span, open_files, pss_mib
from bench.crowd.noop_hub import PASSWORD
from bench.crowd.people import Browsing, People, Sessions
from bench.crowd.processes import Probe

Say = Callable[[str], None]
Numbers = dict[str, Any]

_SCHEDULER = ("sbatch", "squeue", "sacct", "scancel", "sacctmgr", "srun")
_WEBSOCKETS = 200
_BACK_LIMIT_S = 300.0
# Just after a submission the bridge asks more often; a minute later it is as it stays.
_SETTLE_S = 70.0
_LECTURE = 1200


@dataclass(frozen=True, slots=True)
class Size:
    """How many and how long."""

    servers: int
    hold_s: float
    window_s: float

    @property
    def burst(self) -> int:
        """A lecture: 1,200 people, or all there are."""
        return min(_LECTURE, self.servers)

    @property
    def running(self) -> int:
        """What stays of them: 1,000, or the same part of fewer."""
        return self.burst * 5 // 6

    @property
    def waiting(self) -> int:
        """Those whose job stays in the queue: 50 beside 1,000."""
        return max(1, self.running // 20)


def percentiles(values: Sequence[float]) -> Numbers:
    """p50, p95, p99 and the greatest."""
    if len(values) < 2:
        return {"p50": max(values, default=0.0), "p95": 0.0, "p99": 0.0, "max": max(values, default=0.0)}
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "max": max(values)}


async def lecture(
    people: People,
    names: Sequence[str],
    options: Callable[[str], Mapping[str, Any]],
    probe: Probe,
    pids: Mapping[str, int],
) -> Numbers:
    """Everybody presses start, 20 a second; how long it takes, and what the hub's answers take meanwhile."""
    span = Span.begin(pids)
    async with Load(pids) as load:
        starts = await people.press_start(names, options, over_s=len(names) / 20)
    rows = probe.end()
    used = span.used_s()
    return {
        "people": len(names),
        "up": len(starts.seconds),
        "failed": dict(Counter(starts.failed.values()).most_common(3)),
        "failed_names": list(starts.failed),
        "all_up_s": starts.took_s,
        "start_s": percentiles(list(starts.seconds.values())),
        "probe_s": percentiles([took for _, took, status in rows if status]),
        "probe_unanswered": sum(status != 200 for _, _, status in rows),
        "cpu_ms_per_start": {name: 1000 * one / len(names) for name, one in used.items()},
        "cpu_percent": span.percent(),
        "busy_percent": load.busy_percent,
    }


class Crowd:
    """The scenarios on one hub side, in turn: each goes on with the servers of the one before."""

    def __init__(self, side: HubSide, people: People, size: Size, say: Say) -> None:
        self._side = side
        self._people = people
        self._size = size
        self._say = say
        self._sessions = Sessions(side.bridge_socket, side.keys, side.policy)
        self._names = [f"u{number:05d}" for number in range(size.servers)]
        self._waiting = [f"{WAITS}{number:05d}" for number in range(size.waiting)]
        self._at_rest = self._pss()

    def _options(self, name: str) -> dict[str, str]:
        clusters = self._side.clusters
        return {"cluster": clusters[int(name[-5:]) % len(clusters)]}

    @property
    def _everything(self) -> dict[str, int]:
        """Process ids: what a site runs, the key agent, the simulators, and this one as the people."""
        others = self._side.processes.pids("agent", *self._side.clusters)
        return self._side.pids | others | {"people": os.getpid()}

    def _pss(self) -> dict[str, float]:
        return {name: pss_mib(pid) for name, pid in self._side.pids.items()}

    async def arrive(self) -> Numbers:
        """Everybody is known to the hub and has logged in (without the passwords)."""
        everybody = [*self._names, *self._waiting]
        # The signer looks whether the site still has the account.
        self._side.let_log_in([*everybody, "admin"], PASSWORD)
        await self._people.create(everybody)
        await self._log_in_admin()
        took = await self._sessions.open(everybody)
        self._say(f"{len(everybody)} people have logged in, {len(everybody) / took:.0f} sessions/s")
        return {"people": len(everybody), "sessions_per_s": len(everybody) / took}

    async def _log_in_admin(self) -> None:
        """Whose token the bench uses: without a session, JupyterHub would ask the bridge at every call."""
        await self._sessions.open(["admin"])

    async def lecture(self) -> Numbers:
        """b: the burst."""
        side, names = self._side, self._names[: self._size.burst]
        before = side.counts()
        probe = Probe.begin(f"{side.url}/hub/api/users/{names[0]}", side.token, side.folder)
        found = await lecture(self._people, names, self._options, probe, self._everything)
        counted = side.counts() - before
        found["counts"] = dict(counted)
        self._failed = set(found["failed_names"])
        for why, number in found["failed"].items():
            self._say(f"  {number} did not come up: {why[:200]}")
        self._say(
            f"{found['up']} of {len(names)} up after {found['all_up_s']:.0f} s; the hub answered in "
            f"{1000 * found['probe_s']['p50']:.0f} ms (p50), {1000 * found['probe_s']['p99']:.0f} ms (p99)"
        )
        return found

    async def steady(self) -> Numbers:
        """a: many run, some wait, and nobody does anything."""
        size = self._size
        leaving = self._names[size.running : size.burst]
        stopped_s = await self._people.stop(leaving)
        limit = asyncio.Semaphore(20)
        await asyncio.gather(*(self._begin(name, limit) for name in self._waiting))
        await asyncio.sleep(_SETTLE_S)
        before, span = self._side.counts(), Span.begin(self._everything)
        await asyncio.sleep(size.window_s)
        minutes = span.seconds / 60
        counted = self._side.counts() - before
        cpu = span.percent()
        pss = self._pss()
        each = minutes * len(self._side.clusters)
        scheduler = {name: counted[name] / each for name in _SCHEDULER if counted[name]}
        kilobytes = {
            name: (pss[name] - self._at_rest[name]) * 1024 / (size.running + size.waiting) for name in pss
        }
        found = {
            "running": size.running,
            "pending": size.waiting,
            "stopped": len(leaving),
            "stopped_s": stopped_s,
            "commands_per_min": sum(scheduler.values()),
            "commands_per_min_by_name": scheduler,
            "handshakes": counted["handshakes"],
            "cpu_percent": cpu,
            "pss_mib": pss,
            "kb_per_server": kilobytes,
        }
        self._say(
            f"{size.running} run, {size.waiting} wait: {found['commands_per_min']:.0f} commands a minute "
            f"on each cluster, bridge {cpu['bridge']:.1f} %, hub {cpu['jupyterhub']:.1f} % of a core, "
            f"{kilobytes['bridge']:.0f} kB of bridge each"
        )
        return found

    async def _begin(self, name: str, limit: asyncio.Semaphore) -> None:
        async with limit:
            await self._people.begin(name, self._options(name))

    async def hold(self) -> Numbers:
        """c: all that there are, with activity; the hub and then the bridge die in the middle."""
        names = self._names
        running = [name for name in names[: self._size.running] if name not in self._failed]
        more = await self._people.press_start(
            names[self._size.running :], self._options, over_s=(len(names) - self._size.running) / 15
        )
        up = [*running, *more.seconds]
        self._say(f"{len(up)} servers up; holding them for {self._size.hold_s:.0f} s")
        sockets = [await self._people.open_websocket(name) for name in up[:_WEBSOCKETS]]
        # The servers send nothing: whatever is received is an end.
        ends = [asyncio.ensure_future(socket.receive()) for socket in sockets]
        span = Span.begin(self._everything)
        part = self._size.hold_s / 3
        async with Browsing(self._people, up, each_s=60.0) as browsing:
            await asyncio.sleep(part)
            cpu, pss = span.percent(), self._pss()
            files = {name: open_files(pid) for name, pid in self._everything.items()}
            calm_failures = len(browsing.failed)
            hub = await self._hub_restart(up, browsing, ends)
            await asyncio.sleep(part)
            bridge = await self._bridge_restart(up, browsing, ends)
            await asyncio.sleep(part)
            asked = browsing.answered
        ready = await self._people.ready_servers()
        for end, socket in zip(ends, sockets, strict=True):
            end.cancel()
            await socket.close()
        return {
            "servers": len(up),
            "not_started": dict(Counter(more.failed.values()).most_common(3)),
            "cpu_percent": cpu,
            "pss_mib": pss,
            "open_files": files,
            "kb_per_server": {name: (pss[name] - self._at_rest[name]) * 1024 / len(up) for name in pss},
            "requests_answered": asked,
            "requests_failed_while_calm": calm_failures,
            "hub_restart": hub,
            "bridge_restart": bridge,
            "ready_in_hub_at_the_end": ready,
            "lost": len(up) - bridge["back"],
            "counts": dict(self._side.counts()),
        }

    async def _hub_restart(
        self, up: Sequence[str], browsing: Browsing, ends: Sequence[asyncio.Future[Any]]
    ) -> Numbers:
        failed = len(browsing.failed)
        self._side.processes.kill("jupyterhub", signal.SIGKILL)
        began = time.monotonic()
        await asyncio.to_thread(self._side.start_hub)
        answers_s = time.monotonic() - began
        known = 0
        while known < len(up) and time.monotonic() - began < _BACK_LIMIT_S:
            await asyncio.sleep(0.5)
            known = await self._ready()
        found = {
            "answers_s": answers_s,
            "knows_all_s": time.monotonic() - began,
            "known": known,
            "requests_failed": len(browsing.failed) - failed,
            "websockets_lost": sum(end.done() for end in ends),
            "websockets": len(ends),
        }
        self._say(
            f"hub killed: answers after {answers_s:.1f} s, knows {known} servers after "
            f"{found['knows_all_s']:.1f} s; {found['requests_failed']} requests failed meanwhile"
        )
        return found

    async def _ready(self) -> int:
        try:
            return await self._people.ready_servers()
        except (aiohttp.ClientError, TimeoutError):
            return 0

    async def _bridge_restart(
        self, up: Sequence[str], browsing: Browsing, ends: Sequence[asyncio.Future[Any]]
    ) -> Numbers:
        failed, before = len(browsing.failed), self._side.counts()
        self._side.processes.kill("bridge", signal.SIGKILL)
        began = time.monotonic()
        await asyncio.to_thread(self._side.start_bridge)
        answers_s = time.monotonic() - began
        span = Span.begin(self._everything)
        kept = await self._sessions.is_open(up[0])
        if not kept:  # as if each had logged in again
            await self._log_in_admin()
            await self._sessions.open([*up, *self._waiting], in_flight=50)
        async with Load(self._everything) as load:
            reached = await self._people.until_all_reached(up, _BACK_LIMIT_S)
        counted = self._side.counts() - before
        found = {
            "answers_s": answers_s,
            "sessions_survived": kept,
            "back": len(reached),
            "back_s": percentiles([answers_s + one for one in reached.values()]),
            "all_back_s": time.monotonic() - began,
            "requests_failed": len(browsing.failed) - failed,
            "websockets_lost": sum(end.done() for end in ends),
            "handshakes": counted["handshakes"],
            "refused_by_max_startups": counted["refused by MaxStartups"],
            "cpu_ms_per_server": {name: 1000 * used / len(up) for name, used in span.used_s().items()},
            "cpu_percent": span.percent(),
            "busy_percent": load.busy_percent,
        }
        self._say(
            f"bridge killed: answers after {answers_s:.1f} s, {len(reached)} of {len(up)} tunnels back "
            f"after {found['all_back_s']:.0f} s; sessions survived: {kept}"
        )
        return found
