"""A notebook server's line to one kernel in a job: control, and the kernel's sockets as if it ran here.

A thread with an event loop of its own serves it, because Jupyter's blocking managers run theirs only
while somebody waits. Control is one connection to the kernel agent (hpchub/remote/kernel_agent.py), which
starts the kernel and tells of its end. The sockets are doors.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from hpchub.errors import HostUnreachable, SiteError, StartFailed
from hpchub.kernels.allocation import Place
from hpchub.kernels.background import Background
from hpchub.kernels.dialing import CONNECT_S, Dialer
from hpchub.kernels.doors import Doors
from hpchub.kernels.step import Step
from hpchub.remote.kernel_agent import CONTROL, PrivateFolder, message_key

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_START_S = 30.0
_END_S = 15.0
_PING_S = 5.0
_SILENCE_S = 20.0
_AGAIN_S = 1.0


class Line:
    """One kernel's line. Methods may be called from any thread or loop."""

    def __init__(self, place: Place, key: bytes, kernel_id: str) -> None:
        """SiteError where this node has no room for sockets."""
        self.place = place
        self.exit_code: int | None = None
        self.runs = False
        self.memory_kills = 0
        self.job_ends = False
        self.lost_at: float | None = None
        self._private = _private_folder()
        folder = self._private.path
        self._step = Step(place.step, folder / "agent.sock") if place.step else None
        self._dialer = Dialer(place, key, kernel_id, self._step)
        self._doors = Doors(folder, self._dialer, message_key(key, kernel_id).encode())
        self._loop = asyncio.new_event_loop()
        self._control: asyncio.StreamWriter | None = None
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._background = Background()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hpchub-kernel", daemon=True)
        self._thread.start()

    @property
    def connection_info(self) -> dict[str, Any]:
        """What a Jupyter client needs, as in a connection file; `key` as bytes."""
        return self._doors.connection_info

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
        await self._here(self._doors.open())

    async def write(self, text: str) -> bool:
        """Writes under the notebook's cell why the kernel is gone, in its place; whether it could."""
        return await self._here(self._doors.write(text))

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
        self._doors.cut()

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
        reader, self._control = await self._dialer.dial(CONTROL)
        self._take(json.loads(await _within(CONNECT_S, reader.readline())))
        self.lost_at = None
        self._background.start(self._stay(reader))
        self._background.start(self._ping())

    async def _start(self, request: dict[str, Any]) -> None:
        while not self._answers.empty():
            self._answers.get_nowait()
        await self._send({**request, "do": "start"})
        try:
            answer = await _within(_START_S, self._answers.get())
        except TimeoutError:
            raise self._dialer.unreachable("does not answer") from None
        if answer["event"] == "refused":
            raise StartFailed(f"The kernel cannot be started on {self.place.node}: {answer['message']}.")

    async def _is_listening(self) -> bool:
        try:
            _, writer = await self._dialer.dial("hb")
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
                reader, self._control = await self._dialer.dial(CONTROL)

    def _take(self, message: dict[str, Any]) -> None:
        self.lost_at = None
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

    async def _close(self) -> None:
        await self._doors.stop()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._doors.close()
        if self._control is not None:
            self._control.close()
        if self._step is not None:
            await self._step.close()


def _private_folder() -> PrivateFolder:
    try:
        return PrivateFolder()
    except OSError as error:
        raise SiteError(
            f"The kernel's sockets cannot be made on this node: {error}.",
            "Its folder for temporary files may be full or closed: free some room there, or start the "
            "notebook server with TMPDIR set to another short path.",
        ) from error


async def _within(limit_s: float, work: Coroutine[Any, Any, _T]) -> _T:
    """As `asyncio.wait_for`, which in Python 3.11 may drop a cancellation that comes with the result."""
    async with asyncio.timeout(limit_s):
        return await work
