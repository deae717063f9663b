"""A kernel's five sockets as Jupyter finds them here: each connection to one is carried to the kernel.

They lie in a 0700 folder. All of this runs in the loop of a line's thread, but for `cut`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

from hpchub.kernels.background import Background
from hpchub.kernels.cells import Cells
from hpchub.kernels.dialing import Dialer
from hpchub.remote.kernel_agent import CHANNELS, PUMP_BYTES, Streams, join


class Doors:
    """The sockets, and what comes to them."""

    def __init__(self, folder: Path, dialer: Dialer, message_key: bytes) -> None:
        self._folder = folder
        self._dialer = dialer
        self._message_key = message_key
        self._servers: list[asyncio.Server] = []
        self._held: set[asyncio.StreamWriter] = set()
        self._background = Background()
        self._listeners = self._most_listeners = 0
        self._cells: Cells | None = None
        self._is_cut = False

    @property
    def connection_info(self) -> dict[str, Any]:
        """What a Jupyter client needs, as in a connection file; `key` as bytes."""
        ports = {f"{name}_port": number for number, name in enumerate(CHANNELS, 1)}
        return {
            "transport": "ipc", "ip": str(self._folder / "k"), "key": self._message_key,
            "signature_scheme": "hmac-sha256", **ports,
        }  # fmt: skip

    async def open(self) -> None:
        """Makes the five sockets, anew: Jupyter removes them with each restart."""
        await self._stop_listening()
        self._most_listeners = 0
        for name in CHANNELS:
            if self._is_cut:
                return
            path = self._path(name)
            path.unlink(missing_ok=True)
            # Kept before it serves: who is cancelled while it begins to would leave it to nobody.
            server = await asyncio.start_unix_server(
                self._accepter(name), path, limit=PUMP_BYTES, start_serving=False
            )
            self._servers.append(server)
            await server.start_serving()
        if self._cells is None:
            self._cells = Cells(self._path("iopub"), self._message_key)
        self._cells.follow()

    async def write(self, text: str) -> bool:
        """Writes under the notebook's cell why the kernel is gone, in its place; whether it could."""
        if self._cells is None:
            return False
        await self._stop_listening()
        for name in CHANNELS:
            self._path(name).unlink(missing_ok=True)
        for writer in list(self._held):
            writer.close()
        return await self._cells.write(text, self._most_listeners - 1)  # one was ours

    def cut(self) -> None:
        """Keeps from the kernel whatever Jupyter sends once this has returned. From any thread."""
        self._is_cut = True
        for writer in list(self._held):
            with contextlib.suppress(OSError):  # its other side is gone
                writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    async def stop(self) -> None:
        """Lets nobody in any more."""
        self._is_cut = True
        await self._stop_listening()

    def close(self) -> None:
        """The end, once all tasks of the loop have ended; nothing of it is left."""
        for writer in self._held:
            writer.transport.abort()  # whatever is still to be written
        if self._cells is not None:
            self._cells.close()

    def _path(self, name: str) -> Path:
        return self._folder / f"k-{CHANNELS.index(name) + 1}"

    async def _stop_listening(self) -> None:
        servers, self._servers = self._servers, []
        try:
            for server in servers:
                for listening in server.sockets:
                    asyncio.get_running_loop().remove_reader(listening.fileno())
            # The steps of asyncio with a connection that has just come: a closed server would lose it, open.
            for _ in range(3):
                await asyncio.sleep(0)
        finally:
            for server in servers:
                server.close()
        if self._cells is not None:
            self._cells.stop()

    def _accepter(self, name: str) -> Any:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self._is_cut:
                writer.close()
                return
            # Held from now on: a task that is cancelled before it has begun closes nothing.
            self._held.add(writer)
            self._background.start(self._carry(name, (reader, writer)))

        return accept

    async def _carry(self, name: str, inner: Streams) -> None:
        """One of Jupyter's connections, held until there is a kernel.

        Closed at once it would come back late, and miss what a restarted kernel publishes first.
        """
        if name == "iopub":
            self._listeners += 1
            self._most_listeners = max(self._listeners, self._most_listeners)
        # ZeroMQ's greeting: it goes away, and comes again, where none is returned for 30 s.
        early = bytearray()
        dial = asyncio.ensure_future(self._dialer.dial_until_there(name))
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


async def _hear(reader: asyncio.StreamReader, heard: bytearray) -> None:
    """Keeps what comes, until the other side goes away."""
    while data := await reader.read(PUMP_BYTES):
        heard.extend(data)
