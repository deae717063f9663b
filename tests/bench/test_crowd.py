"""The simulated cluster of `make bench-crowd` against the real bridge: it must be honest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import argon2
import asyncssh
import pytest
from aiohttp import web
from bridge.conftest import an_agent

from bench.crowd import figures
from bench.crowd.login_node import LoginNode, SimulatedCluster
from bench.crowd.people import grant_for
from hpchub.bridge import life
from hpchub.bridge.seal import Seal
from hpchub.bridge.service import Service
from hpchub.bridge.settings import BridgeSettings
from hpchub.bridge.store import Store
from hpchub.core.cluster_file import load_clusters
from hpchub.core.secret import Secret
from hpchub.core.server import Phase
from hpchub.signer.keys import init_keys, load_keys
from hpchub.signer.password_file import set_password
from hpchub.signer.policy import Policy
from hpchub.signer.server import running
from hpchub.signer.settings import ProofKind, ProofSettings, SignerSettings
from hpchub.ssh.key_agent import KeyAgent

USER = "u00001"

CLUSTER = """
known_hosts = "known_hosts"
[scheduler]
kind = "slurm"
status_account = "slurmwatch"
[[login_nodes]]
name = "login1"
address = "127.0.0.1"
port = {port}
[placements.compute]
attach = "{attach}"
[partitions.cpu]
max_time = "02:00:00"
max_cpus = 4
max_memory = "4G"
[environments.base]
prefix = "/usr"
[defaults]
placement = "compute"
"""


@dataclass
class Site:
    cluster: SimulatedCluster
    service: Service
    hub_requests: asyncio.Queue[str]


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A private folder whose path is short and lower case, as sockets want it."""
    with TemporaryDirectory(prefix="hpchub-t-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sequence is what counts here, not how long a real cluster takes."""
    monkeypatch.setattr(figures, "COMMAND_S", dict.fromkeys(figures.COMMAND_S, 0.0))
    for name in ("QUEUE_S", "LAUNCHER_S", "NOTEBOOK_START_S"):
        monkeypatch.setattr(figures, name, 0.01)
    monkeypatch.setattr(life, "_FIRST_LOOK_S", 0.02)


@asynccontextmanager
async def hub(path: Path) -> AsyncIterator[asyncio.Queue[str]]:
    """A hub's API that says yes to everything; what it was asked."""
    asked: asyncio.Queue[str] = asyncio.Queue()

    async def answer(request: web.Request) -> web.Response:
        asked.put_nowait(f"{request.method} {request.path} {request.headers['Authorization']}")
        return web.json_response({})

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    yield asked
    await runner.cleanup()


@asynccontextmanager
async def site(folder: Path, attach: str, agent: KeyAgent) -> AsyncIterator[Site]:
    """A signer, a simulated cluster that trusts it, and a bridge to which the person has logged in."""
    policy = Policy(
        certificate_lifetime_s=600,
        login_ceiling_s=43200,
        source_addresses=("127.0.0.0/8",),
        query_accounts=("slurmwatch",),
    )
    passwords = folder / "passwords"
    set_password(passwords, USER, Secret("canary"), argon2.PasswordHasher(1, 64, 1))
    signer = SignerSettings(
        socket=folder / "signer.sock",
        state_dir=folder / "signer",
        audit_log=folder / "audit.jsonl",
        policy=policy,
        proof=ProofSettings(kind=ProofKind.PASSWORD_FILE, file=passwords),
    )
    init_keys(signer.state_dir)
    keys = load_keys(signer.state_dir)
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    clusters = folder / "clusters.d"
    clusters.mkdir()
    store = Store(f"sqlite:///{folder}/bridge.db", await Seal.of(agent))
    store.upgrade()
    settings = BridgeSettings(
        runtime_dir=folder,
        socket=folder / "bridge.sock",
        signer_socket=signer.socket,
        agent_socket=agent.socket,
        hub_socket=folder / "hub.sock",
        clusters=clusters,
        database="",
    )
    async with (
        running(signer),
        hub(settings.hub_socket) as asked,
        SimulatedCluster(host_key, keys.ca.convert_to_public()) as cluster,
    ):
        port = await cluster.listen("127.0.0.1")
        (clusters / "sim.toml").write_text(CLUSTER.format(port=port, attach=attach))
        (clusters / "known_hosts").write_text(f"login1 {host_key.export_public_key().decode()}")
        async with Service(settings, load_clusters(clusters), store, agent) as service:
            key_id, public_key = service.sessions.new_key()
            await service.open_session(USER, key_id, grant_for(keys, policy, USER, public_key))
            yield Site(cluster, service, asked)
    store.close()


@pytest.mark.parametrize("attach", ["tcp", "srun"])
async def test_a_server_starts_answers_reports_and_stops(short_dir: Path, attach: str) -> None:
    """The bridge finds what it finds on a real cluster, by the same commands, and nothing is unknown."""
    with an_agent(short_dir / "agent.sock") as agent:
        await _whole_life(short_dir, attach, agent)


async def _whole_life(folder: Path, attach: str, agent: KeyAgent) -> None:
    async with site(folder, attach, agent) as one:
        base = f"/user/{USER}/"
        environ = {
            "JUPYTERHUB_API_TOKEN": "canary",
            "JUPYTERHUB_API_URL": "http://hub/hub/api",
            "JUPYTERHUB_ACTIVITY_URL": f"http://hub/hub/api/users/{USER}/activity",
        }
        record = await one.service.start(
            user=USER, server_name="", options={}, environ=environ, base_url=base
        )
        async with asyncio.timeout(10):
            while record.phase is not Phase.READY:
                assert record.phase is not Phase.ENDED, record.error
                await asyncio.sleep(0.01)
        socket = one.service.view(record).socket
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket)) as client,
            client.get(f"http://server{base}api") as answer,
        ):
            assert (answer.status, await answer.json()) == (200, {})
        async with asyncio.timeout(10):
            asked = [await one.hub_requests.get() for _ in range(2)]
        assert asked == [
            "GET /hub/api/ token canary",
            f"POST /hub/api/users/{USER}/activity token canary",
        ]
        await one.service.stop(record.id)
        assert (record.phase, record.error) == (Phase.ENDED, None)
        assert one.cluster.unknown == []
        assert one.cluster.servers == {}
        counts = one.cluster.counts
        assert (counts["sbatch"], counts["scancel"]) == (1, 1)
        assert counts["handshakes"] == {"srun": 2, "tcp": 3}[attach]  # one is the service account's
        assert counts["inner handshakes"] == (attach == "srun")


async def test_a_crowd_at_the_door_is_dropped_as_sshd_drops_it() -> None:
    """Nobody is refused below ten that have not logged in, everybody from a hundred on."""
    node = LoginNode()
    node.startups = 9
    assert not any(node.refuses() for _ in range(200))
    node.startups = 100
    assert all(node.refuses() for _ in range(200))
