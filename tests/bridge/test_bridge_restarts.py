"""What a bridge that begins takes up, and what it does where files or memories are gone."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from hpchub.bridge.client import BridgeClient
from hpchub.bridge.service import Service
from hpchub.bridge.settings import BridgeSettings
from hpchub.bridge.store import ServerRecord, SessionRecord, Store
from hpchub.core.choices import choose
from hpchub.core.cluster import Attach, Cluster, LoginNode
from hpchub.core.server import Phase, ServerView
from hpchub.errors import ConfigError, InvalidRequest, NotAllowed
from hpchub.ssh.inner_sshd import new_keys
from hpchub.ssh.key_agent import KeyAgent

from .bridges import ENVIRON, PLACES, TOKEN, Bridge, LocalService, a_bridge
from .conftest import Login, an_agent
from .places import Node, WellBehaved
from .slurm import FakeSlurm


@dataclass(frozen=True, slots=True)
class Bridges:
    """One bridge after the other, with the same database and in the same folder."""

    settings: BridgeSettings
    clusters: dict[str, Cluster]
    store: Store
    login: Login
    agent: KeyAgent
    patch: pytest.MonkeyPatch

    def begin(
        self, clusters: dict[str, Cluster] | None = None, agent: KeyAgent | None = None
    ) -> AbstractAsyncContextManager[Bridge]:
        """The next one; the cluster files or the agent may have changed meanwhile."""
        return a_bridge(self.settings, clusters or self.clusters, self.store, self.login, agent or self.agent)

    @asynccontextmanager
    async def first(self, **options: Any) -> AsyncIterator[tuple[Bridge, ServerView, Node]]:
        """One that leaves a server of alice's running, and where that runs: the next ones find it there."""
        async with self.begin() as bridge:
            await bridge.log_in("alice")
            kept = await bridge.until(await bridge.start(**options), Phase.READY)
            node = bridge.service.places[kept.id].node
            yield bridge, kept, node
        self.patch.setattr(LocalService, "nodes", {kept.id: node})


@pytest.fixture
def bridges(
    settings: BridgeSettings, clusters: dict[str, Cluster], store: Store, login: Login, agent: KeyAgent,
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch,
) -> Bridges:  # fmt: skip
    return Bridges(settings, clusters, store, login, agent, monkeypatch)


async def _log_in(service: Service, login: Login, user: str) -> None:
    key_id, public_key = service.sessions.new_key()
    await service.open_session(user, key_id, await login.grant(user, public_key))


async def test_a_restart_takes_up_what_ran(bridges: Bridges, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are taken up with nobody logging in: those that ran, and those that had only begun."""
    async with bridges.first() as (first, kept, node):
        queued = await first.until(await first.start(name="never-runs"), Phase.QUEUED)
    assert node.alive and not Path(kept.socket).exists()
    monkeypatch.setitem(PLACES, "never-runs", WellBehaved)
    async with bridges.begin() as second:
        assert await second.client.session("alice") > time.time()
        for view in (kept, queued):
            await second.until(await second.client.server(view.id), Phase.READY)
        assert set(node.handovers[1]) == {"hub_socket"}
        (handover,) = second.service.places[queued.id].node.handovers
        assert handover["environ"]["JUPYTERHUB_API_TOKEN"] == TOKEN
        assert "submit" not in second.service.places[queued.id].calls
        for view in (kept, queued):
            assert (await second.client.stop(view.id)).phase is Phase.ENDED


async def test_nobody_is_sent_away_by_a_bridge_that_is_just_starting(
    bridges: Bridges, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks before the sessions are read waits for them: a no would log the person out of the hub."""
    async with bridges.begin() as first:
        await first.log_in("alice")
    reading, read = threading.Event(), threading.Event()
    kept = bridges.store.sessions

    def slowly() -> list[SessionRecord]:
        reading.set()
        assert read.wait(5)
        return kept()

    monkeypatch.setattr(bridges.store, "sessions", slowly)
    client = BridgeClient(bridges.settings.socket)

    async def ask() -> float:
        await asyncio.to_thread(reading.wait, 5)
        await client.health()
        asked = asyncio.create_task(client.session("alice"))
        await asyncio.sleep(0.1)
        assert not asked.done()
        read.set()
        return await asked

    asking = asyncio.create_task(ask())
    async with bridges.begin():
        assert await asking > time.time()


async def test_without_the_agent_s_memory_people_log_in_again(bridges: Bridges) -> None:
    """After a reboot of the hub's machine: running servers are taken up at the next login, none is ended."""
    async with bridges.first() as (_, kept, node):
        assert node.alive
    with an_agent(bridges.agent.socket.with_name("new.sock")) as new_agent:
        async with bridges.begin(agent=new_agent) as second:
            with pytest.raises(NotAllowed):
                await second.client.session("alice")
            (seen,) = await second.client.servers("alice")
            assert (seen.id, seen.error) == (kept.id, None) and node.alive
            await second.log_in("alice")
            await second.until(seen, Phase.READY)


async def test_a_cluster_file_that_is_gone_ends_no_server(bridges: Bridges) -> None:
    """It is neither ended nor stopped, in clear words, and taken up once the file is back."""
    async with bridges.first(cluster="beta") as (_, kept, node):
        assert node.alive
    without = {name: cluster for name, cluster in bridges.clusters.items() if name != "beta"}
    async with bridges.begin(without) as second:
        assert (await second.client.server(kept.id)).phase is not Phase.ENDED
        with pytest.raises(ConfigError, match="beta"):
            await second.client.stop(kept.id)
    async with bridges.begin() as third:
        await third.until(await third.client.server(kept.id), Phase.READY)


def _running_on(cluster: Cluster, placement: str, **more: Any) -> ServerRecord:
    """A server that people work on, as a bridge before this one left it."""
    options = choose({cluster.name: cluster}, {"placement": placement})
    server_id = secrets.token_hex(16)
    return ServerRecord(
        id=server_id, user="alice", server_name=server_id[:4], cluster=cluster.name,
        options=options.as_dict(), base_url="/user/alice/", created_at=time.time(), phase=Phase.READY,
        handed_over=True, folder=f"/home/alice/{server_id}", login_node="login1", **more,
    )  # fmt: skip


async def _trouble_of(service: Service, record: ServerRecord, words: str) -> None:
    """Wait until the bridge tells these words of a server, which has not ended."""
    async with asyncio.timeout(5):
        while words not in service.view(service.lives[record.id].record).reason:  # noqa: ASYNC110  no event
            await asyncio.sleep(0.01)
    assert service.lives[record.id].record.phase is not Phase.ENDED


async def test_a_changed_cluster_file_ends_no_server(bridges: Bridges) -> None:
    """Each server whose login node, way in or placement is gone from its file: the person reads what is the
    matter, nothing ends, and each is looked for again once the file is as it was.
    """
    alpha, beta = bridges.clusters["alpha"], bridges.clusters["beta"]
    assert alpha.compute is not None
    key = new_keys().host_public.export_public_key().decode()
    on_login1 = _running_on(alpha, "login", node="login1")
    by_ssh = _running_on(
        replace(alpha, compute=replace(alpha.compute, attach=Attach.SSH)), "compute", node="c1", job_id="78"
    )
    in_beta = _running_on(beta, "compute", node="c1", job_id="78", host_public_key=key)
    by_srun = _running_on(alpha, "compute", node="c1", job_id="77", host_public_key=key)
    bridges.store.write([on_login1, by_ssh, by_srun, in_beta], [])
    changed = {
        "alpha": replace(
            alpha,
            login_nodes=(LoginNode(name="login9", address="192.0.2.9"),),
            partitions={},
            environments={},
        ),
        "beta": replace(beta, compute=None),
    }
    async with Service(bridges.settings, changed, bridges.store, bridges.agent) as service:
        await _log_in(service, bridges.login, "alice")
        await _trouble_of(service, on_login1, "alpha has no login node login1 any more")
        await _trouble_of(service, by_ssh, "alpha has another `attach` than when this server was started")
        await _trouble_of(service, in_beta, "beta offers no compute nodes any more")
        await _trouble_of(service, by_srun, "sh is not played here")  # the way itself is as before
        with pytest.raises(ConfigError, match="put it back"):
            await service.stop(on_login1.id)
        with pytest.raises(InvalidRequest, match="is not offered"):
            await service.start(
                user="alice", server_name="new", options={"cluster": "alpha", "partition": "cpu"},
                environ=ENVIRON, base_url="/",
            )  # fmt: skip
    async with Service(bridges.settings, bridges.clusters, bridges.store, bridges.agent) as service:
        await _trouble_of(service, on_login1, "no tunnel is played here")
        await _trouble_of(service, in_beta, "sh is not played here")
