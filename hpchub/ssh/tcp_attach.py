"""Attach `tcp`: through the login node to the launcher's own port, each connection proven.

Both sides show, by HMAC-SHA256 over fresh nonces of both and the role, that they know the key in
`FOLDER/tcp_key`. docs/reference/ssh.md gives the lines. What follows is in clear text.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

import asyncssh

from hpchub.core.secret import Secret
from hpchub.errors import HostKeyMismatch, HostUnreachable, HpchubError, NotListening
from hpchub.remote.launcher import GREETING, HANDOVER, NOTEBOOK, proof
from hpchub.ssh.attach import ANSWER_WAIT_S, Attachment, Heartbeat, new_hub_socket, open_failure, say_handover
from hpchub.ssh.failures import reason
from hpchub.ssh.forward import BUSY, private_listener
from hpchub.ssh.line import channels_of
from hpchub.ssh.metrics import Traffic
from hpchub.ssh.opening import opened
from hpchub.ssh.pool import Pool

_log = logging.getLogger(__name__)

# Connections that wait at the launcher for the server to call the hub; each is replaced once used.
_PARKED = 4
_PARK_RETRY_S = 1.0
_PUMP_BYTES = 256 * 1024

Channel = tuple["asyncssh.SSHReader[bytes]", "asyncssh.SSHWriter[bytes]"]


class _Reader(Protocol):
    async def read(self, n: int = -1, /) -> bytes: ...


class _Writer(Protocol):
    def write(self, data: bytes, /) -> None: ...
    async def drain(self) -> None: ...
    def can_write_eof(self) -> bool: ...
    def write_eof(self) -> None: ...


def new_tcp_key() -> Secret:
    """A fresh key; its text goes into `FOLDER/tcp_key`."""
    return Secret(secrets.token_hex(32))


async def attach_tcp(pool: Pool, user: str, cluster: str, node: str, port: int, key: Secret) -> TcpAttachment:
    """To a job, by the port that its launcher wrote to `FOLDER/tcp_port`."""
    connection = await pool.tunnel(user, cluster)
    limit = pool.limits.channels_per_connection
    return TcpAttachment(connection, node, port, key, limit, pool.metrics.traffic)


class TcpAttachment(Attachment):
    """Over the user's tunnel connection to a login node, and from there in clear text."""

    def __init__(
        self,
        connection: asyncssh.SSHClientConnection,
        node: str,
        port: int,
        key: Secret,
        channel_limit: int,
        traffic: Traffic | None = None,
    ) -> None:
        self._connection = connection
        self._node = node
        self._port = port
        self._key = key
        self._channels = channels_of(connection, channel_limit, traffic)
        self._channels.leases += 1
        self._servers: list[asyncio.Server] = []
        self._paths: list[Path] = []
        self._heartbeats: list[Heartbeat] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def serve_hub(self, local_hub_socket: Path) -> str:
        """See `Attachment`."""
        name = new_hub_socket()
        first = await self._open(name)
        self._spawn(self._parked(name, local_hub_socket, first))
        for _ in range(_PARKED - 1):
            self._spawn(self._parked(name, local_hub_socket, None))
        return name

    async def handover(self, line: bytes) -> Heartbeat:
        """See `Attachment`."""
        reader, writer = await self._open(HANDOVER)
        heartbeat = await say_handover(reader, writer, line)
        self._heartbeats.append(heartbeat)
        return heartbeat

    async def forward_notebook(self, local_path: Path) -> None:
        """See `Attachment`."""
        server = await asyncio.start_unix_server(self._call_notebook, sock=private_listener(local_path))
        self._servers.append(server)
        self._paths.append(local_path)

    async def wait_closed(self) -> None:
        """See `Attachment`."""
        await self._connection.wait_closed()

    async def close(self) -> None:
        """See `Attachment`."""
        if self._closed:
            return
        self._closed = True
        self._channels.leases -= 1
        for server in self._servers:
            server.close()
        for path in self._paths:
            path.unlink(missing_ok=True)
        for heartbeat in self._heartbeats:
            await heartbeat.close()
        for task in self._tasks:
            task.cancel()

    async def _call_notebook(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._channels.one():
                far_reader, far_writer = await self._open(NOTEBOOK)
                try:
                    await _both_ways((reader, writer), (far_reader, far_writer), self._channels.traffic)
                finally:
                    far_writer.close()
        except HpchubError as error:
            writer.write(BUSY)
            _log.info("forward.refused node=%s reason=%s", self._node, reason(error))
        finally:
            writer.close()

    async def _parked(self, name: str, hub_socket: Path, channel: Channel | None) -> None:
        """Keep one connection parked, serve the hub call that comes over it, and park the next."""
        while not self._connection.is_closed():
            try:
                reader, writer = channel or await self._open(name)
            except HpchubError as error:
                _log.info("hub.unparked node=%s reason=%s", self._node, reason(error))
                await asyncio.sleep(_PARK_RETRY_S)
                continue
            channel = None
            first = await _first_bytes(reader)
            if first:
                self._spawn(self._call_hub(hub_socket, first, reader, writer))
            else:
                writer.close()

    async def _call_hub(
        self,
        hub_socket: Path,
        first: bytes,
        reader: asyncssh.SSHReader[bytes],
        writer: asyncssh.SSHWriter[bytes],
    ) -> None:
        try:
            near_reader, near_writer = await asyncio.open_unix_connection(str(hub_socket))
            try:
                self._channels.traffic.received += len(first)
                near_writer.write(first)
                await _both_ways((near_reader, near_writer), (reader, writer), self._channels.traffic)
            finally:
                near_writer.close()
        except OSError as error:
            _log.warning("hub.uncalled socket=%s reason=%s", hub_socket, reason(error))
        finally:
            writer.close()

    async def _open(self, role: str) -> Channel:
        """A connection to the launcher, proven both ways.

        Raises:
            NotListening: Nobody listens at the port, or not in this role.
            HostKeyMismatch: Whoever listens does not know the key.
        """
        try:
            async with asyncio.timeout(ANSWER_WAIT_S):
                reader, writer = await opened(
                    self._connection,
                    self._connection.open_connection(self._node, self._port, encoding=None),
                    lambda streams: streams[1].close(),
                )
                await self._prove(role, reader, writer)
                return reader, writer
        except asyncssh.ChannelOpenError as error:
            raise open_failure(error) from error
        except (OSError, asyncssh.Error, TimeoutError) as error:
            raise HostUnreachable(f"The way to the server was lost: {reason(error)}.") from error

    async def _prove(
        self, role: str, reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]
    ) -> None:
        try:
            greeting, server_nonce = (await reader.readline()).decode("ascii").split()
            if greeting != GREETING:
                raise ValueError(greeting)
            client_nonce = secrets.token_hex(16)
            key = bytes.fromhex(self._key.reveal())
            shown = proof(key, "client", role, server_nonce, client_nonce)
            writer.write(f"{role} {client_nonce} {shown}\n".encode())
            verdict, answer = (await reader.readline()).decode("ascii").split()
        except ValueError:
            writer.close()
            raise HostKeyMismatch(
                f"What listens at port {self._port} of {self._node} is not this server, or does not know us."
            ) from None
        expected = proof(key, "server", role, server_nonce, client_nonce)
        if not hmac.compare_digest(answer, expected):
            writer.close()
            raise HostKeyMismatch(f"What listens at port {self._port} of {self._node} is not this server.")
        if verdict != "ok":
            writer.close()
            raise NotListening("The server does not listen there yet, or no longer.")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _first_bytes(reader: asyncssh.SSHReader[bytes]) -> bytes:
    """What comes first; empty where the connection ended unused."""
    try:
        return await reader.read(_PUMP_BYTES)
    except (OSError, asyncssh.Error):
        return b""


async def _both_ways(near: tuple[_Reader, _Writer], far: tuple[_Reader, _Writer], traffic: Traffic) -> None:
    """Carry bytes until both sides have ended, or one has failed."""

    def sent(count: int) -> None:
        traffic.sent += count

    def received(count: int) -> None:
        traffic.received += count

    try:
        await asyncio.gather(_pump(near[0], far[1], sent), _pump(far[0], near[1], received))
    except (OSError, asyncssh.Error) as error:
        _log.debug("forward.broken reason=%s", reason(error))


async def _pump(reader: _Reader, writer: _Writer, count: Callable[[int], None]) -> None:
    while data := await reader.read(_PUMP_BYTES):
        count(len(data))
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
