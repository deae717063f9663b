"""A certificate authority, asyncssh servers in this process, and a real OpenSSH sshd.

The real one runs as a throw-away account, in a mount namespace with a passwd of its own, so that no
certificate in any test names an account of this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from hpchub.core.certificate import Profile
from hpchub.core.cluster import Cluster, Defaults, LoginNode, LoginPlacement, Placement
from hpchub.ssh.credentials import Credential
from hpchub.ssh.limits import Limits
from hpchub.ssh.pool import Pool
from support.ports import free_port

# The uid is its own for each run: two runs side by side must not see each other.
USER, UID = "river.b-2", 10_000_000 + os.getpid()
# Says who runs, then what it was given, which is how the real query begins.
FORCED = {
    Profile.TUNNEL: "/bin/false",
    Profile.QUERY: 'read -r mark; echo "$mark"; echo "$mark" >&2; echo "$SSH_ORIGINAL_COMMAND"; cat; exit 7',
}
QUICK = Limits(connect_timeout_s=3, login_timeout_s=5)
# Gives up who says nothing for 0.9 s: on a busy machine that may be anybody.
IMPATIENT = replace(QUICK, keepalive_interval_s=0.3, keepalive_tries=2)


class Source:
    """Mints as the bridge does, and counts."""

    def __init__(self, ca: asyncssh.SSHKey) -> None:
        self.ca = ca
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.pair: asyncssh.SSHKeyPair | None = None
        self.asked: list[tuple[str, Profile]] = []
        self.lifetime_s = 600
        self.principal = ""

    async def credential(self, user: str, profile: Profile, form: str = "") -> Credential:
        self.asked.append((user, profile))
        valid_before = int(time.time()) + self.lifetime_s
        certificate = self.ca.generate_user_certificate(
            self.key,
            f"test:{user}:{profile}",
            principals=[self.principal or user],
            valid_after=valid_before - 7200,
            valid_before=valid_before,
            source_address=["127.0.0.1/32"],
            force_command=FORCED.get(profile),
            permit_port_forwarding=profile is Profile.TUNNEL,
            permit_pty=False,
            permit_agent_forwarding=False,
            permit_x11_forwarding=False,
            permit_user_rc=False,
        )
        return Credential(self.pair or self.key, certificate, valid_before)


@pytest.fixture(scope="session")
def ca() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")


@pytest.fixture(scope="session")
def host_key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")


@pytest.fixture
def source(ca: asyncssh.SSHKey) -> Source:
    return Source(ca)


def a_cluster(known_hosts: Path, *nodes: LoginNode) -> Cluster:
    return Cluster(
        name="alpha",
        title="Alpha",
        scheduler="slurm",
        login_nodes=nodes,
        known_hosts=known_hosts,
        login=LoginPlacement(),
        compute=None,
        environments={},
        defaults=Defaults(placement=Placement.LOGIN, environment="none"),
    )


def known_hosts_line(names: str, key: asyncssh.SSHKey) -> str:
    return f"{names} {key.export_public_key().decode().strip()}\n"


@dataclass
class FakeNode:
    """An asyncssh server that lets anyone in whom the authority names, and counts."""

    port: int = 0
    seen: int = 0
    logins: int = 0
    most_handshakes: int = 0
    handshakes: int = 0
    most_sessions: int = 0
    sessions: int = 0
    begun: int = 0
    refused_sessions: int = 0
    max_sessions: int = 10
    max_startups: int = 10
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    connections: list[asyncssh.SSHServerConnection] = field(default_factory=list)


class _Server(asyncssh.SSHServer):
    def __init__(self, node: FakeNode, ca: asyncssh.SSHKey) -> None:
        self.node, self.ca = node, ca
        self.early = True
        self.sessions = 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.conn = conn
        node = self.node
        node.seen += 1
        node.handshakes += 1
        node.most_handshakes = max(node.most_handshakes, node.handshakes)
        if node.handshakes > node.max_startups:
            conn.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.done()

    def done(self) -> None:
        if self.early:
            self.early = False
            self.node.handshakes -= 1

    def auth_completed(self) -> None:
        self.done()
        self.node.logins += 1
        self.node.connections.append(self.conn)

    def begin_auth(self, username: str) -> bool:
        line = b"cert-authority " + self.ca.export_public_key()
        self.conn.set_authorized_keys(asyncssh.import_authorized_keys(line.decode()))
        return True

    def session_requested(self) -> Any:
        if self.sessions >= self.node.max_sessions:
            self.node.refused_sessions += 1
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "open failed")
        self.sessions += 1
        self.node.sessions += 1
        self.node.most_sessions = max(self.node.most_sessions, self.node.sessions)

        async def handle(process: asyncssh.SSHServerProcess[bytes]) -> None:
            try:
                await _run_text(self.node, process)
            finally:
                self.sessions -= 1
                self.node.sessions -= 1

        return asyncssh.SSHServerProcess(handle, None, 3, False)


async def _run_text(node: FakeNode, process: Any) -> None:
    """The command's text in a shell, once the gate is open."""
    await process.stdin.read()  # who ends it knows that the command has begun, and does not send it again
    node.begun += 1
    await node.gate.wait()
    done = await asyncio.to_thread(
        subprocess.run, ["/bin/sh", "-c", process.command], capture_output=True, stdin=subprocess.DEVNULL
    )
    process.stdout.write(done.stdout.decode())
    process.stderr.write(done.stderr.decode())
    process.exit(done.returncode)


Starter = Callable[[], "contextlib.AbstractAsyncContextManager[FakeNode]"]


@pytest.fixture
def fake_node(ca: asyncssh.SSHKey, host_key: asyncssh.SSHKey) -> Starter:
    @contextlib.asynccontextmanager
    async def start() -> AsyncIterator[FakeNode]:
        node = FakeNode()
        node.gate.set()
        server = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=lambda: _Server(node, ca),
            server_host_keys=[host_key],
            keepalive_interval=0,
        )
        node.port = server.get_port()
        try:
            yield node
        finally:
            for connection in node.connections:
                connection.abort()
            server.close()
            await server.wait_closed()

    return start


@dataclass
class RealNode:
    """A running sshd: its port, its one account's home, and a folder that account may write to."""

    port: int
    home: Path
    log: Path
    process: subprocess.Popen[bytes]
    enter: tuple[str, ...]

    def as_user(self, *argv: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program as the account, where its passwd is."""
        return subprocess.Popen((*self.enter, *argv), cwd="/", **options)


def start_sshd(ca: asyncssh.SSHKey, host_key: asyncssh.SSHKey, shell: str, extra: str = "") -> RealNode:
    """An sshd for one account with that login shell. The caller stops it."""
    base = Path(tempfile.mkdtemp(prefix="hpchub-t-"))
    base.chmod(0o755)
    home = base / "home"
    home.mkdir(mode=0o700)
    (base / "passwd").write_text(Path("/etc/passwd").read_text() + f"{USER}:x:{UID}:{UID}::{home}:{shell}\n")
    (base / "host_key").write_bytes(host_key.export_private_key())
    (base / "host_key").chmod(0o600)
    (base / "ca.pub").write_bytes(ca.export_public_key())
    port = free_port()
    (base / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {base}/host_key\nTrustedUserCAKeys {base}/ca.pub\n"
        f"AuthorizedKeysFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
        f"PidFile none\nLogLevel VERBOSE\n{extra}"
    )
    for path in (home, base / "host_key"):
        os.chown(path, UID, UID)
    script = (
        'mount --bind "$0" /etc/passwd || exit 1; uid=$1 home=$2 user=$3; shift 3; '
        'exec setpriv --reuid="$uid" --regid="$uid" --clear-groups env HOME="$home" USER="$user" "$@"'
    )
    enter = (
        *("unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script),
        *(f"{base}/passwd", str(UID), str(home), USER),
    )
    log = base / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            (*enter, "/usr/sbin/sshd", "-D", "-e", "-f", f"{base}/config"), stderr=stream, cwd="/"
        )
    deadline = time.monotonic() + 20
    while b"Server listening" not in log.read_bytes():
        if time.monotonic() > deadline or process.poll() is not None:
            raise RuntimeError(log.read_text())
        time.sleep(0.01)
    return RealNode(port, home, log, process, enter)


def stop_sshd(node: RealNode) -> None:
    node.process.terminate()
    node.process.wait()
    shutil.rmtree(node.home.parent)


@pytest.fixture(scope="session")
def bash_node(ca: asyncssh.SSHKey, host_key: asyncssh.SSHKey) -> Iterator[RealNode]:
    """A real sshd whose account has bash."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for a mount namespace")
    node = start_sshd(ca, host_key, "/bin/bash")
    yield node
    stop_sshd(node)


@pytest.fixture
def pool_for(tmp_path: Path, source: Source, host_key: asyncssh.SSHKey) -> Callable[..., Pool]:
    """A pool on one cluster whose login nodes listen at these ports of 127.0.0.1."""

    def make(*ports: int, limits: Limits = QUICK, lines: str | None = None) -> Pool:
        known_hosts = tmp_path / "known_hosts"
        known_hosts.write_text(known_hosts_line("127.0.0.1", host_key) if lines is None else lines)
        nodes = [LoginNode(name=f"login{n}", address="127.0.0.1", port=p) for n, p in enumerate(ports, 1)]
        return Pool({"alpha": a_cluster(known_hosts, *nodes)}, source, limits)

    return make
