"""The whole bridge behind its socket, through its client: every call, and what each refuses."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import secrets
import stat
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import pytest
from golden.reader import golden

from hpchub.bridge import life as life_module
from hpchub.bridge import service as service_module
from hpchub.bridge.client import BridgeClient
from hpchub.bridge.outlook import Outlook
from hpchub.bridge.places import Place
from hpchub.bridge.progress import Progress
from hpchub.bridge.server import make_bridge_app
from hpchub.bridge.service import Service
from hpchub.bridge.settings import BridgeSettings
from hpchub.bridge.store import ServerRecord, SessionRecord, Store
from hpchub.core.choices import ServerOptions, choose
from hpchub.core.cluster import Attach, Caps, Cluster, LoginNode
from hpchub.core.secret import Secret
from hpchub.core.server import SETTLED, Phase, ServerView
from hpchub.errors import (
    AccountProblem,
    ConfigError,
    InvalidRequest,
    NotAllowed,
    SchedulerUnavailable,
    StartFailed,
    TooManyServers,
    UnexpectedOutput,
)
from hpchub.local_api.server import listening
from hpchub.signer.answers import Certificate
from hpchub.ssh.inner_sshd import new_keys
from hpchub.ssh.key_agent import KeyAgent
from support import require

from .conftest import PASSWORD, Login, an_agent
from .places import CannotBeCancelledAtFirst, DiesWhileStarting, NeverRuns, Node, SlowToSubmit, WellBehaved
from .slurm import FakeSlurm

TOKEN = "canary-token-33d"
ENVIRON = {"JUPYTERHUB_API_TOKEN": TOKEN}

# A server's name says what its place does.
PLACES = {
    "never-runs": NeverRuns,
    "dies": DiesWhileStarting,
    "slow": SlowToSubmit,
    "stubborn": CannotBeCancelledAtFirst,
}


class LocalService(Service):
    """The real one, but for where servers run. `nodes` are those that a bridge before this one used."""

    nodes: ClassVar[dict[str, Node]] = {}

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.places: dict[str, WellBehaved] = {}

    def _place(
        self, record: ServerRecord, cluster: Cluster, options: ServerOptions, progress: Progress
    ) -> Place:
        place = PLACES.get(record.server_name, WellBehaved)(record, progress)
        place.node = self.nodes.get(record.id, place.node)
        self.places[record.id] = place
        return place


class Bridge:
    """A running bridge, and people who log in to it."""

    def __init__(self, service: LocalService, login: Login, socket: Path) -> None:
        self.service = service
        self.client = BridgeClient(socket)
        self.socket = socket
        self._login = login

    async def log_in(self, user: str) -> Secret:
        key_id, public_key = await self.client.new_key()
        grant = await self._login.grant(user, public_key)
        await self.client.open_session(user, key_id, grant)
        return grant

    async def start(
        self, user: str = "alice", name: str = "", environ: Mapping[str, str] = ENVIRON, **options: Any
    ) -> ServerView:
        return await self.client.start(
            user=user, server_name=name, options={"placement": "login", **options}, environ=environ,
            base_url=f"/user/{user}/{name}",
        )  # fmt: skip

    async def until(self, view: ServerView, *phases: Phase) -> ServerView:
        after = 0
        async with asyncio.timeout(5):
            while view.phase not in phases:
                view, _, after = await self.client.events(view.id, after, 2)
        return view

    async def raw(self, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, Any]]:
        connector = aiohttp.UnixConnector(str(self.socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, f"http://bridge{path}", data=io.BytesIO(body)) as response,
        ):
            return response.status, await response.json()


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


@asynccontextmanager
async def a_bridge(
    settings: BridgeSettings, clusters: dict[str, Cluster], store: Store, login: Login, agent: KeyAgent
) -> AsyncIterator[Bridge]:
    service = LocalService(settings, clusters, store, agent)
    async with listening(make_bridge_app(service), settings.socket, group=settings.group), service:
        yield Bridge(service, login, settings.socket)


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


async def test_the_socket_is_private(bridge: Bridge) -> None:
    """0600 in a folder of 0700, and so is the folder of the servers' sockets."""
    await bridge.client.health()
    for path, mode in (
        (bridge.socket, 0o600),
        (bridge.socket.parent, 0o700),
        (bridge.socket.parent / "s", 0o700),
    ):
        assert stat.S_IMODE(path.stat().st_mode) == mode


async def test_a_hub_with_an_account_of_its_own(
    settings: BridgeSettings,
    clusters: dict[str, Cluster],
    store: Store,
    login: Login,
    agent: KeyAgent,
    slurm: FakeSlurm,
) -> None:
    """Where the settings name its group, that reaches the servers' sockets, and nobody else does."""
    require.root()
    group = 20620
    shared = replace(settings, group=group, socket=settings.runtime_dir / "api" / "bridge.sock")
    async with a_bridge(shared, clusters, store, login, agent) as bridge:
        await bridge.log_in("alice")
        view = await bridge.start()
        view = await bridge.until(view, Phase.READY)
        for path, mode in ((Path(view.socket), 0o660), (Path(view.socket).parent, 0o750)):
            status = path.stat()
            assert (stat.S_IMODE(status.st_mode), status.st_gid) == (mode, group)


async def test_a_second_bridge_is_refused(
    bridge: Bridge,
    settings: BridgeSettings,
    clusters: dict[str, Cluster],
    store: Store,
    login: Login,
    agent: KeyAgent,
) -> None:
    """Before it touches a socket of the first one's servers."""
    await bridge.log_in("alice")
    view = await bridge.until(await bridge.start(), Phase.READY)
    with pytest.raises(ConfigError, match="already"):
        async with a_bridge(settings, clusters, store, login, agent):
            pass
    assert Path(view.socket).is_socket()


async def test_a_session_over_the_wire(bridge: Bridge) -> None:
    """Opened, asked for, closed; a refusal keeps its class."""
    for call in (
        bridge.client.session("alice"),
        bridge.start(),
        bridge.client.associations("alice", "alpha"),
    ):
        with pytest.raises(NotAllowed, match="no live session"):
            await call
    key_id, public_key = await bridge.client.new_key()
    grant = await bridge._login.grant("alice", public_key)
    with pytest.raises(NotAllowed):
        await bridge.client.open_session("bob", key_id, grant)
    await bridge.log_in("alice")
    assert await bridge.client.session("alice") > time.time() + 43000
    with pytest.raises(NotAllowed):
        await bridge.client.session("bob")
    await bridge.client.close_session("alice")
    with pytest.raises(NotAllowed):
        await bridge.start()


async def test_a_server_over_the_wire(bridge: Bridge) -> None:
    """Started, followed, seen, listed, stopped; its socket is told while it is ready."""
    await bridge.log_in("alice")
    view = await bridge.start()
    assert (view.user, view.cluster, view.placement, view.error) == ("alice", "alpha", "login", None)
    seen, after = [], 0
    while view.phase is not Phase.READY:
        view, events, after = await bridge.client.events(view.id, after, 5)
        seen += events
    assert seen[0].phase is Phase.CONNECTING and len(seen) == after
    assert Path(view.socket).is_socket() and view.node == "c1" and view.job_id == "42"
    assert await bridge.client.server(view.id) == view
    assert await bridge.client.servers("alice") == [view] and await bridge.client.servers("bob") == []
    ended = await bridge.client.stop(view.id)
    assert ended.phase is Phase.ENDED and ended.socket == "" and await bridge.client.servers("alice") == []
    assert await bridge.client.stop(view.id) == ended == await bridge.client.server(view.id)


async def test_events_wait_and_do_not_lie(bridge: Bridge) -> None:
    """Without news the answer comes in the time asked for; who counts beyond the end starts again."""
    await bridge.log_in("alice")
    view = await bridge.until(await bridge.start(name="never-runs"), Phase.QUEUED)
    _, events, after = await bridge.client.events(view.id, 0, 0)
    began = time.monotonic()
    async with asyncio.timeout(20):
        _, none, same = await bridge.client.events(view.id, after, 0.2)
    assert (none, same) == ([], after) and time.monotonic() - began > 0.15
    _, again, count = await bridge.client.events(view.id, after + 7, 5)
    assert (again, count) == (events, after)
    waiting = asyncio.create_task(bridge.client.events(view.id, after, 5))
    await asyncio.sleep(0.05)
    await bridge.client.stop(view.id)
    _, news, _ = await asyncio.wait_for(waiting, 1)
    assert news[0].phase is Phase.STOPPING
    for query in ("after=-1", "after=x", "wait_s=nan", "wait_s=-1", "after=1.5"):
        status, answer = await bridge.raw("GET", f"/v1/servers/{view.id}/events?{query}")
        assert (status, answer["error"]) == (422, "InvalidRequest"), query


async def test_who_waits_for_the_end_of_a_start_hears_nothing_before(bridge: Bridge) -> None:
    """One question covers a whole start, and its answer holds all that was told meanwhile."""
    await bridge.log_in("alice")
    view = await bridge.start()
    async with asyncio.timeout(10):
        view, events, after = await bridge.client.events(view.id, 0, 10, settled=True)
    assert view.phase is Phase.READY and after == len(events)
    assert [events[0].phase, events[-1].phase] == [Phase.CONNECTING, Phase.READY]
    waits = await bridge.start(name="never-runs")
    waits, events, _ = await bridge.client.events(waits.id, 0, 0.3, settled=True)
    assert waits.phase not in SETTLED and events
    told = asyncio.create_task(bridge.client.events(waits.id, 0, 10, settled=True))
    await asyncio.sleep(0.05)
    await bridge.client.stop(waits.id)
    ended, _, _ = await asyncio.wait_for(told, 5)
    assert ended.phase is Phase.ENDED


async def test_a_view_tells_what_is_known_of_the_job(bridge: Bridge) -> None:
    """Why and how long while it waits, until when while it runs, and nothing of either afterwards."""
    await bridge.log_in("alice")
    view = await bridge.until(await bridge.start(), Phase.READY)
    life = bridge.service.lives[view.id]
    life.progress.outlook = Outlook(
        reason="Pending.", partition="cpu", queue_place=3, expected_start=1700000000
    )
    life.progress.end.set(1700003600)
    told = {}
    for phase in (Phase.QUEUED, Phase.READY, Phase.STOPPING):
        life.record.phase = phase
        view = await bridge.client.server(view.id)
        told[phase] = (view.reason, view.queue_place, view.expected_start, view.ends_at)
    life.record.phase = Phase.READY
    assert told == {
        Phase.QUEUED: ("Pending.", 3, 1700000000, None),
        Phase.READY: ("", None, None, 1700003600),
        Phase.STOPPING: ("", None, None, None),
    }


async def test_ends_are_told_over_the_api(bridge: Bridge) -> None:
    """A question that waits is answered by a server's end, and by no other's start."""
    await bridge.log_in("alice")
    view = await bridge.until(await bridge.start(name="never-runs"), Phase.QUEUED)
    name, ended, count = await bridge.client.endings("", 0, 0)
    assert (ended, count) == ([], 0)
    waiting = asyncio.create_task(bridge.client.endings(name, count, 20))
    await asyncio.sleep(0.05)
    await bridge.client.stop(view.id)
    assert await asyncio.wait_for(waiting, 1) == (name, [view.id], 1)


async def test_errors_keep_their_class_and_fields(bridge: Bridge) -> None:
    """A refused option names its field, a failed start has its log; also from the store, after a restart."""
    await bridge.log_in("alice")
    with pytest.raises(InvalidRequest) as caught:
        await bridge.start(cpus="999", placement="compute", nonsense="1")
    assert (
        set(caught.value.fields) == {"cpus", "nonsense"} and "Allowed: 1 to 4" in caught.value.fields["cpus"]
    )
    view = await bridge.until(await bridge.start(name="dies"), Phase.ENDED)
    await bridge.service.lives[view.id].ended.wait()  # told first, then stored
    for _ in range(2):
        assert isinstance(view.error, StartFailed)
        assert (view.error.log_tail, view.error.log_path) == ("no jupyterhub", "server.log")
        for life in bridge.service.lives.values():
            await life.ended.wait()  # the end is told before it is stored
        bridge.service.lives.clear()
        view = await bridge.client.server(view.id)
    view, events, after = await bridge.client.events(view.id, 3, 5)
    assert (view.phase, events, after) == (Phase.ENDED, [], 3)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"canary",
        b"[]",
        b"{}",
        b'{"user": "alice"}',
        b"\xff",
        b"[" * 9999,
        b'{"user": 1, "server_name": "", "options": {}, "environ": {"T": "canary"}, "base_url": "/"}',
        b'{"user": "alice", "server_name": "", "options": [], "environ": {"T": "canary"}, "base_url": "/"}',
        b'{"user": "alice", "server_name": "", "options": {}, "environ": {"T": ["canary"]}, "base_url": "/"}',
        b'{"user": "alice", "server_name": "", "options": {}, "environ": {}, "base_url": "/", "canary": 1}',
        b"canary" * 200_000,
    ],
)
async def test_other_bodies_are_refused(bridge: Bridge, body: bytes) -> None:
    """Exactly the keys, each of its kind; nothing of the body comes back, and nothing starts."""
    await bridge.log_in("alice")
    status, answer = await bridge.raw("POST", "/v1/servers", body)
    assert (status, answer["error"]) == (422, "InvalidRequest") and "canary" not in json.dumps(answer)
    status, answer = await bridge.raw("PUT", "/v1/sessions/alice", body)
    assert (status, answer["error"]) == (422, "InvalidRequest") and "canary" not in json.dumps(answer)
    assert bridge.service.lives == {}


@pytest.mark.parametrize(
    "server_id", ["x", "..", "../../etc/passwd", "a b", "' OR 1=1 --", "0" * 5000, "%00", "-rf", "é"]
)
async def test_unknown_ids_are_refused(bridge: Bridge, slurm: FakeSlurm, server_id: str) -> None:
    """Whatever they look like, and nothing runs anywhere."""
    for call in (
        bridge.client.server(server_id),
        bridge.client.stop(server_id),
        bridge.client.events(server_id, 0, 0),
    ):
        with pytest.raises(InvalidRequest):
            await call
    assert slurm.asked == []


async def test_foreign_methods_and_paths(bridge: Bridge) -> None:
    """Answered in our own shape."""
    for method, path, expected in (
        ("PATCH", "/v1/servers", 405),
        ("GET", "/v2/health", 404),
        ("POST", "/", 404),
    ):
        status, answer = await bridge.raw(method, path)
        assert (status, answer["error"]) == (expected, "InvalidRequest")


async def test_two_starts_at_once_make_one_server(bridge: Bridge) -> None:
    """A double click, and the hub's retry: one job, and the newest environment."""
    await bridge.log_in("alice")
    views = await asyncio.gather(*(bridge.start(name="slow", environ={"T": str(n)}) for n in range(3)))
    assert len({view.id for view in views}) == 1 and len(bridge.service.lives) == 1
    place = bridge.service.places[views[0].id]
    assert isinstance(place, SlowToSubmit)
    place.gate.set()
    await bridge.until(views[0], Phase.READY)
    assert place.calls.count("submit") == 1
    assert place.node.handovers[0]["environ"]["T"] == "2"


async def test_two_names_are_two_servers(bridge: Bridge) -> None:
    """Also of two people with servers of one name."""
    await bridge.log_in("alice")
    await bridge.log_in("bob")
    views = await asyncio.gather(bridge.start(), bridge.start(name="other"), bridge.start(user="bob"))
    assert len({view.id for view in views}) == 3
    assert len(await bridge.client.servers("alice")) == 2


@pytest.mark.parametrize("name", ["never-runs", ""])
async def test_a_start_with_other_options_replaces(bridge: Bridge, name: str) -> None:
    """The server that waits or runs is stopped first; one that runs is replaced in any case."""
    await bridge.log_in("alice")
    first = await bridge.until(await bridge.start(name=name), Phase.QUEUED, Phase.READY)
    if name:
        same = await bridge.start(name=name)
        assert same.id == first.id
    second = await bridge.start(name=name, cluster="beta" if name else "alpha")
    assert second.id != first.id
    assert (await bridge.client.server(first.id)).phase is Phase.ENDED
    assert "cancel" in bridge.service.places[first.id].calls
    assert [view.id for view in await bridge.client.servers("alice")] == [second.id]


async def test_a_start_while_it_is_being_stopped_waits(bridge: Bridge) -> None:
    """The dying server is not adopted: a new one is made once it is gone."""
    await bridge.log_in("alice")
    first = await bridge.start(name="slow")
    stop = asyncio.create_task(bridge.client.stop(first.id))
    await bridge.until(first, Phase.STOPPING)
    start = asyncio.create_task(bridge.start(name="slow"))
    await asyncio.sleep(0.05)
    assert not start.done()
    place = bridge.service.places[first.id]
    assert isinstance(place, SlowToSubmit)
    place.gate.set()
    assert (await stop).phase is Phase.ENDED
    second = await start
    assert second.id != first.id
    place = bridge.service.places[second.id]
    assert isinstance(place, SlowToSubmit)
    place.gate.set()


async def test_a_start_whose_predecessor_cannot_be_stopped(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No second server of that name: the error says why, and the first one stays visible."""
    monkeypatch.setattr(life_module, "_END_LIMIT_S", 0.05)
    await bridge.log_in("alice")
    first = await bridge.until(await bridge.start(name="stubborn"), Phase.READY)
    with pytest.raises(SchedulerUnavailable):
        await bridge.start(name="stubborn")
    assert await bridge.client.servers("alice") == [first]
    assert (await bridge.start(name="stubborn")).id != first.id


async def test_the_last_place_is_taken_once(bridge: Bridge, clusters: dict[str, Cluster]) -> None:
    """However many ask in the same moment; a stop, or a start of the same name, makes place."""
    clusters["alpha"] = replace(clusters["alpha"], caps=Caps(servers=3, servers_per_user=2))
    for user in ("alice", "bob"):
        await bridge.log_in(user)
    starts = (bridge.start(name=f"s{number}") for number in range(6))
    results = await asyncio.gather(*starts, return_exceptions=True)
    refused = [result for result in results if isinstance(result, TooManyServers)]
    views = [result for result in results if isinstance(result, ServerView)]
    assert (len(views), len(refused)) == (2, 4) and "limits.servers_per_user" in refused[0].message
    starts = (bridge.start("bob", name=f"s{number}") for number in range(2))
    results = await asyncio.gather(*starts, return_exceptions=True)
    assert [type(result) for result in results].count(TooManyServers) == 1
    assert len(bridge.service.lives) == 3
    views = [await bridge.until(view, Phase.READY) for view in views]
    again = await bridge.start(name=views[0].server_name)
    assert again.id != views[0].id
    await bridge.client.stop(views[1].id)
    await bridge.start(name="s9")


async def test_a_refused_replacement_ends_nothing(bridge: Bridge, clusters: dict[str, Cluster]) -> None:
    """The old server stays where the new one would be one too many on its own cluster."""
    clusters["beta"] = replace(clusters["beta"], caps=Caps(servers=1))
    for user in ("alice", "bob"):
        await bridge.log_in(user)
    first = await bridge.until(await bridge.start(), Phase.READY)
    await bridge.start("bob", cluster="beta")
    with pytest.raises(TooManyServers, match=r"limits\.servers"):
        await bridge.start(cluster="beta")
    assert await bridge.client.servers("alice") == [first]


async def test_starts_wait_for_each_other(
    settings: BridgeSettings,
    clusters: dict[str, Cluster],
    store: Store,
    login: Login,
    agent: KeyAgent,
    slurm: FakeSlurm,
) -> None:
    """A cluster's own number of starts goes through at once, whoever's they are; another's do not count."""
    clusters["alpha"] = replace(clusters["alpha"], starts_at_once=1)
    async with a_bridge(settings, clusters, store, login, agent) as bridge:
        await bridge.log_in("alice")
        await bridge.log_in("bob")
        slow = await bridge.start(name="slow")
        waits = await bridge.start("bob")
        await bridge.until(await bridge.start(name="elsewhere", cluster="beta"), Phase.READY)
        _, events, _ = await bridge.client.events(waits.id, 1, 1)
        assert events[-1].message == "Many servers start at once: yours is the next"
        place = bridge.service.places[slow.id]
        assert isinstance(place, SlowToSubmit)
        place.gate.set()
        await bridge.until(waits, Phase.READY)


async def test_twenty_people_at_once(bridge: Bridge) -> None:
    """Each gets one server of their own."""
    people = [f"user{number}" for number in range(20)]
    await asyncio.gather(*(bridge.log_in(user) for user in people))
    views = await asyncio.gather(*(bridge.start(user=user) for user in people))
    views = await asyncio.gather(*(bridge.until(view, Phase.READY) for view in views))
    assert [view.user for view in views] == people and len({view.socket for view in views}) == 20
    ended = await asyncio.gather(*(bridge.client.stop(view.id) for view in views))
    assert {view.phase for view in ended} == {Phase.ENDED}


async def test_terminals(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signer's refusal comes through as it is, here that the site gives none; so does a certificate."""
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1kzBTMVi4NGTvCMSzYwdZAVMCnfPHjIYVVSiFwHE7b"
    with pytest.raises(NotAllowed, match="no live session"):
        await bridge.client.terminal_certificate("alice", key, "192.0.2.1")
    await bridge.log_in("alice")
    with pytest.raises(NotAllowed, match="gives no certificates"):
        await bridge.client.terminal_certificate("alice", key, "192.0.2.1")
    made = Certificate(
        certificate="made",
        serial=1,
        key_id="k",
        account="alice",
        principal="alice",
        valid_before=7,
        expires_at=7,
    )
    asked: list[tuple[str, ...]] = []

    async def make(*given: str) -> Certificate:
        asked.append(given)
        return made

    monkeypatch.setattr(bridge.service.sessions, "terminal_certificate", make)
    assert await bridge.client.terminal_certificate("alice", key, "192.0.2.1") == ("made", 7)
    assert asked == [("alice", key, "192.0.2.1")]


async def test_slurms_own_tokens(bridge: Bridge, slurm: FakeSlurm) -> None:
    """Asked for as the user, for no other and not without a session; somebody else's token is refused."""
    with pytest.raises(NotAllowed):
        await bridge.client.slurm_token("alice", "alpha", 60)
    await bridge.log_in("alice")
    await bridge.log_in("bob")
    slurm.answers["scontrol"] = lambda _command: golden("scontrol_token")
    token, _ = await bridge.client.slurm_token("alice", "alpha", 60)
    assert token.reveal().endswith(".signature-not-kept")
    asked = [(user, command.argv) for user, _, command in slurm.asked if command.name == "scontrol"]
    assert asked == [("alice", ("scontrol", "token", "lifespan=60"))]
    with pytest.raises(UnexpectedOutput, match="somebody else"):
        await bridge.client.slurm_token("bob", "alpha", 60)
    for cluster, lifespan_s in (("gamma", 60), ("alpha", 86400)):
        with pytest.raises(InvalidRequest):
            await bridge.client.slurm_token("alice", cluster, lifespan_s)


async def test_associations(bridge: Bridge, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for once a minute, for each user and cluster apart; who has none is told so, each time anew."""
    for user in ("alice", "bob"):
        await bridge.log_in(user)
    for _ in range(3):
        rows = await bridge.client.associations("alice", "alpha")
        assert [row.account for row in rows] == ["physics", "chemistry"] and rows[0].is_default
    assert slurm.count("sacctmgr") == 1
    bobs = await bridge.client.associations("bob", "alpha")
    assert bobs != rows
    await bridge.client.associations("alice", "beta")
    assert [asked[:2] for asked in slurm.asked] == [("alice", "alpha"), ("bob", "alpha"), ("alice", "beta")]
    monkeypatch.setattr(service_module, "_ASSOCIATIONS_KEPT_S", 0.0)
    await bridge.client.associations("alice", "alpha")
    assert slurm.count("sacctmgr") == 4
    with pytest.raises(InvalidRequest, match="no cluster 'gamma'"):
        await bridge.client.associations("alice", "gamma")
    await bridge.client.close_session("alice")
    with pytest.raises(NotAllowed):  # what is kept is for live sessions alone
        await bridge.client.associations("alice", "alpha")


async def test_nobody_starts_what_they_may_not_charge(bridge: Bridge, slurm: FakeSlurm) -> None:
    """Another's account is refused with its field; no association at all is told as such."""
    for user in ("alice", "bob"):
        await bridge.log_in(user)
    await bridge.client.associations("alice", "alpha")
    with pytest.raises(InvalidRequest) as caught:
        await bridge.start("bob", placement="compute", account="chemistry")
    assert set(caught.value.fields) == {"account"}
    slurm.answers["sacctmgr"] = lambda command: slurm._sacctmgr(
        type(command)(argv=tuple("carol" if word == "bob" else word for word in command.argv))
    )
    bridge.service._associations.clear()
    for _ in range(2):
        with pytest.raises(AccountProblem, match="no association"):
            await bridge.start("bob", placement="compute")
    assert slurm.count("sacctmgr") == 4 and bridge.service.lives == {}


async def test_a_restart_takes_up_what_ran(
    settings: BridgeSettings, clusters: dict[str, Cluster], store: Store, login: Login, agent: KeyAgent,
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Servers are taken up with nobody logging in: those that ran, and those that had only begun."""
    async with a_bridge(settings, clusters, store, login, agent) as first:
        await first.log_in("alice")
        kept = await first.until(await first.start(), Phase.READY)
        node = first.service.places[kept.id].node
        queued = await first.until(await first.start(name="never-runs"), Phase.QUEUED)
    assert node.alive and not Path(kept.socket).exists()
    monkeypatch.setattr(LocalService, "nodes", {kept.id: node})
    monkeypatch.setitem(PLACES, "never-runs", WellBehaved)
    async with a_bridge(settings, clusters, store, login, agent) as second:
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
    settings: BridgeSettings, clusters: dict[str, Cluster], store: Store, login: Login, agent: KeyAgent,
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Who asks before the sessions are read waits for them: a no would log the person out of the hub."""
    async with a_bridge(settings, clusters, store, login, agent) as first:
        await first.log_in("alice")
    reading, read = threading.Event(), threading.Event()
    kept = store.sessions

    def slowly() -> list[SessionRecord]:
        reading.set()
        assert read.wait(5)
        return kept()

    monkeypatch.setattr(store, "sessions", slowly)
    client = BridgeClient(settings.socket)

    async def ask() -> float:
        await asyncio.to_thread(reading.wait, 5)
        await client.health()
        asked = asyncio.create_task(client.session("alice"))
        await asyncio.sleep(0.1)
        assert not asked.done()
        read.set()
        return await asked

    asking = asyncio.create_task(ask())
    async with a_bridge(settings, clusters, store, login, agent):
        assert await asking > time.time()


async def test_without_the_agent_s_memory_people_log_in_again(
    settings: BridgeSettings, clusters: dict[str, Cluster], store: Store, login: Login, agent: KeyAgent,
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """After a reboot of the hub's machine: running servers are taken up at the next login, none is ended."""
    async with a_bridge(settings, clusters, store, login, agent) as first:
        await first.log_in("alice")
        kept = await first.until(await first.start(), Phase.READY)
        node = first.service.places[kept.id].node
    monkeypatch.setattr(LocalService, "nodes", {kept.id: node})
    with an_agent(agent.socket.with_name("new.sock")) as new_agent:
        async with a_bridge(settings, clusters, store, login, new_agent) as second:
            with pytest.raises(NotAllowed):
                await second.client.session("alice")
            (seen,) = await second.client.servers("alice")
            assert (seen.id, seen.error) == (kept.id, None) and node.alive
            await second.log_in("alice")
            await second.until(seen, Phase.READY)


async def test_a_cluster_file_that_is_gone_ends_no_server(
    settings: BridgeSettings, clusters: dict[str, Cluster], store: Store, login: Login, agent: KeyAgent,
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It is neither ended nor stopped, in clear words, and taken up once the file is back."""
    async with a_bridge(settings, clusters, store, login, agent) as first:
        await first.log_in("alice")
        kept = await first.until(await first.start(cluster="beta"), Phase.READY)
        node = first.service.places[kept.id].node
    monkeypatch.setattr(LocalService, "nodes", {kept.id: node})
    without = {name: cluster for name, cluster in clusters.items() if name != "beta"}
    async with a_bridge(settings, without, store, login, agent) as second:
        assert (await second.client.server(kept.id)).phase is not Phase.ENDED
        with pytest.raises(ConfigError, match="beta"):
            await second.client.stop(kept.id)
    async with a_bridge(settings, clusters, store, login, agent) as third:
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


async def test_a_changed_cluster_file_ends_no_server(
    settings: BridgeSettings, clusters: dict[str, Cluster], store: Store, login: Login, agent: KeyAgent,
    slurm: FakeSlurm,
) -> None:  # fmt: skip
    """Each server whose login node, way in or placement is gone from its file: the person reads what is the
    matter, nothing ends, and each is looked for again once the file is as it was.
    """
    alpha, beta = clusters["alpha"], clusters["beta"]
    assert alpha.compute is not None
    key = new_keys().host_public.export_public_key().decode()
    on_login1 = _running_on(alpha, "login", node="login1")
    by_ssh = _running_on(
        replace(alpha, compute=replace(alpha.compute, attach=Attach.SSH)), "compute", node="c1", job_id="78"
    )
    in_beta = _running_on(beta, "compute", node="c1", job_id="78", host_public_key=key)
    by_srun = _running_on(alpha, "compute", node="c1", job_id="77", host_public_key=key)
    store.write([on_login1, by_ssh, by_srun, in_beta], [])
    changed = {
        "alpha": replace(
            alpha,
            login_nodes=(LoginNode(name="login9", address="192.0.2.9"),),
            partitions={},
            environments={},
        ),
        "beta": replace(beta, compute=None),
    }
    async with Service(settings, changed, store, agent) as service:
        await _log_in(service, login, "alice")
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
    async with Service(settings, clusters, store, agent) as service:
        await _trouble_of(service, on_login1, "no tunnel is played here")
        await _trouble_of(service, in_beta, "sh is not played here")


async def _log_in(service: Service, login: Login, user: str) -> None:
    key_id, public_key = service.sessions.new_key()
    await service.open_session(user, key_id, await login.grant(user, public_key))


async def test_no_secret_is_kept_or_logged(
    bridge: Bridge, settings: BridgeSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither token, grant nor password is in a log at any level, in the store's file, or in a repr."""
    caplog.set_level(logging.DEBUG)
    grant = await bridge.log_in("alice")
    ready = await bridge.until(await bridge.start(), Phase.READY)
    queued = await bridge.until(await bridge.start(name="never-runs"), Phase.QUEUED)
    await bridge.until(await bridge.start(name="dies"), Phase.ENDED)
    with pytest.raises(InvalidRequest):
        await bridge.start(cpus="-1", placement="compute")
    lives = [vars(bridge.service.lives[view.id]) for view in (ready,)]
    records = [bridge.service.lives[view.id].record for view in (ready, queued)]
    shown = "".join(
        map(repr, (lives, records, bridge.service, vars(bridge.service), vars(bridge.service.sessions)))
    )
    stored = ""
    for path in tmp_path.glob("bridge.db*"):
        with suppress(FileNotFoundError):  # SQLite's journal comes and goes
            stored += path.read_text("latin-1")
    assert "canary" not in repr(await bridge.client.servers("alice"))
    for secret in (TOKEN, PASSWORD, grant.reveal()):
        assert secret not in caplog.text and secret not in stored and secret not in shown
