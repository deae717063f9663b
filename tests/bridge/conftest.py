"""A signer, two clusters' descriptions and a store for each test."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import argon2
import pytest
from cryptography.fernet import Fernet

from hpchub.bridge import life as life_module
from hpchub.bridge import service as service_module
from hpchub.bridge.seal import Seal
from hpchub.bridge.sessions import Sessions
from hpchub.bridge.settings import BridgeSettings
from hpchub.bridge.store import Store
from hpchub.core.cluster import Cluster
from hpchub.core.cluster_file import load_clusters
from hpchub.core.secret import Secret
from hpchub.signer.client import SignerClient
from hpchub.signer.keys import init_keys
from hpchub.signer.password_file import set_password
from hpchub.signer.policy import Policy
from hpchub.signer.server import running
from hpchub.signer.settings import ProofKind, ProofSettings, SignerSettings
from hpchub.ssh.key_agent import KeyAgent
from support.ports import listens
from support.postgresql import PostgresServer, a_server

from .bridges import Bridge, a_bridge
from .slurm import FakeSlurm
from .world import World

PASSWORD = "canary-password-51"
PEOPLE = ("alice", "bob", *(f"user{number}" for number in range(20)))
CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)

CLUSTER = """
title = "Alpha"
known_hosts = "known_hosts"
[[login_nodes]]
name = "login1"
address = "127.0.0.1"
port = {port}
[placements.login]
runtime_dir = "{runtime_dir}"
[placements.compute]
[partitions.cpu]
max_time = "02:00:00"
max_cpus = 4
max_memory = "4G"
[environments.base]
prefix = "{prefix}"
[defaults]
placement = "compute"
"""


@pytest.fixture(autouse=True)
def notebooks_start_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' notebook servers import nothing."""
    for name in ("_FIRST_LOOK_S", "_LOOK_S"):
        monkeypatch.setattr(life_module, name, 0.02)


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A private folder whose path is short and lower case, as sockets want it."""
    with TemporaryDirectory(prefix="hpchub-t-", dir="/tmp", ignore_cleanup_errors=True) as name:
        yield Path(name)


def write_clusters(
    folder: Path, *names: str, port: int = 22, prefix: str = "/usr", runtime: str = "/tmp"
) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "known_hosts").touch()
    for name in names:
        (folder / f"{name}.toml").write_text(CLUSTER.format(port=port, prefix=prefix, runtime_dir=runtime))


@pytest.fixture
def clusters(tmp_path: Path) -> dict[str, Cluster]:
    """Two clusters that offer the same; nobody listens there."""
    write_clusters(tmp_path / "clusters.d", "alpha", "beta")
    return load_clusters(tmp_path / "clusters.d")


@contextmanager
def an_agent(socket: Path) -> Iterator[KeyAgent]:
    """A real ssh-agent, and no other one's keys."""
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        while not listens(socket):
            assert process.poll() is None
            time.sleep(0.005)
        yield KeyAgent(socket)
    finally:
        process.kill()
        process.wait()
        socket.unlink(missing_ok=True)


@pytest.fixture
def agent() -> Iterator[KeyAgent]:
    with (
        TemporaryDirectory(prefix="hpchub-a-", dir="/tmp") as folder,
        an_agent(Path(folder) / "agent.sock") as agent,
    ):
        yield agent


@pytest.fixture
async def seal(agent: KeyAgent) -> Seal:
    return await Seal.of(agent)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresServer]:
    """A real PostgreSQL server, whose databases are the tests' own."""
    with a_server() as server:
        yield server


@pytest.fixture(scope="session")
def migrated() -> Iterator[Path]:
    """A store's file that no bridge has used. Its migrations take longer than most tests."""
    with TemporaryDirectory(prefix="hpchub-m-", dir="/tmp") as folder:
        path = Path(folder) / "bridge.db"
        store = Store(f"sqlite:///{path}", Seal(Fernet(Fernet.generate_key())))
        store.upgrade()
        store.close()
        yield path


@pytest.fixture
def store(tmp_path: Path, migrated: Path, seal: Seal) -> Iterator[Store]:
    shutil.copy(migrated, tmp_path / "bridge.db")
    store = Store(f"sqlite:///{tmp_path}/bridge.db", seal)
    yield store
    store.close()


@pytest.fixture
def signer_settings(tmp_path: Path, short_dir: Path) -> SignerSettings:
    passwords = tmp_path / "passwords"
    for name in PEOPLE[:2]:
        set_password(passwords, name, Secret(PASSWORD), CHEAP)
    # The same hash serves the rest: hashing twenty would be all that a test does.
    line = passwords.read_text().splitlines()[0].partition(":")[2]
    with passwords.open("a") as file:
        file.writelines(f"{name}:{line}\n" for name in PEOPLE[2:])
    made = SignerSettings(
        socket=short_dir / "signer.sock",
        state_dir=tmp_path / "signer",
        audit_log=tmp_path / "audit.jsonl",
        policy=Policy(
            certificate_lifetime_s=600,
            login_ceiling_s=43200,
            source_addresses=("127.0.0.1/32",),
            query_accounts=("slurmwatch",),
        ),
        proof=ProofSettings(kind=ProofKind.PASSWORD_FILE, file=passwords),
    )
    init_keys(made.state_dir)
    return made


@pytest.fixture
async def signer(signer_settings: SignerSettings) -> AsyncIterator[SignerClient]:
    async with running(signer_settings):
        yield SignerClient(signer_settings.socket)


@dataclass
class Login:
    """Logs people in as the hub does."""

    signer: SignerClient

    async def grant(self, user: str, public_key: str) -> Secret:
        return (await self.signer.grant(user, Secret(PASSWORD), public_key, "198.51.100.7")).grant

    async def open(self, sessions: Sessions, user: str) -> float:
        key_id, public_key = sessions.new_key()
        return await sessions.open(user, key_id, await self.grant(user, public_key))


@pytest.fixture
def login(signer: SignerClient) -> Login:
    return Login(signer)


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    slurm = FakeSlurm()
    monkeypatch.setattr(service_module, "Pool", lambda _clusters, _sessions, _limits, **_more: slurm)
    return slurm


@pytest.fixture
def settings(tmp_path: Path, short_dir: Path) -> BridgeSettings:
    run = short_dir / "b"
    run.mkdir(mode=0o700)
    return BridgeSettings(
        runtime_dir=run, socket=run / "bridge.sock", signer_socket=short_dir / "signer.sock",
        agent_socket=short_dir / "agent.sock", hub_socket=short_dir / "hub.sock",
        clusters=tmp_path / "clusters.d", database=f"sqlite:///{tmp_path}/bridge.db",
    )  # fmt: skip


@pytest.fixture
async def bridge(
    settings: BridgeSettings,
    clusters: dict[str, Cluster],
    store: Store,
    login: Login,
    agent: KeyAgent,
    slurm: FakeSlurm,
) -> AsyncIterator[Bridge]:
    async with a_bridge(settings, clusters, store, login, agent) as bridge:
        yield bridge
    left = [path.name for path in (settings.runtime_dir / "s").iterdir()]
    assert left == [] and not settings.socket.exists()


@pytest.fixture
async def world(store: Store, short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Checks at the end that no task, socket or attachment is left behind."""
    monkeypatch.setattr(life_module, "_END_LIMIT_S", 0.05)
    before = asyncio.all_tasks()
    world = World(store, short_dir)
    yield world
    for life in world.lives:
        await life.leave()
    await world.keeper.close()
    await asyncio.sleep(0.01)
    assert list(short_dir.iterdir()) == []
    assert asyncio.all_tasks() - before <= {asyncio.current_task()}
