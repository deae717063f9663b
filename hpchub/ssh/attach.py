"""Attach: everything a server needs once there is a way to its node.

Three of the four ways end in an SSH connection that reaches the launcher's sockets: the tunnel
connection to a login node, the job's own sshd over `srun`, the node's own sshd. The fourth is in
`tcp_attach.py`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

import asyncssh

from hpchub.core.cluster import LoginNode
from hpchub.errors import AccountProblem, HostUnreachable, NotListening, StartFailed, UnexpectedOutput
from hpchub.remote.launcher import HANDOVER, NOTEBOOK
from hpchub.ssh import connect
from hpchub.ssh.failures import reason
from hpchub.ssh.forward import LocalForward, calls_to, serve_by_channel
from hpchub.ssh.inner_sshd import InnerKeys
from hpchub.ssh.line import channels_of
from hpchub.ssh.metrics import Traffic
from hpchub.ssh.opening import opened
from hpchub.ssh.pool import Pool
from hpchub.ssh.stream_tunnel import StreamTunnel

ANSWER_WAIT_S = 20.0

# With AllowTcpForwarding off, sshd 9.2 refuses sockets as well.
_SSHD_NEEDS = "sshd needs `AllowTcpForwarding` and `AllowStreamLocalForwarding`, which are on by default."


class Reader(Protocol):
    """What a heartbeat reads from."""

    async def readline(self) -> bytes: ...


class Writer(Protocol):
    """What a heartbeat writes to."""

    def write(self, data: bytes, /) -> None: ...
    def close(self) -> None: ...


class Heartbeat:
    """An open handover channel: while it is open, the server is alive and can be reached."""

    def __init__(self, reader: Reader, writer: Writer, pid: int) -> None:
        self.pid = pid
        self._writer = writer
        self._end = asyncio.create_task(_until_end(reader))

    async def closed(self) -> None:
        """Return when the channel has ended: the process is gone, or the way to it is."""
        await asyncio.wait({self._end})

    async def stop(self) -> None:
        """Ask the server to end; `closed` tells when it has."""
        self.tell(b'{"stop": true}\n')

    def tell(self, line: bytes) -> None:
        """Send a line; it is lost with the channel, whose end `closed` tells."""
        if not self._end.done():
            self._writer.write(line)

    async def close(self) -> None:
        """Close the channel; the server stays."""
        self._writer.close()
        self._end.cancel()
        await asyncio.wait({self._end})


class Attachment(ABC):
    """A way to one server's sockets. Close it when it is not needed any more; the server stays."""

    @abstractmethod
    async def serve_hub(self, local_hub_socket: Path) -> str:
        """Let the server reach the hub through a new socket beside it; that socket's name.

        Raises:
            NotListening: The launcher's folder is not there yet.
        """

    @abstractmethod
    async def handover(self, line: bytes) -> Heartbeat:
        """Send one handover (`hpchub.remote.handover.handover_line`) and hold the channel.

        Raises:
            NotListening: The launcher does not listen yet.
            StartFailed: The launcher refused it, and says why.
            HostUnreachable: The way was lost.
        """

    @abstractmethod
    async def forward_notebook(self, local_path: Path) -> None:
        """Listen at `local_path`, mode 0600, for the notebook server. Its folder must be 0700."""

    @abstractmethod
    async def wait_closed(self) -> None:
        """Return when the way itself is lost or closed."""

    @abstractmethod
    async def close(self) -> None:
        """End all channels and listeners, and the connection unless others use it too."""


class SshAttachment(Attachment):
    """Over an SSH connection whose far end is the server's own node."""

    def __init__(
        self,
        connection: asyncssh.SSHClientConnection,
        runtime_dir: str,
        channel_limit: int,
        owned: Callable[[], Awaitable[None]] | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        """`owned` closes the connection with the attachment; None where others use it too."""
        self._connection = connection
        self._runtime_dir = runtime_dir
        self._owned = owned
        self._channels = channels_of(connection, channel_limit, traffic)
        self._channels.leases += 1
        self._forwards: list[LocalForward] = []
        self._listeners: list[asyncssh.SSHListener] = []
        self._heartbeats: list[Heartbeat] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def serve_hub(self, local_hub_socket: Path) -> str:
        """See `Attachment`."""
        name = new_hub_socket()
        accept = calls_to(local_hub_socket, self._channels, self._tasks)
        try:
            listener = await self._connection.create_unix_server(accept, f"{self._runtime_dir}/{name}")
        except asyncssh.ChannelListenError as error:
            await self._check_open(error)
            raise NotListening(
                "The server's folder on the node is not there yet, or sshd there forwards no sockets.",
                _SSHD_NEEDS,
            ) from error
        except (OSError, asyncssh.Error) as error:
            raise _lost(error) from error
        self._listeners.append(listener)
        return name

    async def handover(self, line: bytes) -> Heartbeat:
        """See `Attachment`."""
        path = f"{self._runtime_dir}/{HANDOVER}"
        try:
            reader, writer = await opened(
                self._connection,
                self._connection.open_unix_connection(path, encoding=None),
                lambda streams: streams[1].close(),
            )
        except asyncssh.ChannelOpenError as error:
            await self._check_open(error)
            raise open_failure(error) from error
        except (OSError, asyncssh.Error) as error:
            raise _lost(error) from error
        heartbeat = await say_handover(reader, writer, line)
        self._heartbeats.append(heartbeat)
        return heartbeat

    async def _check_open(self, error: Exception) -> None:
        """A closed connection answers every request with no, which says nothing about the server."""
        await asyncio.sleep(0)  # asyncssh notes the end of a connection one turn of the loop later
        if self._connection.is_closed():
            raise _lost(error) from error

    async def forward_notebook(self, local_path: Path) -> None:
        """See `Attachment`."""
        remote = f"{self._runtime_dir}/{NOTEBOOK}"
        forward = LocalForward(
            lambda local: serve_by_channel(self._connection, self._channels, remote, local)
        )
        forward.listen(local_path)
        self._forwards.append(forward)

    async def wait_closed(self) -> None:
        """See `Attachment`."""
        await self._connection.wait_closed()

    async def close(self) -> None:
        """See `Attachment`."""
        if self._closed:
            return
        self._closed = True
        self._channels.leases -= 1
        try:
            for forward in self._forwards:
                await forward.close()
            for heartbeat in self._heartbeats:
                await heartbeat.close()
            for listener in self._listeners:
                listener.close()
        finally:
            if self._owned:
                await self._owned()


async def attach_login(pool: Pool, user: str, cluster: str, node: str, runtime_dir: str) -> SshAttachment:
    """To a server on a login node: the user's tunnel connection itself."""
    connection = await pool.tunnel(user, cluster, node)
    return _attachment(pool, connection, runtime_dir)


async def attach_ssh(
    pool: Pool, user: str, cluster: str, node: str, port: int, runtime_dir: str, *, through: str = ""
) -> SshAttachment:
    """To a job, by the node's own sshd, through the user's tunnel connection."""
    connection, release = await pool.hop(user, cluster, node, port, through=through)

    async def close() -> None:
        try:
            await _close(connection)
        finally:
            release()

    return _attachment(pool, connection, runtime_dir, close)


async def attach_srun(
    pool: Pool,
    user: str,
    cluster: str,
    argv: Sequence[str],
    keys: InnerKeys,
    node: str,
    runtime_dir: str,
    *,
    through: str = "",
) -> SshAttachment:
    """To a job, by its own sshd.

    Args:
        argv: `scheduler.attach_argv(job_id, node, inner_sshd_argv(sshd, folder))`.
        keys: Those whose files are in the server's folder.
        node: The job's node, for messages.
        through: The login node to start from; by default that of the user's commands.

    Raises:
        HostUnreachable: The step did not start, with what it printed.
        HostKeyMismatch: What answered is not this server's sshd.
    """
    session = await pool.open_session(user, cluster, argv, node=through)
    host_keys = connect.pinned_host_key(keys.host_public)
    try:
        connection = await connect.log_in(
            user,
            LoginNode(name=node, address=node),
            host_keys,
            keys.client,
            None,
            pool.limits,
            tunnel=StreamTunnel(session.streams),
        )
    except (HostUnreachable, AccountProblem) as error:
        await session.close()
        said = session.streams.said
        raise HostUnreachable(
            f"The job's own sshd on {node} cannot be entered: {reason(error.__cause__ or error)}."
            + (f" {argv[0]} said: {said}" if said else "")
        ) from error
    except BaseException:
        await session.close()
        raise

    async def close() -> None:
        try:
            await _close(connection)
        finally:
            await session.close()

    return _attachment(pool, connection, runtime_dir, close)


def _attachment(
    pool: Pool,
    connection: asyncssh.SSHClientConnection,
    runtime_dir: str,
    owned: Callable[[], Awaitable[None]] | None = None,
) -> SshAttachment:
    limit = pool.limits.channels_per_connection
    return SshAttachment(connection, runtime_dir, limit, owned, pool.metrics.traffic)


def new_hub_socket() -> str:
    """A fresh name: sshd leaves old sockets behind, and cannot listen at one of them again."""
    return f"hub-{secrets.token_hex(8)}.sock"


async def say_handover(reader: Reader, writer: Writer, line: bytes) -> Heartbeat:
    """Send the line over an open channel to the launcher and read its answer."""
    try:
        async with asyncio.timeout(ANSWER_WAIT_S):
            writer.write(line)
            answer = await reader.readline()
    except (OSError, asyncssh.Error, TimeoutError) as error:
        writer.close()
        raise _lost(error) from error
    if not answer:
        writer.close()
        raise NotListening("The server's launcher closed the handover without an answer.")
    try:
        body = json.loads(answer)
        if body["ok"] is True:
            return Heartbeat(reader, writer, int(body["pid"]))
        refusal = str(body["message"])
    except (ValueError, KeyError, TypeError):
        writer.close()
        raise UnexpectedOutput("the handover", answer.decode("utf-8", "replace")) from None
    writer.close()
    raise StartFailed(f"The server's launcher refused the handover: {refusal}.")


def open_failure(error: asyncssh.ChannelOpenError) -> HostUnreachable:
    """NotListening where there is nobody yet; HostUnreachable where sshd forbids the channel."""
    if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
        return HostUnreachable(
            f"sshd there refused to forward: {reason(error)}.",
            _SSHD_NEEDS,
        )
    return NotListening("The server does not listen there yet, or no longer.")


async def _until_end(reader: Reader) -> None:
    try:
        while await reader.readline():
            pass
    except (OSError, asyncssh.Error):
        return  # the way is lost: that is an end too


async def _close(connection: asyncssh.SSHClientConnection) -> None:
    connection.close()
    try:
        async with asyncio.timeout(2):
            await connection.wait_closed()
    except TimeoutError:
        connection.abort()


def _lost(error: BaseException) -> HostUnreachable:
    return HostUnreachable(f"The way to the server was lost: {reason(error)}.")
