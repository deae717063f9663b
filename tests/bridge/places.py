"""Places and a node in this process: one that behaves, and some named after how they do not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from aiohttp import web

from hpchub.bridge.places import Verdict
from hpchub.bridge.progress import Progress
from hpchub.bridge.store import ServerRecord
from hpchub.core.server import Phase
from hpchub.errors import (
    HostUnreachable,
    NoSession,
    NotAllowed,
    NotListening,
    SchedulerUnavailable,
    StartFailed,
)
from hpchub.ssh.attach import Attachment, Heartbeat
from hpchub.ssh.forward import private_listener


class Node:
    """Where a server runs: what listens there, whether it can be reached, and what it was told."""

    def __init__(self) -> None:
        self.reachable = True
        self.launcher_listens = True
        self.notebook_answers = True
        self.alive = True
        self.obeys = False
        self.handovers: list[dict[str, Any]] = []
        self.told: list[dict[str, Any]] = []
        self.attachments: list[LocalAttachment] = []

    def cut(self) -> None:
        """Lose every connection."""
        for attachment in self.attachments:
            attachment.lose()

    def die(self) -> None:
        self.alive = self.launcher_listens = False
        self.cut()

    @property
    def open_attachments(self) -> list[LocalAttachment]:
        return [one for one in self.attachments if not one.closed]


class _Writer:
    def __init__(self, node: Node, reader: asyncio.StreamReader) -> None:
        self._node = node
        self._reader = reader

    def write(self, data: bytes, /) -> None:
        """The launcher ends when it is told to, and its channel with it; the way stays open."""
        self._node.told.append(json.loads(data))
        if self._node.obeys and self._node.told[-1].get("stop"):
            self._node.alive = self._node.launcher_listens = False
            self._reader.feed_eof()

    def close(self) -> None:
        """Nothing is kept open."""


class LocalAttachment(Attachment):
    """A way that needs no SSH."""

    def __init__(self, node: Node) -> None:
        self.closed = False
        self._node = node
        self._lost = asyncio.Event()
        self._readers: list[asyncio.StreamReader] = []
        self._heartbeats: list[Heartbeat] = []
        self._runner: web.AppRunner | None = None
        self._path: Path | None = None
        node.attachments.append(self)

    def lose(self) -> None:
        self._lost.set()
        for reader in self._readers:
            reader.feed_eof()

    async def serve_hub(self, local_hub_socket: Path) -> str:
        if not self._node.launcher_listens:
            raise NotListening("nobody yet")
        return f"hub-{len(self._node.attachments)}.sock"

    async def handover(self, line: bytes) -> Heartbeat:
        if not self._node.launcher_listens:
            raise NotListening("nobody yet")
        self._node.handovers.append(json.loads(line))
        reader = asyncio.StreamReader()
        self._readers.append(reader)
        self._heartbeats.append(Heartbeat(reader, _Writer(self._node, reader), 4242))
        return self._heartbeats[-1]

    async def forward_notebook(self, local_path: Path) -> None:
        async def answer(_request: web.Request) -> web.Response:
            return web.Response(status=200 if self._node.notebook_answers else 503)

        app = web.Application()
        app.router.add_get("/{rest:.*}", answer)
        self._path = local_path
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        # Nothing here may wait: whoever is cancelled then would leave a listener behind.
        self._site = web.SockSite(self._runner, private_listener(local_path))
        await asyncio.shield(asyncio.ensure_future(self._site.start()))

    async def wait_closed(self) -> None:
        await self._lost.wait()

    async def close(self) -> None:
        self.closed = True
        self.lose()
        for heartbeat in self._heartbeats:
            await heartbeat.close()
        if self._runner:
            await self._runner.cleanup()
        if self._path:
            self._path.unlink(missing_ok=True)


class WellBehaved:
    """A job that is submitted, queues, runs, and ends when it is told to."""

    def __init__(self, record: ServerRecord, progress: Progress) -> None:
        self.record = record
        self.progress = progress
        self.node = Node()
        self.calls: list[str] = []
        self.error: StartFailed | None = None
        self.foreign = False

    @property
    def runtime_dir(self) -> str:
        return f"/tmp/hpchub-{self.record.id}"

    async def prepare(self) -> None:
        self.calls.append("prepare")
        self.record.folder = f"/home/{self.record.user}/.hpchub/servers/{self.record.id}"

    async def submit(self, *, again: bool) -> None:
        self.calls.append("submit again" if again else "submit")
        self.record.job_id = "42"
        self.progress.tell(Phase.SUBMITTED, "Submitted as job 42")

    async def until_running(self) -> None:
        self.progress.tell(Phase.QUEUED, "Job 42: waiting for resources")
        self.record.node, self.record.native_state = "c1", "RUNNING"

    async def attach(self) -> Attachment:
        if not self.node.reachable:
            raise HostUnreachable("c1 cannot be reached.")
        return LocalAttachment(self.node)

    async def check_owner(self) -> None:
        if self.foreign:
            raise NotAllowed("Somebody else has made this server's folder.")

    async def verdict(self) -> Verdict | None:
        self.calls.append("verdict")
        return None if self.node.alive else Verdict(self.error, "COMPLETED")

    async def cancel(self) -> None:
        self.calls.append("cancel")
        self.record.native_state = "CANCELLED"
        self.node.die()

    async def clean_up(self, *, keep_log: bool) -> None:
        self.calls.append("keep_log" if keep_log else "clean_up")


class SlowToSubmit(WellBehaved):
    """Submits once its gate is open."""

    def __init__(self, record: ServerRecord, progress: Progress) -> None:
        super().__init__(record, progress)
        self.gate = asyncio.Event()

    async def submit(self, *, again: bool) -> None:
        await self.gate.wait()
        await super().submit(again=again)


class CannotSubmit(SlowToSubmit):
    """The home is full, once its gate is open."""

    async def submit(self, *, again: bool) -> None:
        await self.gate.wait()
        self.calls.append("submit")
        raise StartFailed("The home is full.")


class NeverRuns(WellBehaved):
    """Queues for ever."""

    async def until_running(self) -> None:
        self.progress.tell(Phase.QUEUED, "Job 42: waiting for resources")
        await asyncio.Event().wait()


class DiesWhileQueued(WellBehaved):
    """Ends before it runs."""

    async def until_running(self) -> None:
        self.node.die()
        raise StartFailed("Job 42 ended: cancelled.", log_tail="", log_path="server.log on Alpha")


class DiesWhileStarting(WellBehaved):
    """Runs, but its launcher is gone before anybody can speak to it."""

    async def until_running(self) -> None:
        await super().until_running()
        self.node.die()
        self.error = StartFailed("Job 42 ended: exit 3.", log_tail="no jupyterhub", log_path="server.log")


class NeverListens(WellBehaved):
    """Runs, and its launcher never listens."""

    async def until_running(self) -> None:
        await super().until_running()
        self.node.launcher_listens = False


class NeverAnswers(WellBehaved):
    """Takes the handover, and its notebook answers with errors alone."""

    async def until_running(self) -> None:
        await super().until_running()
        self.node.notebook_answers = False


class CannotBeCancelledAtFirst(WellBehaved):
    """The scheduler is away when the first cancel comes."""

    def __init__(self, record: ServerRecord, progress: Progress) -> None:
        super().__init__(record, progress)
        self.cancelling = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def cancel(self) -> None:
        if "cancel refused" not in self.calls:
            self.cancelling.set()
            await self.gate.wait()
            self.calls.append("cancel refused")
            raise SchedulerUnavailable("slurmctld is away.")
        await super().cancel()


class NeedsALogin(WellBehaved):
    """Its owner's session has ended: no command runs any more, and the tunnel is still there."""

    async def cancel(self) -> None:
        self.calls.append("cancel refused")
        raise NotAllowed("alice has no live session.", "Log in again.")


class OwnerLoggedOut(WellBehaved):
    """Begins to run while its owner is logged out."""

    def __init__(self, record: ServerRecord, progress: Progress) -> None:
        super().__init__(record, progress)
        self.logged_in = False

    async def attach(self) -> Attachment:
        self.calls.append("attach")
        if not self.logged_in:
            raise NoSession("alice has no live session.", "Log in again.")
        return await super().attach()


class Crashes(WellBehaved):
    """Meets a fault of our own."""

    async def until_running(self) -> None:
        raise ZeroDivisionError("a canary that nobody is told of")
