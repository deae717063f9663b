"""Carries an SSH connection over the streams of a command, as `ssh -o ProxyCommand` does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import asyncssh

from hpchub.ssh.runner import Streams

_READ_BYTES = 256 * 1024


class _Connection(Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...


class _Transport(asyncio.Transport):
    """What the inner connection writes to."""

    def __init__(self, streams: Streams) -> None:
        super().__init__()
        self._streams = streams
        self._pending = bytearray()
        self._ended = False

    def write(self, data: Any) -> None:
        # asyncssh puts an empty packet before each. Two small messages in a row would meet Nagle's
        # algorithm in srun, which then waits 40 ms for an acknowledgement: send them as one.
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._flush)
        self._pending += data

    def _flush(self) -> None:
        # asyncssh bounds what it writes by the windows of its channels, so there is no drain here.
        data, self._pending = bytes(self._pending), bytearray()
        if data and not self.is_closing():
            self._streams.writer.write(data)

    def is_closing(self) -> bool:
        return self._ended or self._streams.writer.is_closing()

    def close(self) -> None:
        self._flush()
        self.abort()

    def abort(self) -> None:
        # The channel itself stays open: only through it a command that does not end can be killed.
        self._ended = True
        self._streams.end_input()


class StreamTunnel:
    """Give it to asyncssh as `tunnel`."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._reading: asyncio.Task[None] | None = None

    async def create_connection(
        self, factory: Callable[[], _Connection], _host: str, _port: int
    ) -> tuple[asyncio.Transport, _Connection]:
        """asyncssh's own call: the inner connection, its bytes flowing."""
        inner = factory()
        transport = _Transport(self._streams)
        inner.connection_made(transport)
        self._reading = asyncio.create_task(self._read(inner))
        return transport, inner

    async def _read(self, inner: _Connection) -> None:
        error: Exception | None = None
        try:
            while data := await self._streams.reader.read(_READ_BYTES):
                inner.data_received(data)
        except (OSError, asyncssh.Error) as lost:
            error = lost
        inner.connection_lost(error)

    def close(self) -> None:
        """End the command's input."""
        self._streams.end_input()

    async def wait_closed(self) -> None:
        """Wait until nothing more comes."""
        if self._reading:
            await asyncio.wait({self._reading})
