"""Every SSH connection of the hub, shared.

A person has one connection to a login node for commands and one for tunnels. Sessions that last,
those of attach `srun`, take half of the former's sessions at most, so that they cannot starve the
commands; the rest live on connections of their own.

The parts: `open_lines.py` is the table of connections, `node_health.py` knows which login nodes to try
first, `handshakes.py` logs in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import asyncssh
from prometheus_client import CollectorRegistry

from hpchub.core.certificate import Profile
from hpchub.core.cluster import Cluster, LoginNode
from hpchub.core.command import Command, CommandResult
from hpchub.core.server import ConnectionView
from hpchub.errors import HostUnreachable
from hpchub.ssh import runner
from hpchub.ssh.credentials import CredentialSource
from hpchub.ssh.detours import Detours
from hpchub.ssh.failures import reason, unreachable
from hpchub.ssh.handshakes import Handshakes
from hpchub.ssh.limits import Limits
from hpchub.ssh.line import Line, channels_of
from hpchub.ssh.metrics import SshMetrics
from hpchub.ssh.node_health import NodeHealth
from hpchub.ssh.open_lines import Key, OpenLines, Use

_log = logging.getLogger(__name__)

# sshd counts a session for a moment after its command has ended: one that allows few refuses the next.
_REFUSALS = 5
_NOT_YET_S = 0.1


@dataclass(frozen=True, slots=True)
class Session:
    """A command that stays: its streams, and what ends it and gives its place back."""

    streams: runner.Streams
    close: Callable[[], Awaitable[None]]


class Pool:
    """Runs commands and opens tunnels on clusters, as their users. An async context manager."""

    def __init__(
        self,
        clusters: Mapping[str, Cluster],
        credentials: CredentialSource,
        limits: Limits | None = None,
        metrics: SshMetrics | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self.metrics = metrics or SshMetrics(CollectorRegistry())
        self._lines = OpenLines(self._limits.idle_s)
        self._nodes = NodeHealth(clusters, self._limits)
        self._handshakes = Handshakes(clusters, credentials, self._limits, self.metrics)
        self._connecting: dict[Key, asyncio.Task[Line]] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._detours = Detours()

    async def __aenter__(self) -> Self:
        self._sweeper = asyncio.create_task(self._lines.sweep())
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
        return await self._run(user, cluster, command, Use.COMMANDS, node)

    async def query(self, account: str, cluster: str, command: Command) -> CommandResult:
        """Have a service account's forced command answer to a command's standard input.

        Raises:
            As `run`.
        """
        return await self._run(account, cluster, command, Use.QUERIES, "")

    async def _run(self, user: str, cluster: str, command: Command, use: Use, node: str) -> CommandResult:
        command = replace(command, timeout_s=min(command.timeout_s, self._limits.command_timeout_s))
        refused = 0
        while True:
            line = await self._line(user, cluster, use, node)
            if not await line.acquire():
                continue  # sshd allows so few sessions that none was left
            try:
                if not line.is_open:
                    continue  # it died while we waited: nothing has been sent yet
                return await runner.run_command(
                    line.connection,
                    user,
                    line.node,
                    command,
                    self._limits.output_bytes,
                    forced=use is Use.QUERIES,
                )
            except asyncssh.ChannelOpenError as error:
                if line.is_open and not line.shrink():
                    refused += 1
                    if refused > _REFUSALS:
                        if not node:
                            self.avoid(user, cluster, line.node)
                        raise _no_session(line, error) from error
                    await asyncio.sleep(_NOT_YET_S)
            except HostUnreachable:
                if not node and line.is_open:
                    self.avoid(user, cluster, line.node)
                raise
            finally:
                await line.release()

    async def open_session(
        self, user: str, cluster: str, argv: Sequence[str], *, node: str, timeout_s: float = 30.0
    ) -> Session:
        """Start a command that stays, without keeping other commands waiting.

        Raises:
            As `run`.
        """
        while True:
            line = await self._line_with_room(user, cluster, node)
            try:
                streams = await runner.open_streams(line.connection, user, line.node, argv, timeout_s)
            except asyncssh.ChannelOpenError as error:
                has_others = not line.is_open or line.shrink()
                await line.give_back()
                if not has_others:
                    raise _no_session(line, error) from error
            except BaseException:
                await line.give_back()
                raise
            else:
                return Session(streams, _closer(line, streams))

    async def tunnel(self, user: str, cluster: str, node: str = "") -> asyncssh.SSHClientConnection:
        """The user's connection for forwarding, through `node` or the one their commands use."""
        line = await self._line(user, cluster, Use.TUNNELS, node)
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
        channels = channels_of(outer, self._limits.channels_per_connection, self.metrics.traffic)

        def release() -> None:
            channels.leases -= 1

        channels.leases += 1
        try:
            inner = await self._handshakes.once(user, cluster, target, Profile.TUNNEL, outer)
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
        return self._lines.views()

    def login_nodes(self, cluster: str) -> int:
        """How many login nodes a cluster has."""
        return self._nodes.count(cluster)

    def unreachable(self, cluster: str, within_s: float) -> dict[str, str]:
        """Login nodes whose newest attempt failed within the last `within_s` seconds, and why it did."""
        return self._nodes.unreachable(cluster, within_s)

    async def node_of(self, user: str, cluster: str) -> str:
        """The login node that the user's commands go to."""
        return (await self._line(user, cluster, Use.COMMANDS, "")).node

    def avoid(self, user: str, cluster: str, node: str) -> bool:
        """Have the user's commands and ways go elsewhere for a while, though this node lets them in.

        Whether there is another node to go to.
        """
        self._detours.avoid(user, cluster, node)
        return any(
            not self._nodes.rests(cluster, one.name) and not self._detours.since(user, cluster, one.name)
            for one in self._nodes.in_order(user, cluster)
        )

    async def first_of(self, user: str, cluster: str, nodes: Sequence[str]) -> str:
        """The first of these login nodes that lets the user in; commands can go there."""
        candidates = [one for node in nodes for one in self._nodes.in_order(user, cluster, node)]
        return (await self._first_line(user, cluster, Use.COMMANDS, candidates)).node

    def rests(self, cluster: str, node: str) -> bool:
        """Whether a login node failed lately, and is to be tried last."""
        return self._nodes.rests(cluster, node)

    async def drop_user(self, user: str, *, keep_servers: bool = False) -> int:
        """Close all of a user's connections, and those that are being made; how many were closed.

        Args:
            user: Whose.
            keep_servers: Leave those open that carry servers: tunnels, and those with sessions that last.
                On the latter nothing else runs any more, and each ends with its last session.
        """
        if not keep_servers:
            return await self._drop(lambda key: key.user == user)

        def chosen(key: Key) -> bool:
            return key.user == user and key.use is not Use.TUNNELS

        await self._give_up(chosen)
        return await self._lines.retire(chosen)

    # -- which connection -----------------------------------------------------------------------

    async def _line(self, user: str, cluster: str, use: Use, node: str) -> Line:
        """The shared connection: an open one, else that of the first node that lets us in.

        Last come those from which nothing answered.
        """
        candidates = self._nodes.in_order(user, cluster, node)
        if not node:
            nearest = self._lines.nearest(user, cluster, use, candidates)
            candidates = sorted(nearest, key=lambda one: self._detours.since(user, cluster, one.name))
        return await self._first_line(user, cluster, use, candidates)

    async def _first_line(self, user: str, cluster: str, use: Use, candidates: Sequence[LoginNode]) -> Line:
        tried: dict[str, str] = {}
        for candidate in candidates:
            key = Key(user, cluster, use, candidate.name)
            for line in self._lines.of(key):
                if not line.is_taken:
                    return line
            try:
                return await self._shared_connect(key, candidate)
            except HostUnreachable as error:
                tried[candidate.name] = reason(error)
        raise unreachable(cluster, tried)

    async def _line_with_room(self, user: str, cluster: str, node: str) -> Line:
        """A connection with room for a session that stays, which is taken.

        That for commands, if it is open: most people have one server, and need no second handshake for it.
        """
        (target,) = self._nodes.in_order(user, cluster, node or await self.node_of(user, cluster))
        for line in self._lines.of(Key(user, cluster, Use.COMMANDS, target.name)):
            if line.has_room_to_stay:
                line.take()
                return line
        key = Key(user, cluster, Use.SESSIONS, target.name)
        while True:
            for line in self._lines.of(key):
                if line.has_room:
                    line.take()
                    return line
            try:
                await self._shared_connect(key, target)
            except HostUnreachable as error:
                raise unreachable(cluster, {target.name: reason(error)}) from error

    # -- connecting -----------------------------------------------------------------------------

    async def _shared_connect(self, key: Key, node: LoginNode) -> Line:
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

    def _forget(self, key: Key, task: asyncio.Task[Line]) -> None:
        if self._connecting.get(key) is task:
            del self._connecting[key]
        if not task.cancelled():
            task.exception()  # its callers raise it; where they were all cancelled, nobody asks

    async def _connect(self, key: Key, node: LoginNode) -> Line:
        turn = self._nodes.turn(key.cluster, node.name)
        with self._nodes.noted(key.cluster, node.name):
            connection = await self._handshakes.patiently(key.user, key.cluster, node, key.use.profile, turn)
        _log.info(
            "ssh.connected user=%s cluster=%s node=%s use=%s", key.user, key.cluster, node.name, key.use
        )
        line = Line(connection, node.name, self._limits, self.metrics.traffic)
        self._lines.add(key, line)
        return line

    # -- closing --------------------------------------------------------------------------------

    async def _drop(self, chosen: Callable[[Key], bool]) -> int:
        await self._give_up(chosen)
        return await self._lines.close(chosen)

    async def _give_up(self, chosen: Callable[[Key], bool]) -> None:
        """Connect no more where that is under way."""
        pending = [task for key, task in self._connecting.items() if chosen(key)]
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)


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
                await line.give_back()

    return close
