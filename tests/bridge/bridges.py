"""A whole bridge for tests: real but for where servers run, and people who log in to it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import aiohttp

from hpchub.bridge.client import BridgeClient
from hpchub.bridge.places import Place
from hpchub.bridge.progress import Progress
from hpchub.bridge.server import make_bridge_app
from hpchub.bridge.service import Service
from hpchub.bridge.settings import BridgeSettings
from hpchub.bridge.store import ServerRecord, Store
from hpchub.core.choices import ServerOptions
from hpchub.core.cluster import Cluster
from hpchub.core.secret import Secret
from hpchub.core.server import Phase, ServerView
from hpchub.local_api.server import listening
from hpchub.ssh.key_agent import KeyAgent

from .places import CannotBeCancelledAtFirst, DiesWhileStarting, NeverRuns, Node, SlowToSubmit, WellBehaved

if TYPE_CHECKING:
    from .conftest import Login

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


@asynccontextmanager
async def a_bridge(
    settings: BridgeSettings, clusters: dict[str, Cluster], store: Store, login: Login, agent: KeyAgent
) -> AsyncIterator[Bridge]:
    service = LocalService(settings, clusters, store, agent)
    async with listening(make_bridge_app(service), settings.socket, group=settings.group), service:
        yield Bridge(service, login, settings.socket)
