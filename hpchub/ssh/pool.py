"""Every SSH connection of the hub, shared.

A person has one connection to a login node for commands and one for tunnels. Sessions that last,
those of attach `srun`, live on connections of their own, so that they cannot starve the commands.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import TracebackType
from typing import Self

import asyncssh
from prometheus_client import CollectorRegistry

from hpchub.core.certificate import Profile
from hpchub.core.cluster import Cluster, LoginNode
from hpchub.core.command import Command, CommandResult
from hpchub.core.server import ConnectionView
from hpchub.errors import HostKeyMismatch, HostUnreachable, InvalidRequest
from hpchub.ssh import connect, runner
from hpchub.ssh.credentials import CredentialSource
from hpchub.ssh.failures import reason, unreachable
from hpchub.ssh.limits import Limits
from hpchub.ssh.line import Line, channels_of
from hpchub.ssh.metrics import SshMetrics
from hpchub.ssh.mismatch import Mismatches

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Session:
    """A command that stays: its streams, and what ends it and gives its place back."""

    streams: runner.Streams
    close: Callable[[], Awaitable[None]]


class _Use(StrEnum):
    COMMANDS = "commands"
    SESSIONS = "sessions"
    TUNNELS = "tunnels"
    QUERIES = "queries"

    @property
    def profile(self) -> Profile:
        return {_Use.TUNNELS: Profile.TUNNEL, _Use.QUERIES: Profile.QUERY}.get(self, Profile.CONTROL)


@dataclass(frozen=True, slots=True)
class _Key:
    user: str
    cluster: str
    use: _Use
    node: str


@dataclass(slots=True)
class _Node:
    """What is known of a login node: whom it lets in at once, and until when it is tried last.

    `failed_at` is monotonic, and 0 where the newest attempt went well; `why` it did not.
    """

    handshakes: asyncio.Semaphore
    resting_until: float = field(default=0.0)
    failed_at: float = field(default=0.0)
    why: str = ""


class Pool:
    """Runs commands and opens tunnels on clusters, as their users. An async context manager."""

    def __init__(
        self,
        clusters: Mapping[str, Cluster],
        credentials: CredentialSource,
        limits: Limits | None = None,
        metrics: SshMetrics | None = None,
    ) -> None:
        self._clusters = clusters
        self._credentials = credentials
        self._limits = limits or Limits()
        self.metrics = metrics or SshMetrics(CollectorRegistry())
        self._lines: dict[_Key, list[Line]] = {}
        self._connecting: dict[_Key, asyncio.Task[Line]] = {}
        self._nodes: dict[tuple[str, str], _Node] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._mismatches = Mismatches()

    async def __aenter__(self) -> Self:
        self._sweeper = asyncio.create_task(self._sweep())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._sweeper:
            self._sweeper.cancel()
        await self._drop(lambda key: True)

    # -- what callers use -----------------------------------------------------------------------

    async def run(self, user: str, cluster: str, command: Command, *, node: str = "") -> CommandResult:
        """Run a command on a login node, on `node` if it is named, and wait for its end.

        Raises:
            AccountProblem, HostUnreachable, HostKeyMismatch, CertificateExpired, NotAllowed,
            UnexpectedOutput: See `runner.run_command` and `connect.log_in`.
        """
        return await self._run(user, cluster, command, _Use.COMMANDS, node)

    async def query(self, account: str, cluster: str, command: Command) -> CommandResult:
        """Have a service account's forced command answer to a command's standard input.

        Raises:
            As `run`.
        """
        return await self._run(account, cluster, command, _Use.QUERIES, "")

    async def _run(self, user: str, cluster: str, command: Command, use: _Use, node: str) -> CommandResult:
        command = replace(command, timeout_s=min(command.timeout_s, self._limits.command_timeout_s))
        while True:
            line = await self._line(user, cluster, use, node)
            await line.acquire()
            try:
                if not line.is_open:
                    continue  # it died while we waited: nothing has been sent yet
                return await runner.run_command(
                    line.connection,
                    user,
                    line.node,
                    command,
                    self._limits.output_bytes,
                    forced=use is _Use.QUERIES,
                )
            except asyncssh.ChannelOpenError as error:
                if line.is_open and not line.shrink():
                    raise _no_session(line, error) from error
            finally:
                await line.release()

    async def open_session(
        self, user: str, cluster: str, argv: Sequence[str], *, node: str, timeout_s: float = 30.0
    ) -> Session:
        """Start a command that stays, on a connection that no other command waits for.

        Raises:
            As `run`.
        """
        while True:
            line = await self._line_with_room(user, cluster, node)
            try:
                streams = await runner.open_streams(line.connection, user, line.node, argv, timeout_s)
            except asyncssh.ChannelOpenError as error:
                has_others = not line.is_open or line.shrink()
                await line.release()
                if not has_others:
                    raise _no_session(line, error) from error
            except BaseException:
                await line.release()
                raise
            else:
                return Session(streams, _closer(line, streams))

    async def tunnel(self, user: str, cluster: str, node: str = "") -> asyncssh.SSHClientConnection:
        """The user's connection for forwarding, through `node` or the one their commands use."""
        line = await self._line(user, cluster, _Use.TUNNELS, node)
        line.touch()
        return line.connection

    async def hop(
        self, user: str, cluster: str, node: str, port: int, *, through: str = ""
    ) -> tuple[asyncssh.SSHClientConnection, Callable[[], None]]:
        """A connection of its own to a compute node's sshd, through the user's tunnel connection.

        With it comes what to call once it is closed: until then the tunnel connection is in use.

        Raises:
            As `run`; the node's key must be in the cluster's known_hosts file.
        """
        outer = await self.tunnel(user, cluster, through)
        target = LoginNode(name=node, address=node, port=port)
        host_keys = connect.known_host_keys(self._clusters[cluster].known_hosts, target)
        channels = channels_of(outer, self._limits.channels_per_connection, self.metrics.traffic)

        def release() -> None:
            channels.leases -= 1

        channels.leases += 1
        try:
            credential = await self._credentials.credential(user, Profile.TUNNEL)
            connect.check_valid(credential, user, time.time())
            where = self._clusters[cluster].known_hosts
            with self._mismatches.strictly(where, node), self.metrics.handshake(cluster):
                inner = await connect.log_in(
                    user,
                    target,
                    host_keys,
                    credential.key,
                    credential.certificate,
                    self._limits,
                    tunnel=outer,
                )
        except BaseException:
            release()
            raise
        return inner, release

    @property
    def limits(self) -> Limits:
        """What it was made with."""
        return self._limits

    def connections(self) -> list[ConnectionView]:
        """Every open connection to a login node."""
        now = time.monotonic()
        return [
            ConnectionView(
                user=key.user,
                cluster=key.cluster,
                node=key.node,
                use=key.use.value,
                sessions=line.sessions,
                channels=line.open_channels,
                idle_s=line.idle_s(now),
            )
            for key, lines in self._lines.items()
            for line in lines
            if line.is_open
        ]

    def login_nodes(self, cluster: str) -> int:
        """How many login nodes a cluster has."""
        return len(self._clusters[cluster].login_nodes)

    def unreachable(self, cluster: str, within_s: float) -> dict[str, str]:
        """Login nodes whose newest attempt failed within the last `within_s` seconds, and why it did."""
        since = time.monotonic() - within_s
        names = [node.name for node in self._clusters[cluster].login_nodes]
        states = {name: self._nodes[cluster, name] for name in names if (cluster, name) in self._nodes}
        return {name: state.why for name, state in states.items() if state.failed_at > max(0.0, since)}

    async def node_of(self, user: str, cluster: str) -> str:
        """The login node that the user's commands go to."""
        return (await self._line(user, cluster, _Use.COMMANDS, "")).node

    async def first_of(self, user: str, cluster: str, nodes: Sequence[str]) -> str:
        """The first of these login nodes that lets the user in; commands can go there."""
        candidates = [one for node in nodes for one in self._candidates(user, cluster, node)]
        return (await self._first_line(user, cluster, _Use.COMMANDS, candidates)).node

    def rests(self, cluster: str, node: str) -> bool:
        """Whether a login node failed lately, and is to be tried last."""
        return self._node(cluster, node).resting_until > time.monotonic()

    async def drop_user(self, user: str, *, keep_servers: bool = False) -> int:
        """Close all of a user's connections, and those that are being made; how many were open.

        Args:
            user: Whose.
            keep_servers: Leave those open that carry servers: tunnels, and sessions that last.
        """
        uses = {_Use.COMMANDS} if keep_servers else set(_Use)
        return await self._drop(lambda key: key.user == user and key.use in uses)

    # -- which connection -----------------------------------------------------------------------

    async def _line(self, user: str, cluster: str, use: _Use, node: str) -> Line:
        """The shared connection: an open one, else that of the first node that lets us in."""
        candidates = self._candidates(user, cluster, node)
        if not node:
            candidates = self._where_already(user, cluster, use, candidates)
        return await self._first_line(user, cluster, use, candidates)

    async def _first_line(self, user: str, cluster: str, use: _Use, candidates: Sequence[LoginNode]) -> Line:
        tried: dict[str, str] = {}
        for candidate in candidates:
            key = _Key(user, cluster, use, candidate.name)
            for line in self._open_lines(key):
                return line
            try:
                return await self._shared_connect(key, candidate)
            except HostUnreachable as error:
                tried[candidate.name] = reason(error)
        raise unreachable(cluster, tried)

    async def _line_with_room(self, user: str, cluster: str, node: str) -> Line:
        """A connection for sessions that stay, one session of it taken."""
        (target,) = self._candidates(user, cluster, node or await self.node_of(user, cluster))
        key = _Key(user, cluster, _Use.SESSIONS, target.name)
        while True:
            for line in self._open_lines(key):
                if line.has_room:
                    line.take()
                    return line
            try:
                await self._shared_connect(key, target)
            except HostUnreachable as error:
                raise unreachable(cluster, {target.name: reason(error)}) from error

    def _candidates(self, user: str, cluster: str, node: str) -> list[LoginNode]:
        """Login nodes in the order to try: the user's own choice first, failed ones last."""
        known = self._clusters.get(cluster)
        if known is None:
            raise InvalidRequest(f"There is no cluster named {cluster!r}.")
        nodes = list(known.login_nodes)
        if node:
            named = [one for one in nodes if one.name == node]
            if not named:
                raise InvalidRequest(f"{cluster} has no login node named {node!r}.")
            return named
        start = zlib.crc32(user.encode()) % len(nodes)
        now = time.monotonic()
        turned = nodes[start:] + nodes[:start]
        return sorted(turned, key=lambda one: self._node(cluster, one.name).resting_until > now)

    def _where_already(
        self, user: str, cluster: str, use: _Use, nodes: Sequence[LoginNode]
    ) -> list[LoginNode]:
        """The same nodes, those first where the user has a connection: for this use, then for any."""

        def rank(node: LoginNode) -> int:
            uses = [use, *(other for other in _Use if other is not use)]
            for place, one in enumerate(uses):
                if self._open_lines(_Key(user, cluster, one, node.name)):
                    return place
            return len(uses)

        return sorted(nodes, key=rank)

    def _open_lines(self, key: _Key) -> list[Line]:
        lines = [line for line in self._lines.get(key, ()) if line.is_open]
        if lines:
            self._lines[key] = lines
        else:
            self._lines.pop(key, None)
        return lines

    def _node(self, cluster: str, name: str) -> _Node:
        return self._nodes.setdefault(
            (cluster, name), _Node(asyncio.Semaphore(self._limits.handshakes_per_node))
        )

    # -- connecting -----------------------------------------------------------------------------

    async def _shared_connect(self, key: _Key, node: LoginNode) -> Line:
        """Everyone who wants this connection now waits for one handshake."""
        task = self._connecting.get(key)
        if task is None:
            task = asyncio.create_task(self._connect(key, node))
            self._connecting[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        await asyncio.wait({task})  # a caller that is cancelled leaves the handshake to the others
        if task.cancelled():
            raise HostUnreachable(f"The connections of {key.user} were closed.")
        return task.result()

    def _forget(self, key: _Key, task: asyncio.Task[Line]) -> None:
        if self._connecting.get(key) is task:
            del self._connecting[key]
        if not task.cancelled():
            task.exception()  # its callers raise it; where they were all cancelled, nobody asks

    async def _connect(self, key: _Key, node: LoginNode) -> Line:
        state = self._node(key.cluster, node.name)
        try:
            connection = await self._log_in(key, node, state)
        except HostKeyMismatch as error:
            state.failed_at, state.why = time.monotonic(), reason(error)
            raise
        except HostUnreachable as error:
            state.failed_at = time.monotonic()
            state.why = reason(error)
            state.resting_until = state.failed_at + self._limits.node_rest_s
            raise
        state.resting_until = state.failed_at = 0.0
        _log.info(
            "ssh.connected user=%s cluster=%s node=%s use=%s", key.user, key.cluster, node.name, key.use
        )
        line = Line(connection, node.name, self._limits, self.metrics.traffic)
        self._lines.setdefault(key, []).append(line)
        return line

    async def _log_in(self, key: _Key, node: LoginNode, state: _Node) -> asyncssh.SSHClientConnection:
        """A handshake, tried again where sshd dropped it (MaxStartups does so when it is busy)."""
        host_keys = connect.known_host_keys(self._clusters[key.cluster].known_hosts, node)
        tries = 0
        while True:
            tries += 1
            async with state.handshakes:
                credential = await self._credentials.credential(key.user, key.use.profile)
                connect.check_valid(credential, key.user, time.time())
                try:
                    where = self._clusters[key.cluster].known_hosts
                    with self._mismatches.strictly(where, node.name), self.metrics.handshake(key.cluster):
                        return await connect.log_in(
                            key.user, node, host_keys, credential.key, credential.certificate, self._limits
                        )
                except HostUnreachable as error:
                    if tries >= self._limits.handshake_tries or not _was_dropped(error):
                        raise
            await asyncio.sleep(random.uniform(0.1, 0.4) * 2**tries)  # noqa: S311  jitter, not a secret

    # -- closing --------------------------------------------------------------------------------

    async def _drop(self, chosen: Callable[[_Key], bool]) -> int:
        pending = [task for key, task in self._connecting.items() if chosen(key)]
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)
        keys = [key for key in self._lines if chosen(key)]
        lines = [line for key in keys for line in self._lines.pop(key)]
        count = sum(line.is_open for line in lines)
        await asyncio.gather(*(line.close() for line in lines))
        return count

    async def _sweep(self) -> None:
        """Close what nobody has used for a while."""
        while True:
            await asyncio.sleep(self._limits.idle_s / 4)
            now = time.monotonic()
            for key in list(self._lines):
                lines = self._open_lines(key)
                idle = [line for line in lines if line.idle_s(now) > self._limits.idle_s]
                if idle:
                    self._lines[key] = [line for line in lines if line not in idle]
                    await asyncio.gather(*(line.close() for line in idle))


def _was_dropped(error: HostUnreachable) -> bool:
    return isinstance(error.__cause__, asyncssh.ConnectionLost | ConnectionResetError | BrokenPipeError)


def _no_session(line: Line, error: asyncssh.ChannelOpenError) -> HostUnreachable:
    return HostUnreachable(f"sshd on {line.node} opens no session: {reason(error)}.")


def _closer(line: Line, streams: runner.Streams) -> Callable[[], Awaitable[None]]:
    closed = False

    async def close() -> None:
        nonlocal closed
        if not closed:
            closed = True
            try:
                await streams.close()
            finally:
                await line.release()

    return close
