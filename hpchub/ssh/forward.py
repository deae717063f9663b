"""Joins local unix sockets to channels of an SSH connection, both ways, and counts the channels."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import asyncssh

from hpchub.errors import HostUnreachable
from hpchub.ssh.failures import reason
from hpchub.ssh.line import Channels
from hpchub.ssh.metrics import Traffic
from hpchub.ssh.opening import opened

_log = logging.getLogger(__name__)

# What a browser is told; the proxy before us speaks HTTP and nothing else.
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nRetry-After: 2\r\n"
    b"Connection: close\r\n\r\nToo many connections to this server are open.\n"
)

# As asyncio's own server pauses.
_ACCEPT_AGAIN_S = 1.0


def private_listener(path: Path) -> socket.socket:
    """A listening unix socket of mode 0600, from its first moment.

    Linux gives a bound socket's file the mode that its descriptor had.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        os.fchmod(listener.fileno(), 0o600)
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


class Local(asyncio.Protocol):
    """The local end of one joined pair. What comes before the channel is open waits for it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.remote: Remote | None = None
        self.traffic = Traffic()
        self._early = b""
        self._early_end = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  a unix socket's is
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.traffic.sent += len(data)
        if self.remote and self.remote.channel:
            self.remote.channel.write(data)
        else:
            self._early += data
            if self.transport:
                self.transport.pause_reading()

    def eof_received(self) -> bool:
        if self.remote and self.remote.channel:
            self.remote.channel.write_eof()
        else:
            self._early_end = True
        return True

    def joined(self, channel: asyncssh.SSHUNIXChannel[bytes]) -> None:
        """The channel is open now."""
        if self._early:
            channel.write(self._early)
            self._early = b""
        if self._early_end:
            channel.write_eof()
        elif self.transport:
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        if self.remote and self.remote.channel:
            self.remote.channel.pause_reading()

    def resume_writing(self) -> None:
        if self.remote and self.remote.channel:
            self.remote.channel.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.remote and self.remote.channel:
            self.remote.channel.close()


class Remote(asyncssh.SSHUNIXSession[bytes]):
    """The channel's end of one joined pair."""

    def __init__(self, local: Local) -> None:
        self.channel: asyncssh.SSHUNIXChannel[bytes] | None = None
        self.ended = asyncio.Event()
        self._local = local
        local.remote = self

    def connection_made(self, chan: asyncssh.SSHUNIXChannel[bytes]) -> None:
        self.channel = chan

    def session_started(self) -> None:
        assert self.channel is not None  # noqa: S101  asyncssh has called connection_made
        self._local.joined(self.channel)

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        self._local.traffic.received += len(data)
        if self._local.transport:
            self._local.transport.write(data)

    def eof_received(self) -> bool:
        transport = self._local.transport
        if transport and transport.can_write_eof() and not transport.is_closing():
            transport.write_eof()
        return True

    def pause_writing(self) -> None:
        if self._local.transport:
            self._local.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._local.transport:
            self._local.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._local.transport:
            self._local.transport.close()
        self.ended.set()


class LocalForward:
    """A local socket whose connections come out at a socket of the remote host."""

    def __init__(self, serve: Callable[[Local], Awaitable[None]]) -> None:
        self._serve = serve
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._path: Path | None = None

    def listen(self, path: Path) -> None:
        """Start to listen at `path`.

        Not by asyncio's own server: closed at the wrong moment, that of Python 3.11 loses a connection
        which it has accepted, and leaves whoever made it waiting.
        """
        self._path = path
        self._listener = private_listener(path)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        assert self._listener is not None  # noqa: S101  its reader calls us
        try:
            incoming, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # out of descriptors, most likely: it stays readable, so come back later
            _log.error("forward.not_accepted path=%s reason=%s", self._path, error)
            asyncio.get_running_loop().remove_reader(self._listener)
            asyncio.get_running_loop().call_later(_ACCEPT_AGAIN_S, self._accept_again)
            return
        incoming.setblocking(False)
        local = Local()
        task = asyncio.ensure_future(self._guarded(incoming, local))
        self._tasks.add(task)

        # Not in the task's own `finally`: one that is cancelled before its first step never comes there.
        def done(_task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            (local.transport or incoming).close()

        task.add_done_callback(done)

    def _accept_again(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def _guarded(self, incoming: socket.socket, local: Local) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: local, incoming)
            await self._serve(local)
        except (HostUnreachable, OSError, asyncssh.Error) as error:
            _log.debug("forward.refused path=%s reason=%s", self._path, reason(error))

    async def close(self) -> None:
        """Stop listening, remove the socket, end what flows."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for task in self._tasks:
            task.cancel()
        if self._path:
            self._path.unlink(missing_ok=True)


async def serve_by_channel(
    connection: asyncssh.SSHClientConnection, channels: Channels, remote_path: str, local: Local
) -> None:
    """Join one local connection to a new channel, until that ends."""
    assert local.transport is not None  # noqa: S101  it was made with one
    local.traffic = channels.traffic
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(channels.one())
        except HostUnreachable:
            local.transport.write(BUSY)
            raise
        _, remote = await opened(
            connection,
            connection.create_unix_connection(lambda: Remote(local), remote_path),
            lambda channel_and_session: channel_and_session[0].close(),
        )
        assert isinstance(remote, Remote)  # noqa: S101  made one line above
        await remote.ended.wait()


def calls_to(
    local_path: Path, channels: Channels, tasks: set[asyncio.Task[None]]
) -> Callable[[], Awaitable[asyncssh.SSHUNIXSession[bytes]]]:
    """For a remote listener: each of its connections comes out at the local socket."""

    async def accept() -> asyncssh.SSHUNIXSession[bytes]:
        stack = AsyncExitStack()
        try:
            await stack.enter_async_context(channels.one())
            _, local = await asyncio.get_running_loop().create_unix_connection(Local, str(local_path))
        except (HostUnreachable, OSError) as error:
            await stack.aclose()
            _log.warning("forward.refused path=%s reason=%s", local_path, reason(error))
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, reason(error)) from error
        local.traffic = channels.traffic
        remote = Remote(local)
        task = asyncio.create_task(_count_down(remote, stack))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return remote

    return accept


async def _count_down(remote: Remote, stack: AsyncExitStack) -> None:
    async with stack:
        await remote.ended.wait()
