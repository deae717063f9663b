"""A notebook server's line to one kernel in a job: control, and the kernel's sockets as if it ran here.

A thread with an event loop of its own serves it, because Jupyter's blocking managers run theirs only
while somebody waits. The kernel's five unix sockets lie in a 0700 folder on this node; each connection
to one of them is carried to the agent (hpchub/remote/kernel_agent.py), which joins it to the kernel's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import secrets
import socket
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from hpchub.errors import HostUnreachable, StartFailed
from hpchub.kernels.allocation import Place
from hpchub.kernels.cells import Cells
from hpchub.kernels.step import Step
from hpchub.remote.kernel_agent import (
    CHANNELS,
    CONTROL,
    GREETING,
    LINE_BYTES,
    LISTEN_WAIT_S,
    PUMP_BYTES,
    PrivateFolder,
    Streams,
    join,
    message_key,
    proof,
)

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_CONNECT_S = 10.0
# The agent answers for a channel once the kernel listens.
_CHANNEL_S = LISTEN_WAIT_S + _CONNECT_S
_START_S = 30.0
_END_S = 15.0
_PING_S = 5.0
_SILENCE_S = 20.0
_AGAIN_S = 1.0
# A kernel that is restarted is there again soon, and one that is not may stay away for hours.
_DIAL_AGAIN_S, _DIAL_OFTEN = 0.1, 100


class Line:
    """One kernel's line. Methods may be called from any thread or loop."""

    def __init__(self, place: Place, key: bytes, kernel_id: str) -> None:
        self.place = place
        self.exit_code: int | None = None
        self.runs = False
        self.memory_kills = 0
        self.job_ends = False
        self.lost_at: float | None = None
        self._key = key
        self._kernel_id = kernel_id
        self._private = PrivateFolder()
        self._folder = self._private.path
        self._step = Step(place.step, self._folder / "agent.sock") if place.step else None
        self._loop = asyncio.new_event_loop()
        self._control: asyncio.StreamWriter | None = None
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._servers: list[asyncio.Server] = []
        self._held: set[asyncio.StreamWriter] = set()
        self._is_cut = False
        self._listeners = self._most_listeners = 0
        self._was_reached = False
        self._cells: Cells | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hpchub-kernel", daemon=True)
        self._thread.start()

    @property
    def connection_info(self) -> dict[str, Any]:
        """What a Jupyter client needs, as in a connection file; `key` as bytes."""
        ports = {f"{name}_port": number for number, name in enumerate(CHANNELS, 1)}
        key = message_key(self._key, self._kernel_id).encode()
        return {
            "transport": "ipc", "ip": str(self._folder / "k"), "key": key,
            "signature_scheme": "hmac-sha256", **ports,
        }  # fmt: skip

    @property
    def is_lost(self) -> bool:
        """Whether the agent has not been heard of for some seconds."""
        return self.lost_at is not None

    async def open(self) -> None:
        """Connects, and learns whether the kernel runs.

        Raises:
            HostUnreachable: The node cannot be reached, or something else answers there.
        """
        await self._here(self._open())

    async def start(self, request: dict[str, Any]) -> None:
        """Starts the kernel, in the place of one that runs.

        Raises:
            StartFailed: There is no such command on the node.
            HostUnreachable: The agent does not answer.
        """
        await self._here(self._start(request))

    async def is_listening(self) -> bool:
        """Waits until the kernel's sockets are there; False where it ended before, or takes a minute."""
        return await self._here(self._is_listening())

    async def listen(self) -> None:
        """Makes the five sockets, anew: Jupyter removes them with each restart."""
        await self._here(self._listen())

    async def write(self, text: str) -> None:
        """Writes under the notebook's cell why the kernel is gone, in the kernel's place."""
        await self._here(self._write(text))

    async def send_signal(self, number: int) -> None:
        """To the kernel and what it has started. Lost where the agent is."""
        await self._here(self._send({"do": "signal", "number": number}))

    async def end(self) -> bool:
        """Ends the kernel, and the job with its last one; False where the agent does not answer."""
        return await self._here(self._end())

    def cut(self) -> None:
        """Keeps from the kernel whatever Jupyter sends once this has returned; `close` is to follow.

        Without a way through the thread: a server that stops asks the kernel to end in the next moment.
        """
        self._is_cut = True
        for writer in list(self._held):
            with contextlib.suppress(OSError):  # its other side is gone
                writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Leaves the kernel alone and ends the thread; the sockets are gone.

        What does not end in time is logged, and left to the end of this process.
        """
        if self._loop.is_closed():
            return
        try:
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_END_S)
        except TimeoutError:
            _log.error("kernel.line_not_closed node=%s", self.place.node)
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_END_S)
        self._loop.close()
        self._private.remove()

    async def _here(self, work: Coroutine[Any, Any, _T]) -> _T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    # -- what follows runs in the thread --------------------------------------------------------

    async def _open(self) -> None:
        reader, self._control = await self._dial(CONTROL)
        self._take(json.loads(await _within(_CONNECT_S, reader.readline())))
        self.lost_at = None
        self._spawn(self._stay(reader))
        self._spawn(self._ping())

    async def _start(self, request: dict[str, Any]) -> None:
        while not self._answers.empty():
            self._answers.get_nowait()
        await self._send({**request, "do": "start"})
        try:
            answer = await _within(_START_S, self._answers.get())
        except TimeoutError:
            raise self._unreachable("does not answer") from None
        if answer["event"] == "refused":
            raise StartFailed(f"The kernel cannot be started on {self.place.node}: {answer['message']}.")

    async def _is_listening(self) -> bool:
        try:
            _, writer = await self._dial("hb")
        except HostUnreachable:
            return False
        writer.close()
        return True

    async def _end(self) -> bool:
        await self._send({"do": "end"})
        try:
            while (await _within(_END_S, self._answers.get()))["event"] != "over":
                continue
        except TimeoutError:
            return False
        return True

    async def _send(self, request: dict[str, Any]) -> None:
        if self._control is None:
            return
        self._control.write(json.dumps(request).encode() + b"\n")
        with contextlib.suppress(OSError):  # noticed by the reading side
            await self._control.drain()

    async def _stay(self, reader: asyncio.StreamReader) -> None:
        """Listen to the agent; connect again for as long as nobody says that the job is over."""
        while True:
            try:
                while line := await _within(_SILENCE_S, reader.readline()):
                    self._take(json.loads(line))
            except (OSError, ValueError) as error:
                _log.info("kernel.control_lost node=%s error=%s", self.place.node, error)
            if self.lost_at is None:
                self.lost_at = time.monotonic()
            if self._control is not None:
                self._control.close()
                self._control = None
            await asyncio.sleep(_AGAIN_S)
            with contextlib.suppress(HostUnreachable):
                reader, self._control = await self._dial(CONTROL)

    def _take(self, message: dict[str, Any]) -> None:
        self.lost_at, self._was_reached = None, True
        if message["event"] == "state":
            self.runs, self.exit_code = bool(message["runs"]), message["code"]
            self.memory_kills = int(message["memory"])
        elif message["event"] == "job ends":
            self.job_ends = True
        elif message["event"] != "pong":
            if message["event"] == "started":  # here, for its end may be the next message
                self.runs, self.exit_code = True, None
            self._answers.put_nowait(message)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(_PING_S)
            await self._send({"do": "ping"})

    async def _listen(self) -> None:
        await self._stop_listening()
        self._most_listeners = 0
        for number, name in enumerate(CHANNELS, 1):

            def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str = name) -> None:
                if self._is_cut:
                    writer.close()
                    return
                # Held from now on: a task that is cancelled before it has begun closes nothing.
                self._held.add(writer)
                self._spawn(self._carry(name, (reader, writer)))

            path = self._folder / f"k-{number}"
            path.unlink(missing_ok=True)
            self._servers.append(await asyncio.start_unix_server(accept, path, limit=PUMP_BYTES))
        if self._cells is None:
            self._cells = Cells(
                self._folder / f"k-{CHANNELS.index('iopub') + 1}", self.connection_info["key"]
            )
        self._cells.follow()

    async def _stop_listening(self) -> None:
        """asyncio leaves a connection that has just come open where its server is closed at that moment."""
        servers, self._servers = self._servers, []
        for listener in (each for server in servers for each in server.sockets):
            self._loop.remove_reader(listener.fileno())
        for _ in range(3):  # asyncio's steps with such a connection; then it is held
            await asyncio.sleep(0)
        for server in servers:
            server.close()
        if self._cells is not None:
            self._cells.stop()

    async def _write(self, text: str) -> None:
        if self._cells is None:
            return
        await self._stop_listening()
        for number in range(1, len(CHANNELS) + 1):
            (self._folder / f"k-{number}").unlink(missing_ok=True)
        for writer in list(self._held):
            writer.close()
        await self._cells.write(text, self._most_listeners - 1)  # one was ours

    async def _carry(self, name: str, inner: Streams) -> None:
        """One of Jupyter's connections, held until there is a kernel.

        Closed at once it would come back late, and miss what a restarted kernel publishes first.
        """
        if name == "iopub":
            self._listeners += 1
            self._most_listeners = max(self._listeners, self._most_listeners)
        # ZeroMQ's greeting: it goes away, and comes again, where none is returned for 30 s.
        early = bytearray()
        dial = asyncio.ensure_future(self._dial_until_there(name))
        heard = asyncio.ensure_future(_hear(inner[0], early))
        try:
            await asyncio.wait((dial, heard), return_when=asyncio.FIRST_COMPLETED)
            if not heard.done():
                heard.cancel()
                await asyncio.gather(heard, return_exceptions=True)
                outer = dial.result()
                outer[1].write(bytes(early))
                await join(inner, outer)
        finally:
            heard.cancel()
            if not dial.cancel() and not dial.cancelled() and dial.exception() is None:
                dial.result()[1].close()
            if not inner[1].transport.get_write_buffer_size():
                self._held.discard(inner[1])
            self._listeners -= name == "iopub"
            inner[1].close()

    async def _dial_until_there(self, name: str) -> Streams:
        tries = 0
        while True:
            try:
                return await self._dial(name)
            except HostUnreachable:
                tries += 1
                await asyncio.sleep(_DIAL_AGAIN_S if tries < _DIAL_OFTEN else _AGAIN_S)

    async def _dial(self, part: str) -> Streams:
        """A connection that both sides have proven."""
        role = f"{self._kernel_id}/{part}"
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(_CONNECT_S if part == CONTROL else _CHANNEL_S):
                reader, writer = await self._connect()
                first = await reader.readline()
                if not first:
                    raise ValueError("the connection was closed")
                greeting, agent_nonce = first.decode("ascii").split()
                if greeting != GREETING:
                    raise ValueError("something else answers")
                nonce = secrets.token_hex(16)
                shown = proof(self._key, "client", role, agent_nonce, nonce)
                writer.write(f"{role} {nonce} {shown}\n".encode())
                word, answer = (await reader.readline()).decode("ascii").split()
                expected = proof(self._key, "agent", role, agent_nonce, nonce)
                if word != "ok" or not hmac.compare_digest(answer, expected):
                    raise ValueError("it does not know the key")
        except (OSError, ValueError, asyncio.CancelledError) as error:
            if writer is not None:
                writer.close()
            if isinstance(error, asyncio.CancelledError):
                raise
            raise self._unreachable(str(error) or type(error).__name__) from error
        return reader, writer

    async def _connect(self) -> Streams:
        if self._step is not None:
            return await self._step.connect(LINE_BYTES)
        return await asyncio.open_connection(self.place.address, self.place.port, limit=LINE_BYTES)

    def _unreachable(self, why: str) -> HostUnreachable:
        place = self.place
        return HostUnreachable(
            f"The kernel's node {place.node} cannot be reached {place.way}: {why}.",
            ""
            if place.step or self._was_reached
            else "Where this machine may not reach the nodes' ports, say attach=srun.",
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close(self) -> None:
        await self._stop_listening()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for writer in self._held:
            writer.transport.abort()  # whatever is still to be written
        if self._cells is not None:
            self._cells.close()
        if self._control is not None:
            self._control.close()
        if self._step is not None:
            await self._step.close()


async def _within(limit_s: float, work: Coroutine[Any, Any, _T]) -> _T:
    """As `asyncio.wait_for`, which in Python 3.11 may drop a cancellation that comes with the result."""
    async with asyncio.timeout(limit_s):
        return await work


async def _hear(reader: asyncio.StreamReader, heard: bytearray) -> None:
    """Keeps what comes, until the other side goes away."""
    while data := await reader.read(PUMP_BYTES):
        heard.extend(data)
