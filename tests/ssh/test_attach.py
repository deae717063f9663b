from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from hpchub.core.job_sshd import inner_sshd_argv, sshd_config
from hpchub.errors import HostKeyMismatch, HostUnreachable, NotListening, StartFailed
from hpchub.remote.handover import handover_line, launcher_source
from hpchub.ssh.attach import Attachment, attach_login, attach_srun, attach_ssh
from hpchub.ssh.forward import private_listener
from hpchub.ssh.inner_sshd import inner_files, new_keys
from hpchub.ssh.line import channels_of
from hpchub.ssh.pool import Pool
from hpchub.ssh.tcp_attach import attach_tcp, new_tcp_key

from .conftest import QUICK, UID, USER, RealNode

PoolFor = Callable[..., Pool]
WAYS = ["login", "ssh", "srun", "tcp"]

# Stands in for jupyterhub-singleuser: says back what it gets, and what the hub says to that.
FAKE_SERVER = """
import os, socket, socketserver, threading, signal

def main():
    runtime = os.environ["TEST_RUNTIME"]
    class Echo(socketserver.StreamRequestHandler):
        def handle(self):
            for line in self.rfile:
                if line == b"hub\\n":
                    with socket.socket(socket.AF_UNIX) as hub:
                        hub.connect(runtime + "/hub.sock")
                        hub.sendall(b"ask\\n")
                        line = hub.makefile("rb").readline()
                self.wfile.write(line)
    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True
        request_queue_size = 128
    with Server(runtime + "/notebook.sock", Echo) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever()
"""


class Job:
    """A launcher that runs as the account, with a server of its own instead of Jupyter's."""

    def __init__(self, node: RealNode, name: str) -> None:
        self.node = node
        self.folder = node.home / name
        self.runtime = f"{node.home}/{name}-run"
        self.keys = new_keys()
        self.tcp_key = new_tcp_key()
        self.put({"launcher.py": launcher_source(), **inner_files(self.keys, str(self.folder))})
        self.put({"tcp_key": self.tcp_key.reveal().encode() + b"\n"})
        for module, text in (
            ("jupyterhub/__init__", ""),
            ("jupyterlab", ""),
            ("jupyterhub/singleuser", FAKE_SERVER),
        ):
            self.put({f"lib/{module}.py": text.encode()})
        self.process: subprocess.Popen[bytes] | None = None

    def put(self, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.write_bytes(content)
            path.chmod(0o600)
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, UID, UID)

    def start(self) -> None:
        self.process = self.node.as_user(
            "env", f"PYTHONPATH={self.folder}/lib", f"TEST_RUNTIME={self.runtime}", "/usr/bin/python3",
            f"{self.folder}/launcher.py", "--runtime-dir", self.runtime, "--folder", str(self.folder),
            "--tcp",
        )  # fmt: skip

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait()

    async def attach(self, way: str, pool: Pool) -> Attachment:
        if way == "login":
            return await attach_login(pool, USER, "alpha", "login1", self.runtime)
        if way == "ssh":
            return await attach_ssh(pool, USER, "alpha", "127.0.0.1", self.node.port, self.runtime)
        if way == "tcp":
            port = int((self.folder / "tcp_port").read_text())
            host = subprocess.check_output(["hostname", "-i"], text=True).split()[0]
            return await attach_tcp(pool, USER, "alpha", host, port, self.tcp_key)
        argv = inner_sshd_argv("/usr/sbin/sshd", str(self.folder))
        return await attach_srun(pool, USER, "alpha", argv, self.keys, "c1", self.runtime)


@pytest.fixture
async def job(bash_node: RealNode, request: pytest.FixtureRequest) -> AsyncIterator[Job]:
    job = Job(bash_node, f"j{time.monotonic_ns():x}")
    job.start()
    deadline = time.monotonic() + 10
    while not Path(job.runtime, "handover.sock").exists():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    yield job
    job.stop()


@asynccontextmanager
async def a_hub(folder: Path) -> AsyncIterator[Path]:
    """A hub that answers each line with `hub says` and the line."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(b"hub says " + line)
        writer.close()

    path = folder / "hub.sock"
    server = await asyncio.start_unix_server(answer, path)
    yield path
    server.close()


async def ask(path: Path, *lines: bytes) -> list[bytes]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    answers = []
    for line in lines:
        writer.write(line)
        answers.append(await asyncio.wait_for(reader.readline(), 5))
    writer.close()
    return answers


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  it waits for any condition
            await asyncio.sleep(0.01)


async def ready(path: Path) -> None:
    """Wait until the server answers through the tunnel."""
    deadline = time.monotonic() + 10
    while await ask(path, b"up\n") != [b"up\n"]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("way", WAYS)
async def test_a_server_by_every_way(way: str, job: Job, pool_for: PoolFor, tmp_path: Path) -> None:
    """Handover, notebook and hub sockets, a second attach, heartbeat and stop work by each way."""
    local = tmp_path / "nb.sock"
    async with pool_for(job.node.port) as pool, a_hub(tmp_path) as hub:
        attachment = await job.attach(way, pool)
        name = await attachment.serve_hub(hub)
        first = await attachment.handover(handover_line(name, {"A": "1"}, ["server"]))
        assert first.pid > 1
        await attachment.forward_notebook(local)
        assert stat.S_IMODE(local.stat().st_mode) == 0o600
        await ready(local)
        assert await ask(local, b"a\n", b"hub\n", b"hub\n") == [b"a\n", b"hub says ask\n", b"hub says ask\n"]
        answers = await asyncio.gather(*(ask(local, b"%d\n" % n, b"hub\n") for n in range(12)))
        assert answers == [[b"%d\n" % n, b"hub says ask\n"] for n in range(12)]

        await attachment.close()
        await first.closed()
        assert not local.exists()
        again = await job.attach(way, pool)
        second = await again.handover(handover_line(await again.serve_hub(hub)))
        assert second.pid == first.pid
        await again.forward_notebook(local)
        assert await ask(local, b"hub\n") == [b"hub says ask\n"]
        await second.stop()
        async with asyncio.timeout(5):
            await second.closed()
        await again.close()
    assert job.process and job.process.wait(5) == 0 and not Path(job.runtime).exists()


@pytest.mark.parametrize("way", ["login", "srun", "tcp"])
async def test_large_data_both_ways(way: str, job: Job, pool_for: PoolFor, tmp_path: Path) -> None:
    """Megabytes in both directions at once arrive whole, with a half-closed end."""
    local = tmp_path / "nb.sock"
    async with pool_for(job.node.port) as pool, a_hub(tmp_path) as hub:
        attachment = await job.attach(way, pool)
        await attachment.handover(handover_line(await attachment.serve_hub(hub), {}, ["server"]))
        await attachment.forward_notebook(local)
        await ready(local)
        data = os.urandom(3_000_000).hex().encode() + b"\n"
        reader, writer = await asyncio.open_unix_connection(str(local))
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(20):
            assert await reader.read(-1) == data
        writer.close()
        await attachment.close()


@pytest.mark.parametrize("way", ["login", "srun"])
async def test_not_listening_yet(way: str, job: Job, pool_for: PoolFor, tmp_path: Path) -> None:
    """Before the launcher's folder exists, both calls raise NotListening, cheaply and again."""
    job.runtime += "-not"
    async with pool_for(job.node.port) as pool:
        attachment = await job.attach(way, pool)
        for _ in range(3):
            with pytest.raises(NotListening):
                await attachment.handover(handover_line("hub-0.sock"))
            with pytest.raises(NotListening):
                await attachment.serve_hub(tmp_path / "hub.sock")
        await attachment.close()


async def test_a_closed_connection_says_nothing_about_the_server(
    job: Job, pool_for: PoolFor, tmp_path: Path
) -> None:
    """What fails because the way is lost is never taken for a server that does not listen."""
    job.runtime += "-not"
    async with pool_for(job.node.port) as pool:
        attachment = await job.attach("login", pool)
        (await pool.tunnel(USER, "alpha")).abort()
        with pytest.raises(HostUnreachable) as caught:
            await attachment.serve_hub(tmp_path / "hub.sock")
        assert not isinstance(caught.value, NotListening)
        with pytest.raises(HostUnreachable) as caught:
            await attachment.handover(b"{}\n")
        assert not isinstance(caught.value, NotListening)
        await attachment.close()


async def test_refused_handover(job: Job, pool_for: PoolFor) -> None:
    """The launcher's refusal comes back in its own words."""
    async with pool_for(job.node.port) as pool:
        attachment = await job.attach("login", pool)
        with pytest.raises(StartFailed, match=r"hub-0\.sock is not there"):
            await attachment.handover(handover_line("hub-0.sock", {}, ["server"]))
        await attachment.close()


@pytest.mark.parametrize("way", ["login", "tcp"])
async def test_heartbeat_ends_with_the_process(way: str, job: Job, pool_for: PoolFor, tmp_path: Path) -> None:
    """A server that is killed is known to be gone at once."""
    async with pool_for(job.node.port) as pool, a_hub(tmp_path) as hub:
        attachment = await job.attach(way, pool)
        heart = await attachment.handover(handover_line(await attachment.serve_hub(hub), {}, ["server"]))
        os.kill(heart.pid, 9)
        async with asyncio.timeout(10):
            await heart.closed()
        await attachment.close()


async def test_another_server_behind_srun(job: Job, pool_for: PoolFor) -> None:
    """An sshd with another host key than the server's own is refused."""
    job.keys = replace(job.keys, host=new_keys().host)
    async with pool_for(job.node.port) as pool:
        with pytest.raises(HostKeyMismatch, match="c1"):
            await job.attach("srun", pool)


async def test_failed_step_is_explained(job: Job, pool_for: PoolFor) -> None:
    """Where the step does not start, its own words are in the error."""
    argv = ("sh", "-c", "echo srun: error: job is gone >&2; exit 1")
    async with pool_for(job.node.port) as pool:
        with pytest.raises(HostUnreachable, match="srun: error: job is gone"):
            await attach_srun(pool, USER, "alpha", argv, job.keys, "c1", job.runtime)


async def test_no_step_outlives_its_attachment(job: Job, pool_for: PoolFor) -> None:
    """An srun that does not end when its connection is given up, as where the node is gone, is killed."""
    note = job.node.home / "step"
    stays = ("/bin/sh", "-c", 'echo $$ >"$1"; shift; "$@"; exec sleep 60', "sh", str(note))
    argv = (*stays, *inner_sshd_argv("/usr/sbin/sshd", str(job.folder)))
    async with pool_for(job.node.port) as pool:
        attachment = await attach_srun(pool, USER, "alpha", argv, job.keys, "c1", job.runtime)
        attachment._connection.abort()
        await attachment.close()
        async with asyncio.timeout(5):
            while Path(f"/proc/{note.read_text().strip()}").exists():  # noqa: ASYNC110  no child of ours
                await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_a_step_that_nobody_speaks_to_ends(job: Job, pool_for: PoolFor) -> None:
    """Where srun is gone without a word, its login node being dead, the job's sshd does not stay for ever."""
    job.put({"sshd_config": sshd_config(str(job.folder), silent_s=2).encode()})
    note = job.node.home / "step"
    script = 'cat | { read -r own _ </proc/self/stat; echo "$own" >"$1"; shift; exec "$@"; }'
    sshd = inner_sshd_argv("/usr/sbin/sshd", str(job.folder))
    async with pool_for(job.node.port) as pool:
        attachment = await attach_srun(
            pool, USER, "alpha", ("sh", "-c", script, "sh", str(note), *sshd), job.keys, "c1", job.runtime
        )
        step = Path(f"/proc/{note.read_text().strip()}")
        assert step.exists()
        (cat,) = [one for one in Path("/proc").glob("[0-9]*") if _is_beside(one, step, b"cat\0")]
        os.kill(int(cat.name), signal.SIGSTOP)
        try:
            async with asyncio.timeout(30):
                while step.exists():  # noqa: ASYNC110  no child of ours
                    await asyncio.sleep(0.05)
        finally:
            os.kill(int(cat.name), signal.SIGCONT)
        await attachment.close()


def _is_beside(one: Path, other: Path, argv: bytes) -> bool:
    """Whether a process has that argv and the other's parent."""
    try:
        return (one / "cmdline").read_bytes() == argv and _parent(one) == _parent(other)
    except (FileNotFoundError, ProcessLookupError):  # ended since it was listed
        return False


def _parent(process: Path) -> str:
    return (process / "stat").read_text().rpartition(")")[2].split()[1]


async def test_inner_sshd_runs_nothing(job: Job, pool_for: PoolFor) -> None:
    """The job's sshd opens no shell, and admits no other key."""
    async with pool_for(job.node.port) as pool:
        attachment = await job.attach("srun", pool)
        connection = attachment._connection  # type: ignore[attr-defined]
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.run("id")
        await attachment.close()
        job.keys = replace(job.keys, client=new_keys().client)
        with pytest.raises(HostUnreachable, match="cannot be entered"):
            await job.attach("srun", pool)


async def test_tcp_needs_the_key(job: Job, pool_for: PoolFor) -> None:
    """Neither side goes on with one that does not know the key; nothing is joined before."""
    async with pool_for(job.node.port) as pool:
        attachment = await job.attach("tcp", pool)
        job.tcp_key = new_tcp_key()
        stranger = await job.attach("tcp", pool)
        with pytest.raises(HostKeyMismatch):
            await stranger.handover(handover_line("hub-0.sock", {}, ["server"]))
        for one in (attachment, stranger):
            await one.close()


async def test_channels_are_capped(job: Job, pool_for: PoolFor, tmp_path: Path) -> None:
    """Past the cap a browser gets a 503 that says why, and the channels before it go on. The cap is ours: it
    comes long before sshd's own end, which is at 1,016 channels and takes the commands with it.
    """
    assert QUICK.channels_per_connection <= 500  # the default
    local = tmp_path / "nb.sock"
    limits = replace(QUICK, channels_per_connection=3)
    async with pool_for(job.node.port, limits=limits) as pool, a_hub(tmp_path) as hub:
        attachment = await job.attach("login", pool)
        await attachment.handover(handover_line(await attachment.serve_hub(hub), {}, ["server"]))
        await attachment.forward_notebook(local)
        await ready(local)
        channels = channels_of(await pool.tunnel(USER, "alpha"), 0)
        await until(lambda: channels.open == 0)
        held = [await asyncio.open_unix_connection(str(local)) for _ in range(3)]
        for reader, writer in held:
            writer.write(b"x\n")
            assert await reader.readline() == b"x\n"
        assert await ask(local, b"GET / HTTP/1.1\r\n") == [b"HTTP/1.1 503 Service Unavailable\r\n"]
        for reader, writer in held:
            writer.write(b"y\n")
            assert await reader.readline() == b"y\n"
            writer.close()
        await until(lambda: channels.open == 0)
        assert await ask(local, b"z\n") == [b"z\n"]
        await attachment.close()


@pytest.mark.parametrize("way", ["login", "srun", "ssh"])
async def test_idle_sweep_spares_attachments(way: str, job: Job, pool_for: PoolFor) -> None:
    """A connection that a server lives on is not idle, nor is the one that it goes through."""
    async with pool_for(job.node.port, limits=replace(QUICK, idle_s=0.2)) as pool:
        attachment = await job.attach(way, pool)
        waiting = asyncio.create_task(attachment.wait_closed())
        await asyncio.sleep(0.6)
        assert not waiting.done()
        await attachment.close()
        async with asyncio.timeout(10):
            await waiting


def test_private_listener_is_never_open(tmp_path: Path) -> None:
    """The socket's mode is 0600 whatever the umask is, without a chmod after it is bound."""
    before = os.umask(0)
    try:
        path = tmp_path / "s.sock"
        with private_listener(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with private_listener(path):
            assert path.is_socket()
    finally:
        os.umask(before)


def test_sshd_reads_the_config(bash_node: RealNode) -> None:
    """OpenSSH accepts every line, also for a folder with a space and a percent sign."""
    folder = bash_node.home / "a b%h"
    folder.mkdir()
    for name, content in inner_files(new_keys(), str(folder)).items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
        os.chown(folder / name, UID, UID)
    with bash_node.as_user(
        "/usr/sbin/sshd", "-T", "-f", f"{folder}/sshd_config", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as sshd:
        out, err = sshd.communicate()
    assert sshd.returncode == 0, err
    assert b"passwordauthentication no" in out and b"forcecommand /bin/false" in out
    assert b"clientaliveinterval 20\n" in out and b"clientalivecountmax 3\n" in out
    with pytest.raises(ValueError, match="cannot stand"):
        sshd_config("/home/a\nPermitTTY yes")
