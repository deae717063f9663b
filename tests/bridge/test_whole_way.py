"""The bridge with a real signer, a real sshd and a real launcher: all but the scheduler and Jupyter."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import asyncssh
import pytest
from ssh.conftest import UID, USER, RealNode, known_hosts_line, start_sshd, stop_sshd

from hpchub.bridge.service import Service
from hpchub.bridge.settings import BridgeSettings
from hpchub.bridge.store import ServerRecord, Store
from hpchub.core.cluster_file import load_clusters
from hpchub.core.secret import Secret
from hpchub.core.server import Phase
from hpchub.signer.keys import load_ca_key, render_ca_public_key
from hpchub.signer.password_file import set_password
from hpchub.signer.settings import SignerSettings
from hpchub.ssh.key_agent import KeyAgent
from support import require
from support.children import kill_descendants

from .conftest import CHEAP, PASSWORD, Login, write_clusters

pytestmark = pytest.mark.slow  # a real sshd

TOKEN = "canary-token-91f"

# Answers every request with the token's length, so that a test can tell that it came.
FAKE_SERVER = """
import http.server, os, signal, socketserver, sys, threading

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = str(len(os.environ["JUPYTERHUB_API_TOKEN"])).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def address_string(self):
        return "bridge"

class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

def main():
    (path,) = [word.partition("=")[2] for word in sys.argv if word.startswith("--ServerApp.sock=")]
    with Server(path, Handler) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever()
"""


@dataclass
class Site:
    node: RealNode
    settings: BridgeSettings
    store: Store
    agent: KeyAgent
    login: Login

    @asynccontextmanager
    async def bridge(self) -> AsyncIterator[Service]:
        """A bridge to which the person has logged in."""
        clusters = load_clusters(self.settings.clusters)
        async with Service(self.settings, clusters, self.store, self.agent) as service:
            key_id, public_key = service.sessions.new_key()
            await service.open_session(USER, key_id, await self.login.grant(USER, public_key))
            yield service

    async def start(self, service: Service, **options: str) -> ServerRecord:
        environ = {"JUPYTERHUB_API_TOKEN": TOKEN, "JUPYTERHUB_API_URL": "http://hub/hub/api"}
        return await service.start(
            user=USER,
            server_name="",
            options={"placement": "login", **options},
            environ=environ,
            base_url="/",
        )

    def processes(self) -> str:
        """Command lines of the processes that run out of this site's folder."""
        listed = subprocess.run(["ps", "ww", "-o", "args=", "-u", str(UID)], capture_output=True, text=True)
        return "\n".join(line for line in listed.stdout.splitlines() if str(self.node.home) in line)


def kill_all(node: RealNode) -> None:
    """What a failed test left."""
    for path in node.home.glob(".hpchub/servers/*/pid"):
        with suppress(ProcessLookupError):
            os.killpg(int(path.read_text()), signal.SIGKILL)


@pytest.fixture
def node(signer_settings: SignerSettings) -> Iterator[RealNode]:
    require.root()
    require.programs("sshd", "unshare", "setpriv")
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    public = asyncssh.import_public_key(render_ca_public_key(load_ca_key(signer_settings.state_dir)))
    node = start_sshd(public, host_key, "/bin/bash")
    yield node
    stop_sshd(node)


@pytest.fixture
def site(
    node: RealNode,
    tmp_path: Path,
    short_dir: Path,
    store: Store,
    agent: KeyAgent,
    login: Login,
    signer_settings: SignerSettings,
) -> Site:
    assert signer_settings.proof.file is not None
    set_password(signer_settings.proof.file, USER, Secret(PASSWORD), CHEAP)
    base = node.home.parent
    for name, text in (
        ("env/bin/python3", f'#!/bin/sh\nPYTHONPATH="{base}/env/lib" exec /usr/bin/python3 "$@"\n'),
        ("env/lib/jupyterhub/__init__.py", ""),
        ("env/lib/jupyterhub/singleuser.py", FAKE_SERVER),
        ("env/lib/jupyterlab.py", ""),
    ):
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    base.chmod(0o1777)  # stands in for /tmp: the path must be short
    folder = tmp_path / "clusters.d"
    write_clusters(folder, "alpha", port=node.port, prefix=f"{base}/env", runtime=str(base))
    with (folder / "alpha.toml").open("a") as file:
        file.write('[environments.bare]\nprefix = "/usr"\n')
    key = asyncssh.read_private_key(base / "host_key").convert_to_public()
    (folder / "known_hosts").write_text(known_hosts_line(f"[127.0.0.1]:{node.port}", key))
    run = short_dir / "b"
    run.mkdir(mode=0o700)
    settings = BridgeSettings(
        runtime_dir=run, socket=run / "bridge.sock",
        signer_socket=signer_settings.socket, agent_socket=agent.socket,
        hub_socket=short_dir / "hub.sock", clusters=folder, database="",
    )  # fmt: skip
    site = Site(node, settings, store, agent, login)
    yield site
    kill_all(node)


async def until(service: Service, record: ServerRecord, *phases: Phase) -> None:
    async with asyncio.timeout(20):
        while record.phase not in phases:
            await service.lives[record.id].progress.after(len(service.lives[record.id].progress.events), 0.5)


async def ask(service: Service, record: ServerRecord) -> str:
    """What the server answers through the tunnel; waits for a lost one to come back."""
    connector = aiohttp.UnixConnector(service.view(record).socket)
    async with asyncio.timeout(10), aiohttp.ClientSession(connector=connector) as client:
        while True:
            try:
                async with client.get("http://localhost/api") as answer:
                    return await answer.text()
            except aiohttp.ClientError:
                await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_a_life_on_a_real_login_node(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Start, lose every connection, come back, change bridges, stop: nothing is left, nothing shown."""
    async with site.bridge() as service:
        record = await site.start(service)
        await until(service, record, Phase.READY, Phase.ENDED)
        assert record.error is None, record.error
        assert await ask(service, record) == str(len(TOKEN))
        folder = Path(record.folder)
        assert folder.stat().st_uid == UID and TOKEN.encode() not in b"".join(
            path.read_bytes() for path in folder.iterdir()
        )
        assert "launcher.py" in site.processes() and TOKEN not in site.processes()
        await service._pool.drop_user(USER)
        assert await ask(service, record) == str(len(TOKEN))
    assert "launcher.py" in site.processes()
    async with site.bridge() as service:
        (again,) = service.servers_of(USER)
        assert again.id == record.id
        await until(service, again, Phase.READY, Phase.ENDED)
        assert await ask(service, again) == str(len(TOKEN))
        await service.stop(again.id)
        assert again.phase is Phase.ENDED and again.error is None
        assert "launcher.py" not in site.processes() and not folder.exists()
        assert list(site.node.home.parent.glob("hpchub-*")) == []
    assert TOKEN not in caplog.text and PASSWORD not in caplog.text


@pytest.mark.slow
async def test_a_way_that_is_cut_again_while_its_server_is_asked_about_comes_back(site: Site) -> None:
    """However often: only the server's own end ends the trying."""
    asked, profile = site.node.home / "asked", site.node.home / ".bashrc"
    async with site.bridge() as service:
        record = await site.start(service)
        await until(service, record, Phase.READY, Phase.ENDED)
        assert record.error is None, record.error
        profile.write_text("touch ~/asked; sleep 60\n")  # of each command that the bridge runs
        for _ in range(2):
            asked.unlink(missing_ok=True)
            kill_descendants(site.node.process.pid)
            async with asyncio.timeout(20):
                while not asked.exists():  # noqa: ASYNC110  the shell's own doing
                    await asyncio.sleep(0.02)
        profile.unlink()
        kill_descendants(site.node.process.pid)
        assert await ask(service, record) == str(len(TOKEN))
        await service.stop(record.id)


@pytest.mark.slow
async def test_a_bad_environment_is_told_at_once(site: Site) -> None:
    """The launcher's own words are in the log's end, and the log is kept."""
    async with site.bridge() as service:
        record = await site.start(service, environment="bare")
        await until(service, record, Phase.ENDED)
        error = service.view(record).error
        assert error is not None and "exit 3" in error.message
        assert re.search(r"environment at /usr has no jupyterhub", getattr(error, "log_tail", ""))
        assert (Path(record.folder) / "server.log").exists()


@pytest.mark.slow
async def test_a_server_that_dies_by_itself(site: Site) -> None:
    """Killed from outside, by the person or the site: noticed by its channel, not at a poll."""
    async with site.bridge() as service:
        record = await site.start(service)
        await until(service, record, Phase.READY, Phase.ENDED)
        pid = int((Path(record.folder) / "pid").read_text())
        (launcher,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(launcher), signal.SIGKILL)
        await until(service, record, Phase.ENDED)
        error = service.view(record).error
        assert error is not None and "exit 137" in error.message
