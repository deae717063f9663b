"""One server from the click to the end: begin, attach, hand over, keep, and say what became of it.

Doubt is never death: a lost connection is made again for as long as nobody says for certain that
the server is gone. Only the place can say so.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import aiohttp

from hpchub.bridge.keeper import Keeper
from hpchub.bridge.places import Place, Verdict
from hpchub.bridge.progress import Progress
from hpchub.bridge.start_queue import StartQueue
from hpchub.bridge.store import ServerRecord
from hpchub.core.secret import Secret
from hpchub.core.server import Phase
from hpchub.errors import HostUnreachable, HpchubError, NoSession, NotListening, StartFailed, to_wire
from hpchub.local_api.accounts import share_with_group
from hpchub.logs import correlated
from hpchub.remote.handover import handover_line, notebook_argv, notebook_environ
from hpchub.ssh.attach import Attachment, Heartbeat

log = logging.getLogger(__name__)

# From a running job to a listening notebook takes seconds; a cold file system may need minutes.
_START_LIMIT_S = 300
_LAUNCHER_WAIT_S = 60
_LEAVE_LIMIT_S = 30
# While a launcher is not up yet, how soon and how often to ask whether it ever will be.
_FIRST_ASK_S = 0.3
_LONGEST_ASK_S = 5
_STEP_S = 0.05
_ANSWER_LIMIT_S = 10
# No notebook server that is just starting answers sooner, and a crowd's early looks are a tenth of its cost.
_FIRST_LOOK_S = 0.5
_LOOK_S = 0.1
_LONGEST_STEP_S = 1
_LONGEST_PAUSE_S = 30
# A launcher that is asked to end kills its server after ten seconds.
_END_LIMIT_S = 20
# A connection that is lost ends its channels first, and says so itself a moment later.
_LOSS_SHOWS_S = 0.2


class ServerLife:
    """Drives one server. Its record's environment holds a token, and is dropped once handed over."""

    def __init__(
        self,
        record: ServerRecord,
        place: Place,
        keeper: Keeper,
        *,
        local_socket: Path,
        hub_socket: Path,
        progress: Progress,
        queue: StartQueue,
        group: int | None = None,
    ) -> None:
        self.record = record
        self.progress = progress
        self.local_socket = local_socket
        self.ended = asyncio.Event()
        self.tunnel_open = False
        self.ended_at = 0.0
        self._place = place
        self._keeper = keeper
        self._hub_socket = hub_socket
        self._group = group
        self._queue = queue
        self._waits_for_turn = False
        self._tried_to_attach = record.handed_over
        self._handing_over = False
        # READY is not always what was stored last: a bridge that took the server up calls it CONNECTING.
        self._was_ready = record.handed_over and record.phase is not Phase.STARTING
        self._submitted = asyncio.Event()
        self._try_now = asyncio.Event()
        if record.job_id or record.node:
            self._submitted.set()
        if record.phase in {Phase.READY, Phase.STOPPING}:
            # Its tunnel went with whoever held it, and so did a stop: neither is so until it is again.
            record.phase = Phase.CONNECTING
        self._stopping = asyncio.Lock()
        self._way: tuple[Attachment, Heartbeat] | None = None
        self._main: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start living, in a task of its own; once is enough."""
        if self._main is not None:
            return
        with correlated(self.record.id):
            self._main = asyncio.create_task(self._run(), name=f"server {self.record.id}")

    def try_now(self) -> None:
        """Do not wait for the next try: its owner has just logged in."""
        self._try_now.set()

    async def stop(self) -> None:
        """End the server and return once it is gone. RemoteError where the cluster cannot be told."""
        async with self._stopping:
            if self.ended.is_set():
                return
            self.progress.stopping()
            self._leave_queue()
            if self._main is not None:
                await self._submitted.wait()
            try:
                await self._place.cancel()
            except HpchubError as error:
                if not await self._ends_when_asked():
                    self.progress.not_stopped(str(error))
                    raise
                log.warning("server.stopped_unscheduled id=%s error=%s", self.record.id, error)
            await self.leave()
            await self._finish(Verdict(None, self.record.native_state))

    async def _ends_when_asked(self) -> bool:
        """Where the scheduler cannot be told: ask the server itself to end. Whether it has.

        Its channel closes with it. Where the way to it is lost instead, nobody knows.
        """
        if self._way is None:
            return False
        attachment, heartbeat = self._way
        lost = asyncio.ensure_future(attachment.wait_closed())
        try:
            async with asyncio.timeout(_END_LIMIT_S):
                await heartbeat.stop()
                await heartbeat.closed()
            await asyncio.sleep(_LOSS_SHOWS_S)
            return not lost.done()
        except TimeoutError:
            return False
        finally:
            lost.cancel()

    async def leave(self) -> None:
        """Let go of the server without ending it: this process ends, the server need not."""
        self._leave_queue()
        if self._main is not None:
            with suppress(TimeoutError):  # a job that is being made would be nobody's
                async with asyncio.timeout(_LEAVE_LIMIT_S):
                    await self._submitted.wait()
            self._main.cancel()
            with suppress(asyncio.CancelledError):
                await self._main

    async def adopt(self, environ: Secret, base_url: str) -> bool:
        """Take the environment of a newer start of the same server; False where it is too late for that."""
        gone = self.record.phase in {Phase.STOPPING, Phase.ENDED}
        if gone or self.record.handed_over or self._handing_over:
            return False
        self.record.environ = environ
        self.record.base_url = base_url
        await self._save()
        return True

    async def _run(self) -> None:
        try:
            verdict = await self._live()
        except HpchubError as error:
            verdict = Verdict(error, self.record.native_state)
        except Exception as error:
            # The last resort of one server's task: others must live on, and the person must hear.
            log.exception("server.crashed id=%s", self.record.id)
            what = f"hpchub failed while looking after this server: {type(error).__name__}."
            verdict = Verdict(HpchubError(what, f"The bridge's log has more, under {self.record.id}."))
        finally:
            self._submitted.set()  # nothing more will be submitted
        async with self._stopping:  # a stop that goes on meanwhile ends the server its own way
            if verdict.error is not None:
                await self._let_go()
            await self._finish(verdict)

    async def _let_go(self) -> None:
        """Leave no job behind that nobody looks after."""
        try:
            await self._place.cancel()
        except HpchubError as error:
            log.warning("server.cancel_failed id=%s error=%s", self.record.id, error)

    async def _live(self) -> Verdict:
        if not self.record.handed_over and self.record.environ is None:
            raise StartFailed(
                "hpchub restarted, with its key agent, before this server had started, and let it go.",
                "Start it again.",
            )
        if not self._submitted.is_set():
            self._waits_for_turn = True
            async with self._queue.turn(self.record.user, self._tell_position):
                self._waits_for_turn = False
                await self._submit()
        if not self.record.handed_over:
            with self.progress.meter.step("queue"):
                await self._place.until_running()
            self.progress.tell(Phase.STARTING, f"Running on {self.record.node}: connecting to it")
            await self._save()
        return await self._keep()

    async def _submit(self) -> None:
        """Each step is stored before the next: a bridge that takes this up knows how far it came."""
        again = bool(self.record.folder)
        if not again:
            await self._place.prepare()
            await self._keeper.save_first(self.record)
        else:
            self._submitted.set()  # maybe so: a stop must not wait until somebody can tell
        await self._place.submit(again=again)
        await self._save()
        self._submitted.set()

    def _leave_queue(self) -> None:
        """A start whose turn has not come gives its place back; it has begun nothing yet."""
        if self._waits_for_turn and self._main is not None:
            self._main.cancel()

    def _tell_position(self, before: int) -> None:
        places = {0: "yours is the next", 1: "1 start before yours"}
        place = places.get(before, f"{before} starts before yours")
        self.progress.tell(Phase.CONNECTING, f"Many servers start at once: {place}")

    async def _keep(self) -> Verdict:
        """Attach, and attach again, until the place says that the server is gone."""
        began = time.monotonic()
        pause = _STEP_S
        while True:
            self._try_now.clear()
            try:
                async with self._attached(began + _START_LIMIT_S) as (attachment, heartbeat):
                    pause = _STEP_S
                    await self._until_lost(attachment, heartbeat)
                    async with self._stopping:
                        self._way = None  # a stop may have wanted to see what was lost
            except NoSession as error:  # the way in is its owner's: until they log in again there is none
                log.info("server.waits_for_login id=%s error=%s", self.record.id, error)
                began = time.monotonic()
            except HpchubError as error:
                log.warning("server.attach_failed id=%s error=%s", self.record.id, error)
                self.progress.trouble = str(error) if self._was_ready else ""
                if not self.record.handed_over and not error.retryable:
                    raise
            except Exception:
                if not self._was_ready:
                    raise
                # Somebody works on it: a fault of ours is no reason to end it.
                log.exception("server.keep_crashed id=%s", self.record.id)
            async with self._stopping:  # a stop ends this task; one that failed leaves it to go on
                verdict = await self._verdict()
            if verdict is not None:
                return verdict
            if not self._was_ready and time.monotonic() - began > _START_LIMIT_S:
                raise StartFailed(
                    f"The server on {self.record.node} did not answer within {_START_LIMIT_S // 60} minutes.",
                    "Try again, or choose another environment.",
                )
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._try_now.wait()
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    @asynccontextmanager
    async def _attached(self, start_by: float) -> AsyncIterator[tuple[Attachment, Heartbeat]]:
        """The tunnel, both ways, with a notebook that answers at its end."""
        async with AsyncExitStack() as stack:
            with self.progress.meter.step("attach"):
                attachment = await self._attach()
            stack.push_async_callback(attachment.close)
            with self.progress.meter.step("start"):
                heartbeat = await self._until_handed_over(attachment)
            self._way = attachment, heartbeat
            stack.enter_context(self.progress.end.told_to(heartbeat))
            await attachment.forward_notebook(self.local_socket)
            share_with_group(self.local_socket, self._group)
            alias = self.local_socket.with_name(self.local_socket.name + ":80")
            alias.unlink(missing_ok=True)
            # JupyterHub 6.1 appends the port to a unix socket's URL, and the proxy looks there.
            alias.symlink_to(self.local_socket.name)
            stack.callback(alias.unlink, missing_ok=True)
            with self.progress.meter.step("ready"):
                await self._until_ready(attachment, heartbeat, start_by)
            self._was_ready = self.tunnel_open = True
            stack.callback(setattr, self, "tunnel_open", False)
            self.progress.meter.ready()
            self.progress.trouble = ""
            self.progress.tell(Phase.READY, f"Ready on {self.record.node}")
            await self._save()
            yield attachment, heartbeat

    async def _attach(self) -> Attachment:
        """A way in. Only a start's first try takes a turn: lost tunnels must not keep new starts waiting."""
        if self._tried_to_attach:
            return await self._place.attach()
        self._tried_to_attach = True
        async with self._queue.turn(self.record.user, at_once=True):
            return await self._place.attach()

    async def _until_handed_over(self, attachment: Attachment) -> Heartbeat:
        """Hand over as soon as the launcher listens; a server that has started listens already."""
        began = time.monotonic()
        deadline = began + (0 if self.record.handed_over else _LAUNCHER_WAIT_S)
        ask_at, ask_pause, pause = began + _FIRST_ASK_S, _FIRST_ASK_S, _STEP_S
        hub_name = ""
        while True:
            try:
                if not hub_name:
                    hub_name = await attachment.serve_hub(self._hub_socket)
                    await self._place.check_owner()
                self._handing_over = True
                heartbeat = await attachment.handover(self._line(hub_name))
                break
            except NotListening:
                self._handing_over = False
                if time.monotonic() > deadline:
                    raise
            if time.monotonic() > ask_at:
                if await self._verdict():
                    raise NotListening("The server ended before it listened.")
                ask_pause = min(2 * ask_pause, _LONGEST_ASK_S)
                ask_at = time.monotonic() + ask_pause
            await asyncio.sleep(pause)
            pause = min(1.2 * pause, _LONGEST_STEP_S)
        if not self.record.handed_over:
            self.record.handed_over = True
            self.record.environ = None
            self.progress.tell(Phase.STARTING, f"Starting Jupyter on {self.record.node}")
            await self._save()
        return heartbeat

    def _line(self, hub_name: str) -> bytes:
        if self.record.handed_over or self.record.environ is None:
            return handover_line(hub_socket=hub_name)
        return handover_line(
            hub_socket=hub_name,
            environ=notebook_environ(
                json.loads(self.record.environ.reveal()), runtime_dir=self._place.runtime_dir
            ),
            argv=notebook_argv(runtime_dir=self._place.runtime_dir),
        )

    async def _until_ready(self, attachment: Attachment, heartbeat: Heartbeat, start_by: float) -> None:
        """Return once the notebook answers. Only its first start ends at `start_by` (monotonic)."""
        connector = aiohttp.UnixConnector(path=str(self.local_socket))
        timeout = aiohttp.ClientTimeout(total=_ANSWER_LIMIT_S)
        lost = asyncio.create_task(self._until_lost(attachment, heartbeat))
        pause = _LOOK_S
        try:
            if not self._was_ready:
                await asyncio.sleep(_FIRST_LOOK_S)
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
                while not lost.done() and (self._was_ready or time.monotonic() < start_by):
                    try:
                        async with client.get(f"http://localhost{self.record.base_url}api") as answer:
                            if answer.status < 500:
                                return
                    except (aiohttp.ClientError, TimeoutError):
                        log.debug("server.not_ready id=%s", self.record.id)
                    await asyncio.sleep(pause)
                    pause = min(1.2 * pause, _LONGEST_STEP_S)
        finally:
            lost.cancel()
        raise HostUnreachable(f"The server on {self.record.node} did not become ready.")

    async def _until_lost(self, attachment: Attachment, heartbeat: Heartbeat) -> None:
        ends = [asyncio.ensure_future(attachment.wait_closed()), asyncio.ensure_future(heartbeat.closed())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()

    async def _verdict(self) -> Verdict | None:
        try:
            return await self._place.verdict()
        except HpchubError as error:
            log.warning("server.verdict_failed id=%s error=%s", self.record.id, error)
            return None
        except Exception:
            if not self._was_ready:
                raise
            log.exception("server.verdict_crashed id=%s", self.record.id)
            return None

    async def _finish(self, verdict: Verdict) -> None:
        if self.ended.is_set():
            return
        self.record.environ = None
        self.record.native_state = verdict.native_state
        if verdict.error is not None:
            self.record.error = to_wire(verdict.error)
            self.progress.meter.failed(verdict.error)
        if self.record.folder:
            with suppress(HpchubError):  # what stays behind costs a little room, and holds no token
                await self._place.clean_up(keep_log=verdict.error is not None)
        self.progress.tell(Phase.ENDED, str(verdict.error or "Ended"))
        await self._save()
        self.ended_at = time.time()
        self.ended.set()

    async def _save(self) -> None:
        await self._keeper.save(self.record)
