"""Login nodes and one Slurm, in this process: real SSH with real certificates, simulated commands.

What goes over the wire is what goes over it on a real cluster: handshakes, certificates of the signer,
commands in the runner's own quoting, tar archives, `srun ... sshd -i` with an SSH server of its own
behind it, and the launcher's protocols. Only what stands behind them is not real.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
import socket
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

import asyncssh

from bench.crowd import figures, shell
from bench.crowd.fake_slurm import Answer, FakeSlurm, Job
from bench.crowd.noop_notebook import NoopNotebook, Reader, Streams, Writer
from hpchub.remote.launcher import GREETING, HANDOVER, HUB_SOCKET, NOTEBOOK, proof
from hpchub.remote.slurm_query import FORCED_COMMAND

_HOME = "/home"
_SSHD = "-i"


class SimulatedCluster:
    """An async context manager; `listen` adds a login node."""

    def __init__(
        self,
        host_key: asyncssh.SSHKey,
        ca: asyncssh.SSHKey,
        runtime_dir: str = "/tmp",  # noqa: S108  as a site has it
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.unknown: list[str] = []
        self.servers: dict[str, NoopNotebook] = {}  # by folder
        self.ports: dict[int, NoopNotebook] = {}
        self._by_runtime_dir: dict[str, NoopNotebook] = {}
        self.host_key = host_key
        self._trusted = asyncssh.import_authorized_keys(f"cert-authority {ca.export_public_key().decode()}")
        self._runtime_dir = runtime_dir
        self._tasks: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()
        self._next_port = itertools.count(20_000)
        self.slurm = FakeSlurm(self.spawn, self._begin, self._end)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await self._stack.aclose()

    async def listen(self, address: str, port: int = 0) -> int:
        """One more login node; its port."""
        node = LoginNode()
        server = await asyncssh.listen(
            address,
            port,
            backlog=1024,
            server_factory=lambda: _Door(self, node),
            server_host_keys=[self.host_key],
            encoding=None,
            authorized_client_keys=self._trusted,
            keepalive_interval=0,
        )
        self._stack.callback(server.close)
        return int(server.get_port())

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something until the cluster goes."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def hub_calls(self) -> Counter[str]:
        """What the hub answered to the servers' own requests, by status."""
        total: Counter[str] = Counter()
        for server in self.servers.values():
            total.update(server.hub_calls)
        return total

    # -- jobs -----------------------------------------------------------------------------------

    def _begin(self, job: Job) -> None:
        server = self.servers.get(job.folder)
        if server is not None:
            self.spawn(self._launch(server))

    async def _launch(self, server: NoopNotebook) -> None:
        await asyncio.sleep(figures.LAUNCHER_S)
        server.port = next(self._next_port)
        self.ports[server.port] = server
        server.listens = True

    def _end(self, job: Job) -> None:
        server = self.servers.get(job.folder)
        if server is not None:
            server.listens = server.answers = False
            self.ports.pop(server.port, None)
            server.ended.set()

    # -- commands -------------------------------------------------------------------------------

    async def command(self, user: str, argv: Sequence[str], process: Any) -> int:
        """Run one command on its streams; its exit code."""
        name = argv[0].rpartition("/")[2]
        if name == "srun" and _SSHD in argv:
            self.counts["srun sshd"] += 1
            return await self._inner_sshd(user, argv, process)
        stdin = await process.stdin.read()
        await asyncio.sleep(figures.COMMAND_S.get(name, figures.COMMAND_S["sh"]))
        if name == "srun":
            self.counts["srun"] += 1
            argv = argv[argv.index("/bin/sh") :]
        answer = self.slurm.answer(user, argv, stdin)
        if answer is not None:
            self.counts[name] += 1
        else:
            answer = self._in_folder(user, argv, stdin)
        code, out, err = answer
        process.stdout.write(out.encode())
        process.stderr.write(err.encode())
        return code

    async def query(self, process: Any) -> int:
        """The forced command of a service account's certificate, on its streams; its exit code."""
        marker, line, _seconds = (await process.stdin.read()).decode("ascii").splitlines()
        what, _, items = line.split()[:3]  # no simulated number is given out twice
        for stream in (process.stdout, process.stderr):
            stream.write(f"{marker}\n".encode())
        argv = shell.query_argv(what, items)
        self.counts[argv[0]] += 1
        await asyncio.sleep(figures.COMMAND_S[argv[0]])
        code, out, err = self.slurm.answer("", argv, b"") or (64, "", "")
        process.stdout.write(out.encode())
        process.stderr.write(err.encode())
        return code

    def _in_folder(self, user: str, argv: Sequence[str], stdin: bytes) -> Answer:
        """One of the fixed commands of hpchub/bridge/folder.py."""
        what, argument = shell.folder_command(argv)
        self.counts[f"folder: {what}"] += 1
        server = self.servers.get(argument)
        match what:
            case "prepare":
                folder = f"{_HOME}/{user}/.hpchub/servers/{argument}"
                server = self.servers[folder] = NoopNotebook(user, shell.untar(stdin), self.spawn)
                self._by_runtime_dir[f"{self._runtime_dir}/hpchub-{argument[:16]}"] = server
                return 0, f"{folder}\n", ""
            case "owner":
                return (0 if self._at(argument) else 96), "", ""
            case "add" if server is not None:
                server.files |= shell.untar(stdin)
                return 0, "", ""
            case "cat" if server is not None and server.listens:
                return 0, f"{server.port}\n{server.files['tcp_key'].decode()}", ""
            case "outcome" if server is not None:
                return 0, "running\n", ""
            case "remove" | "keep log":
                self.servers.pop(argument, None)
                return 0, "", ""
        if not what:
            self.unknown.append(" ".join(argv)[:200])
        return 1, "", f"{argv[0]}: no such file or directory\n"

    def _at(self, runtime_dir: str) -> NoopNotebook | None:
        """The listening server whose node-local folder this is (`Cluster.server_runtime_dir`)."""
        server = self._by_runtime_dir.get(runtime_dir)
        return server if server is not None and server.listens else None

    # -- attach srun ----------------------------------------------------------------------------

    async def _inner_sshd(self, user: str, argv: Sequence[str], process: Any) -> int:
        """The job's own sshd, on the command's streams, with the keys that hpchub put into the folder."""
        await asyncio.sleep(figures.COMMAND_S["srun"])
        server = self.servers.get(argv[-1].rpartition("/")[0])
        if server is None or not server.listens:
            process.stderr.write(b"srun: error: Unable to confirm allocation\n")
            return 1
        near, far = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=near)
        pumps = [
            asyncio.create_task(_pump(process.stdin, writer)),
            asyncio.create_task(_pump(reader, process.stdout)),
        ]
        try:
            inner = await asyncssh.run_server(
                far,
                server_factory=lambda: _InnerDoor(server),
                server_host_keys=[asyncssh.import_private_key(server.files["host_key"])],
                authorized_client_keys=asyncssh.import_authorized_keys(
                    server.files["authorized_keys"].decode()
                ),
                encoding=None,
                keepalive_interval=0,
            )
            self.counts["inner handshakes"] += 1
            await _until_either_ends(server, inner)
            inner.close()
        except (OSError, asyncssh.Error):
            return 255
        finally:
            writer.close()
            for pump in pumps:
                pump.cancel()
        return 0


class LoginNode:
    """How many are at the door."""

    def __init__(self) -> None:
        self.startups = 0

    def refuses(self) -> bool:
        """Random early drop, as sshd_config(5) has it under MaxStartups."""
        begin, rate, full = figures.MAX_STARTUPS
        if self.startups < begin:
            return False
        percent = rate + (100 - rate) * (self.startups - begin) / (full - begin)
        return random.uniform(0, 100) < percent  # noqa: S311  as sshd does


class _Door(asyncssh.SSHServer):
    """One connection to a login node."""

    def __init__(self, cluster: SimulatedCluster, node: LoginNode) -> None:
        self._cluster = cluster
        self._node = node
        self._early = False
        self._sessions = 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = conn
        self._cluster.counts["connections"] += 1
        if self._node.refuses():
            self._cluster.counts["refused by MaxStartups"] += 1
            conn.abort()
            return
        self._early = True
        self._node.startups += 1
        counts = self._cluster.counts
        counts["most startups"] = max(counts["most startups"], self._node.startups)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def auth_completed(self) -> None:
        self._leave()
        self._cluster.counts["handshakes"] += 1

    def _leave(self) -> None:
        if self._early:
            self._early = False
            self._node.startups -= 1

    def session_requested(self) -> Any:
        if self._sessions >= figures.MAX_SESSIONS:
            self._cluster.counts["refused by MaxSessions"] += 1
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "open failed")
        self._sessions += 1
        return asyncssh.SSHServerProcess(self._run, None, 3, False)

    async def _run(self, process: Any) -> None:
        try:
            if process.command == FORCED_COMMAND:  # asyncssh takes it from the certificate, as sshd does
                process.exit(await self._cluster.query(process))
                return
            marker, argv = shell.read_text(process.command)
            for stream in (process.stdout, process.stderr):
                stream.write(f"{marker}\n".encode())
            user = str(self._conn.get_extra_info("username"))
            process.exit(await self._cluster.command(user, argv, process))
        except (OSError, asyncssh.Error):
            process.close()  # the connection is gone: nobody waits for the answer
        finally:
            self._sessions -= 1

    def connection_requested(self, host: str, port: int, orig_host: str, orig_port: int) -> Any:
        """Attach `tcp`: straight to the launcher, as a forward to a compute node's port would be."""
        server = self._cluster.ports.get(port)
        return False if server is None else lambda reader, writer: _meet(server, reader, writer)


class _InnerDoor(asyncssh.SSHServer):
    """A connection to a job's own sshd."""

    def __init__(self, server: NoopNotebook) -> None:
        self._server = server

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = conn

    def unix_connection_requested(self, path: str) -> Any:
        name = path.rpartition("/")[2]
        if name == HANDOVER and self._server.listens:
            return self._server.handover
        if name == NOTEBOOK and self._server.answers:
            return self._server.serve
        return False

    def unix_server_requested(self, path: str) -> Any:
        if not self._server.listens:
            return False
        folder = path.rpartition("/")[0]

        async def call(name: str) -> Streams:
            return await self._conn.open_unix_connection(f"{folder}/{name}", encoding=None)

        self._server.call_hub = call
        return _Listener()


class _Listener(asyncssh.SSHListener):
    """A listener on paper: the notebook server calls the hub by itself."""

    def get_port(self) -> int:
        return 0

    def close(self) -> None:
        return

    async def wait_closed(self) -> None:
        return


async def _meet(server: NoopNotebook, reader: Reader, writer: Writer) -> None:
    """Attach `tcp`: prove, then join the connection to what it asks for, as the launcher does."""
    key = bytes.fromhex(server.files["tcp_key"].decode())
    nonce = secrets.token_hex(16)
    try:
        writer.write(f"{GREETING} {nonce}\n".encode())
        role, client_nonce, shown = (await reader.readline()).decode("ascii").split()
        if not secrets.compare_digest(shown, proof(key, "client", role, nonce, client_nonce)):
            raise ValueError("not proven")
        answer = proof(key, "server", role, nonce, client_nonce)
        if role == NOTEBOOK and not server.answers:
            writer.write(f"closed {answer}\n".encode())
            writer.close()
            return
        writer.write(f"ok {answer}\n".encode())
    except (OSError, ValueError, asyncssh.Error):
        writer.close()
        return
    if role == HANDOVER:
        await server.handover(reader, writer)
    elif role == NOTEBOOK:
        await server.serve(reader, writer)
    elif HUB_SOCKET.fullmatch(role):
        _park(server, role, (reader, writer))


def _park(server: NoopNotebook, name: str, streams: Streams) -> None:
    """Keep the connection for the server's next call to the hub."""
    parked: asyncio.Queue[Streams]
    if server.parked_at != name:
        server.parked_at = name
        server.parked = asyncio.Queue()
    server.parked.put_nowait(streams)
    parked = server.parked

    async def call(_name: str) -> Streams:
        return await parked.get()

    server.call_hub = call


async def _until_either_ends(server: NoopNotebook, connection: Any) -> None:
    """Return when the job has ended or its sshd's only connection has."""
    ends = [asyncio.ensure_future(server.ended.wait()), asyncio.ensure_future(connection.wait_closed())]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        end.cancel()


async def _pump(reader: Any, writer: Any) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except (OSError, asyncssh.Error):
        return  # one side is gone, and the connection on top of it ends by itself
