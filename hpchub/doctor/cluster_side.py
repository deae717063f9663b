"""The checks on a cluster: each login node from TCP to a forwarded socket, and the scheduler.

They use the bridge's own pool and commands, so what works here works there.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress

import asyncssh

from hpchub.bridge.folder import parse_prepare, prepare_command, remove_command
from hpchub.check import host_key_problems
from hpchub.core.cluster import Cluster, LoginNode, Placement
from hpchub.core.command import Command, CommandResult
from hpchub.core.job import JobId
from hpchub.doctor.level_probe import LevelProbe
from hpchub.doctor.report import Report
from hpchub.errors import (
    AccountProblem,
    ConfigError,
    HostKeyMismatch,
    HostUnreachable,
    HpchubError,
    SiteError,
    UnexpectedOutput,
)
from hpchub.schedulers.base import Scheduler
from hpchub.schedulers.registry import scheduler_for
from hpchub.ssh.failures import reason
from hpchub.ssh.pool import Pool

_TCP_LIMIT_S = 10.0
_ECHO_LIMIT_S = 10.0
_LONGEST_BANNER = 255  # RFC 4253, 4.2

# Any job that can be asked about: the answer is read, and what it says is not looked at.
_SOME_JOB = JobId("1")

# A command's own name is $0; the others are looked for on the PATH that every command of ours gets.
_FIND = 'for name in "$@"; do command -v "$name" >/dev/null || printf "%s\\n" "$name"; done'


class ClusterChecks:
    """One cluster, tried as one user."""

    def __init__(self, report: Report, pool: Pool, cluster: Cluster, user: str, level: LevelProbe) -> None:
        self._level = level
        self._report = report
        self._pool = pool
        self._cluster = cluster
        self._user = user
        self._scheduler: Scheduler = scheduler_for(cluster)

    async def run(self) -> None:
        """Every check that makes sense after those before it."""
        problems = host_key_problems(self._cluster)
        for problem in problems:
            self._report.bad(
                self._cluster.name, ConfigError(problem, "Fetch it with ssh-keyscan and compare.")
            )
        for node in self._cluster.login_nodes:
            await self._node(node)

    async def _node(self, node: LoginNode) -> None:
        where = f"{self._cluster.name} {node.name}"
        if not await self._report.check(f"{where} TCP", _greeting(node)):
            return
        if not await self._log_in(where, node):
            return
        await self._report.check(f"{where} home", self._home(node))
        if self._cluster.login is None:
            self._report.note(f"{where} forwarding", "not tried: the cluster file offers no servers there")
        else:
            await self._report.check(f"{where} forwarding", self._forwarding(node))
        await self._level.run(node)
        if self._cluster.compute is None:
            self._report.note(f"{where} scheduler", "not asked: the cluster file offers no compute nodes")
        elif await self._report.check(f"{where} scheduler commands", self._commands(node)):
            await self._report.check(f"{where} queue", self._queue(node))
            await self._report.check(f"{where} accounting", self._history(node))
            await self._report.check(f"{where} associations", self._associations(node))

    async def _log_in(self, where: str, node: LoginNode) -> bool:
        """Host key, login and shell come out of the same first command."""
        try:
            result = await self._run(node, Command(argv=("true",)))
        except HostKeyMismatch as error:
            known = self._cluster.known_hosts
            fix = f"Compare the key that `ssh-keyscan` shows with the node's own, then correct {known}."
            self._report.bad(f"{where} host key", HostKeyMismatch(error.message, fix))
            return False
        except HostUnreachable as error:
            self._report.bad(f"{where} handshake", error)
            return False
        except HpchubError as error:
            self._report.good(f"{where} host key", "the one in known_hosts")
            self._report.bad(f"{where} login", error)
            return False
        self._report.good(f"{where} host key", "the one in known_hosts")
        self._report.good(f"{where} login", f"as {self._user}, with the certificate")
        if result.noise.strip():
            said = result.noise.strip().partition("\n")[0][:60]
            self._report.note(f"{where} shell", f"prints text at its start ({said}), which hpchub skips")
        else:
            self._report.good(f"{where} shell", "quiet")
        return True

    async def _home(self, node: LoginNode) -> str:
        result = await self._run(node, prepare_command(f"doctor-{secrets.token_hex(4)}", {}))
        folder = parse_prepare(result, self._user, node.name)
        await self._run(node, remove_command(folder))
        return f"writable, {folder.rpartition('/')[0]}"

    async def _forwarding(self, node: LoginNode) -> str:
        """A socket there that leads back to us, called through the same connection: both directions."""
        place = self._cluster.runtime_dir(Placement.LOGIN)
        made = await self._run(node, Command(argv=("mktemp", "-d", f"{place}/hpchub-doctor-XXXXXXXX")))
        folder = made.stdout.strip()
        if made.exit_code or not folder.startswith("/"):
            raise AccountProblem(
                f"No folder can be made in {place} on {node.name}: {made.stderr.strip()}.",
                "Correct runtime_dir in the cluster file.",
            )
        try:
            connection = await self._pool.tunnel(self._user, self._cluster.name, node.name)
            await _echo(connection, f"{folder}/echo.sock", node.name)
        finally:
            with suppress(HpchubError):  # an empty folder is left where the node is lost
                await self._run(node, remove_command(folder))
        return f"unix sockets are forwarded both ways, in {place}"

    async def _commands(self, node: LoginNode) -> str:
        scheduler, user = self._scheduler, self._user
        argvs = (
            scheduler.submit_command("").argv,
            scheduler.status_command([_SOME_JOB]).argv,
            scheduler.history_command([_SOME_JOB]).argv,
            scheduler.cancel_command(_SOME_JOB, "hpchub").argv,
            scheduler.associations_command(user).argv,
            scheduler.attach_argv(_SOME_JOB, "node", ("true",)),
        )
        names = sorted({argv[0] for argv in argvs})
        result = await self._run(node, Command(argv=("/bin/sh", "-c", _FIND, "hpchub", *names)))
        missing = result.stdout.split()
        if missing:
            raise SiteError(
                f"Not on {user}'s PATH on {node.name}: {', '.join(missing)}.",
                "Commands run without a terminal: put the scheduler's folder on the PATH for those too.",
            )
        return ", ".join(names)

    async def _queue(self, node: LoginNode) -> str:
        self._scheduler.parse_status(await self._run(node, self._scheduler.status_command([_SOME_JOB])))
        return "answers"

    async def _history(self, node: LoginNode) -> str:
        self._scheduler.parse_history(await self._run(node, self._scheduler.history_command([_SOME_JOB])))
        return "answers"

    async def _associations(self, node: LoginNode) -> str:
        result = await self._run(node, self._scheduler.associations_command(self._user))
        found = self._scheduler.parse_associations(result)
        if not found:
            raise AccountProblem(
                f"{self._user} has no account in the scheduler (no association).", "Add one with sacctmgr."
            )
        return ", ".join(sorted({one.account for one in found}))

    async def _run(self, node: LoginNode, command: Command) -> CommandResult:
        return await self._pool.run(self._user, self._cluster.name, command, node=node.name)


async def _greeting(node: LoginNode) -> str:
    """The line that sshd begins with."""
    where = f"{node.address}:{node.port}"
    try:
        async with asyncio.timeout(_TCP_LIMIT_S):
            reader, writer = await asyncio.open_connection(node.address, node.port)
            try:
                banner = (await reader.readline())[:_LONGEST_BANNER].decode("ascii", "replace").strip()
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError) as error:
        raise HostUnreachable(
            f"{where} does not answer: {reason(error)}.",
            "Is it the right address, and does a firewall allow it?",
        ) from error
    if not banner.startswith("SSH-2.0-"):
        raise UnexpectedOutput(f"what listens at {where}", banner)
    return f"{where} answers ({banner})"


async def _echo(connection: asyncssh.SSHClientConnection, path: str, node: str) -> None:
    """Send a word through `path` on the node and read it back."""

    async def answer(reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]) -> None:
        writer.write(await reader.readline())
        writer.close()

    word = secrets.token_hex(8).encode() + b"\n"
    try:
        async with asyncio.timeout(_ECHO_LIMIT_S):
            listener = await connection.start_unix_server(lambda: answer, path, encoding=None)
            try:
                reader, writer = await connection.open_unix_connection(path, encoding=None)
                writer.write(word)
                came_back = await reader.readline()
                writer.close()
            finally:
                listener.close()
    except (asyncssh.ChannelListenError, asyncssh.ChannelOpenError) as error:
        raise SiteError(
            f"sshd on {node} does not forward unix sockets: {reason(error)}.",
            "It needs `AllowTcpForwarding yes` and `AllowStreamLocalForwarding yes` (`sshd -T` shows them), "
            "and neither PermitOpen nor `permitopen=`.",
        ) from error
    except (OSError, asyncssh.Error, TimeoutError) as error:
        raise HostUnreachable(f"The tunnel to {node} was lost: {reason(error)}.") from error
    if came_back != word:
        raise UnexpectedOutput(f"a forwarded socket on {node}", repr(came_back))
