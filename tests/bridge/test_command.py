"""`hpchub bridge` as a process of its own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from hpchub.bridge.claim import LOCK
from hpchub.bridge.client import BridgeClient
from hpchub.cli import main
from hpchub.errors import ProcessAway
from hpchub.ssh.key_agent import KeyAgent
from support.postgresql import PostgresServer
from support.servers import until

from .conftest import write_clusters


@pytest.fixture
def config(tmp_path: Path, short_dir: Path, agent: KeyAgent) -> Path:
    write_clusters(tmp_path / "clusters.d", "alpha")
    path = tmp_path / "bridge.toml"
    path.write_text(
        f'runtime_dir = "{short_dir}/b"\n'
        f'signer_socket = "{short_dir}/signer.sock"\nagent_socket = "{agent.socket}"\n'
        f'hub_socket = "{short_dir}/hub.sock"\nclusters = "clusters.d"\n'
        f'database = "sqlite:///{tmp_path}/bridge.db"\n'
    )
    return path


@pytest.fixture
def umask_of_its_own() -> Iterator[None]:
    """A bridge in this very process changes its umask."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@contextmanager
def a_bridge(config: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "hpchub.cli", "bridge", "--config", str(config)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/",
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@asynccontextmanager
async def answering(config: Path, socket: Path) -> AsyncIterator[subprocess.Popen[str]]:
    with a_bridge(config) as process:
        async with asyncio.timeout(15):
            while True:
                try:
                    await BridgeClient(socket).health()
                    break
                except ProcessAway:
                    assert process.poll() is None, process.communicate()[0]
                    await asyncio.sleep(0.02)
        yield process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
async def test_it_runs_until_it_is_told_to_end(number: signal.Signals, config: Path, short_dir: Path) -> None:
    """It answers on a private socket, ends with 0, and takes the socket with it; the database stays."""
    socket = short_dir / "b" / "bridge.sock"
    async with answering(config, socket) as process:
        await BridgeClient(socket).new_key()
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
        assert stat.S_IMODE((config.parent / "bridge.db").stat().st_mode) == 0o600
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert "Max core file size        0                    0 " in limits
        if number is signal.SIGTERM:
            with a_bridge(config) as second:
                out, _ = second.communicate(timeout=15)
            assert second.returncode == 1 and "another bridge is using it" in out and "Traceback" not in out
            await BridgeClient(socket).health()
        process.send_signal(number)
        out, _ = process.communicate(timeout=15)
    assert process.returncode == 0 and "Traceback" not in out
    assert not socket.exists() and (config.parent / "bridge.db").exists()


@pytest.mark.slow
async def test_a_bridge_whose_database_is_taken_ends(
    config: Path, short_dir: Path, postgresql: PostgresServer
) -> None:
    """It goes on through a restart of the server; once another bridge has the claim it ends and says so."""
    url, socket = postgresql.new_database(), short_dir / "b" / "bridge.sock"
    config.write_text(re.sub('database = ".*"', f'database = "{url}"', config.read_text()))
    async with answering(config, socket) as process:
        await BridgeClient(socket).new_key()  # it has read what the one before it left
        with postgresql.away():
            await asyncio.sleep(1.2)  # it has noticed
        await asyncio.to_thread(until, lambda: postgresql.locks() == 1, "the claim is taken again")
        with postgresql.holding(LOCK, url):  # as soon as nobody else does
            postgresql.end_sessions()
            out, _ = await asyncio.to_thread(process.communicate, timeout=20)
    assert process.returncode == 1 and "another bridge is using it" in out and "Traceback" not in out
    assert not socket.exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("hub_socket", "hub_sokcet", "bridge.toml:4: hub_sokcet: there is no key 'hub_sokcet'"),
        ('"clusters.d"', '"nowhere"', "nowhere holds no cluster file"),
        ("sqlite:///", "nonsense ", "database: is not an SQLAlchemy URL"),
        ("sqlite:///", "sqlite:////no/such/folder", "cannot be used: [Errno 2] No such file"),
        ('/b"', '/b/c/d"', "The folder"),
    ],
)
@pytest.mark.usefixtures("umask_of_its_own")
def test_a_wrong_setting_says_where(
    config: Path, old: str, new: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One plain message and exit code 1."""
    config.write_text(config.read_text().replace(old, new))
    assert main(["bridge", "--config", str(config)]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_wrong_cluster_file_says_where(config: Path) -> None:
    """The file, the line and the nearest key; no traceback."""
    path = config.parent / "clusters.d" / "alpha.toml"
    path.write_text(path.read_text().replace("max_cpus", "max_cpsu"))
    with a_bridge(config) as process:
        out, _ = process.communicate(timeout=15)
    assert process.returncode == 1 and "alpha.toml:" in out and "did you mean 'max_cpus'?" in out
    assert "Traceback" not in out
