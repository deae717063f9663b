"""hpchub.hub.idle and idle_culler: who is idle, who is not, and who cannot be asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from hpchub.bridge.client import BridgeClient
from hpchub.core.secret import Secret
from hpchub.core.server import Phase, ServerView
from hpchub.errors import HostUnreachable, NotAllowed
from hpchub.hub.idle import Arbiter, quiet_for
from hpchub.hub.idle_culler import OneSocket, split_url

CLUSTER = """
known_hosts = "known_hosts"
[[login_nodes]]
name = "login1"
[placements.login]
idle_time = "08:00:00"
max_age = "2-00:00:00"
[placements.compute]
idle_time = "01:00:00"
[partitions.cpu]
max_time = "08:00:00"
max_cpus = 4
max_memory = "8G"
[environments.lab]
prefix = "/opt/lab"
"""
HOUR = timedelta(hours=1)


@dataclass
class Notebook:
    """A notebook server that answers as it is told."""

    socket: str = ""
    quiet: timedelta = timedelta(0)
    execution_state: str = "idle"
    terminals: list[Any] | None = field(default_factory=list)
    raw: bytes | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        assert request.query["no_track_activity"] == "1"
        self.asked.append((request.path, request.headers["Authorization"]))
        if self.raw is not None:
            return web.Response(body=self.raw)
        at = (datetime.now(UTC) - self.quiet).isoformat().replace("+00:00", "Z")
        match request.path.rpartition("/api/")[2]:
            case "status":
                return web.json_response({"last_activity": at})
            case "kernels":
                return web.json_response([{"execution_state": self.execution_state, "last_activity": at}])
        if self.terminals is None:
            raise web.HTTPNotFound
        return web.json_response(self.terminals)


@pytest.fixture
async def notebook() -> AsyncIterator[Notebook]:
    notebook = Notebook()
    app = web.Application()
    app.router.add_get("/user/alice/x/api/{rest}", notebook.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    with TemporaryDirectory(dir="/tmp") as folder:
        notebook.socket = f"{folder}/s.sock"
        await web.UnixSite(runner, notebook.socket).start()
        yield notebook
        await runner.cleanup()


@dataclass
class World:
    """The bridge and the hub as the arbiter sees them."""

    view: ServerView
    asked: int = 0
    tokens: list[str] = field(default_factory=list)
    reports: list[datetime] = field(default_factory=list)
    away: bool = False
    logged_out: bool = False
    tunnels: frozenset[str] = frozenset()

    async def connections(self) -> tuple[list[object], frozenset[str]]:
        return [], self.tunnels

    async def session(self, user: str) -> float:
        assert user == "alice"
        if self.logged_out:
            raise NotAllowed("alice has no live session.")
        return 1.0

    async def server(self, server_id: str) -> ServerView:
        assert server_id == self.view.id
        self.asked += 1
        if self.away:
            raise HostUnreachable("The bridge is away.")
        return self.view

    async def server_token(self, user: str, name: str) -> Secret:
        self.tokens.append(f"{user}/{name}")
        return Secret("one-minute")

    async def report(self, user: str, name: str, at: datetime) -> None:
        assert (user, name) == ("alice", "x")
        self.reports.append(at)


@pytest.fixture
def world(notebook: Notebook) -> World:
    return World(a_view(notebook.socket))


def a_view(socket: str, placement: str = "compute", phase: Phase = Phase.READY) -> ServerView:
    return ServerView(
        id="9f", user="alice", server_name="x", cluster="alpha", placement=placement, phase=phase,
        job_id="1", node="c1", native_state="RUNNING", socket=socket, error=None, created_at=0.0,
    )  # fmt: skip


@pytest.fixture
def clusters(tmp_path: Path) -> Path:
    (tmp_path / "alpha.toml").write_text(CLUSTER)
    return tmp_path


async def judge(
    world: World, clusters: Path, inactive: timedelta | None, age: timedelta = 10 * HOUR, **more: Any
) -> bool:
    arbiter = Arbiter(clusters, cast("BridgeClient", world), world)
    server = {
        "full_name": "alice/x",
        "url": "/user/alice/x/",
        "started": (datetime.now(UTC) - age).isoformat(),
        "state": {"server_id": "9f"},
    }
    return await arbiter.judge(inactive=inactive, inactive_limit=600, server=server | more)


async def test_an_idle_server_goes(world: World, clusters: Path, notebook: Notebook) -> None:
    """Idle by the hub's word and by its own; asked with a token of its owner's, for that server alone."""
    notebook.quiet = 2 * HOUR
    assert await judge(world, clusters, 2 * HOUR)
    assert world.tokens == ["alice/x"] and world.reports == []
    assert {token for _, token in notebook.asked} == {"token one-minute"}


@pytest.mark.parametrize("case", ["busy", "kernel", "terminal"])
async def test_whoever_works_stays(world: World, clusters: Path, notebook: Notebook, case: str) -> None:
    """A kernel that computes in silence, one that printed lately, a terminal that did; the hub is told."""
    notebook.quiet = 2 * HOUR
    expected = timedelta(0)
    if case == "busy":
        notebook.execution_state = "busy"
    elif case == "kernel":
        notebook.quiet = expected = HOUR / 2
    else:
        notebook.terminals = [{"name": "1", "last_activity": datetime.now(UTC).isoformat()}]
    assert not await judge(world, clusters, 2 * HOUR)
    (reported,) = world.reports
    assert abs(datetime.now(UTC) - reported - expected) < timedelta(seconds=3)


async def test_each_placement_has_its_own_times(world: World, clusters: Path, notebook: Notebook) -> None:
    """Two quiet hours are enough on a compute node and not on a login node; nobody is asked too early."""
    notebook.quiet = 9 * HOUR
    assert not await judge(world, clusters, HOUR / 2) and world.asked == 0
    world.view = a_view(notebook.socket, "login")
    assert not await judge(world, clusters, 2 * HOUR) and notebook.asked == []
    assert await judge(world, clusters, 9 * HOUR)


async def test_the_oldest_go_in_any_case(world: World, clusters: Path, notebook: Notebook) -> None:
    """Beyond max_age even a computing one, unasked; where no max_age is set, never."""
    notebook.execution_state = "busy"
    assert not await judge(world, clusters, timedelta(0), 49 * HOUR)
    world.view = a_view(notebook.socket, "login")
    assert await judge(world, clusters, timedelta(0), 49 * HOUR) and notebook.asked == []
    assert not await judge(world, clusters, timedelta(0), 47 * HOUR)


async def test_who_logged_out_is_out_of_reach(world: World, clusters: Path, notebook: Notebook) -> None:
    """What nothing can ask or end is let be until its owner logs in, unless its tunnel was kept."""
    notebook.quiet = 9 * HOUR
    world.logged_out = True
    world.view = a_view(notebook.socket, "login")
    for inactive, age in ((9 * HOUR, 10 * HOUR), (HOUR / 2, 49 * HOUR)):
        world.tunnels = frozenset({"another"})
        assert not await judge(world, clusters, inactive, age)
        assert world.tokens == []
        world.tunnels = frozenset({"9f"})
        assert await judge(world, clusters, inactive, age)
        world.tokens.clear()
    world.logged_out, world.tunnels = False, frozenset()
    assert await judge(world, clusters, None, 49 * HOUR)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1]", b"null", b'{"last_activity": 3}', b"[" * 99999])
async def test_who_cannot_be_asked_stays(
    world: World, clusters: Path, notebook: Notebook, raw: bytes
) -> None:
    """Nonsense for an answer, whatever it is."""
    notebook.raw = raw
    assert not await judge(world, clusters, 90 * HOUR)
    assert world.reports == []


async def test_doubt_is_not_idleness(world: World, clusters: Path, notebook: Notebook) -> None:
    """No tunnel, no bridge, no socket, no id, no cluster file, a cluster that is gone: all stay."""
    notebook.quiet = 90 * HOUR
    for phase in (Phase.CONNECTING, Phase.STARTING, Phase.STOPPING):
        world.view = a_view(notebook.socket, phase=phase)
        assert not await judge(world, clusters, 90 * HOUR)
    world.view = a_view(f"{notebook.socket}.gone")
    assert not await judge(world, clusters, 90 * HOUR)
    world.view = a_view(notebook.socket)
    assert not await judge(world, clusters, None)
    assert not await judge(world, clusters, 90 * HOUR, state={})
    world.away = True
    assert not await judge(world, clusters, 90 * HOUR)
    world.away = False
    assert await judge(world, clusters, 90 * HOUR)
    (clusters / "alpha.toml").rename(clusters / "beta.toml")
    assert not await judge(world, clusters, 90 * HOUR)
    (clusters / "beta.toml").write_text("nonsense")
    assert not await judge(world, clusters, 90 * HOUR)


async def test_a_site_without_terminals(world: World, clusters: Path, notebook: Notebook) -> None:
    """Switched off, they answer 404, and the rest decides."""
    notebook.quiet, notebook.terminals = 2 * HOUR, None
    assert await judge(world, clusters, 2 * HOUR)


@given(st.integers(0, 10**6), st.lists(st.integers(0, 10**6), max_size=4), st.booleans())
def test_the_latest_sign_counts(status: int, kernels: list[int], busy: bool) -> None:
    """By the server's own clock, whatever the hub's says."""
    now = datetime(2030, 1, 1, tzinfo=UTC)

    def model(ago: int) -> dict[str, str]:
        return {"execution_state": "idle", "last_activity": (now - timedelta(seconds=ago)).isoformat()}

    rows = [model(ago) for ago in kernels]
    if busy:
        rows.append(model(0) | {"execution_state": "busy"})
    expected = 0 if busy else min([status, *kernels])
    assert quiet_for(now, model(status), rows, []) == timedelta(seconds=expected)


async def test_every_host_is_the_one_socket() -> None:
    """JupyterHub's own API on a unix socket, for a client that knows only names and ports."""
    url = "http+unix://%2Frun%2Fhpchub%2Fhub.sock/hub/api"
    assert split_url(url) == ("/run/hpchub/hub.sock", "http://localhost/hub/api")
    assert split_url("http://127.0.0.1:8081/hub/api") == ("", "http://127.0.0.1:8081/hub/api")
    resolver = OneSocket(path="/run/hub.sock")
    assert [address for _, address in await resolver.resolve("any", 80)] == ["/run/hub.sock"]
