"""A bridge that behaves as recorded: its API of docs/reference/processes.md, and no cluster behind it.

Sessions are real (a key of its own, certificates from the real signer); servers follow a script, and
a ready one has a small web server where the tunnel's end would be.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
from aiohttp import web

from hpchub.bridge.endings import Endings
from hpchub.core.certificate import Profile
from hpchub.core.choices import choose
from hpchub.core.cluster import Placement
from hpchub.core.cluster_file import load_clusters
from hpchub.core.job import Association
from hpchub.core.secret import Secret
from hpchub.core.server import Phase
from hpchub.core.terminal import terminal_request
from hpchub.errors import AccountProblem, HpchubError, InvalidRequest, NotAllowed, StartFailed, to_wire
from hpchub.signer.client import SignerClient

ASSOCIATIONS = {
    "alice": [Association(account="physics", is_default=True), Association(account="chemistry")],
    "bob": [Association(account="physics", is_default=True)],
    "carol": [],
}

QUEUED = (Phase.QUEUED, "Job 42 is pending: waiting for resources", 30)
STEPS = (
    (Phase.CONNECTING, "Connecting to Demo", 5),
    (Phase.SUBMITTED, "Submitted as job 42", 20),
    QUEUED,
    (Phase.STARTING, "Running on c1: starting Jupyter", 60),
)


@dataclass
class Served:
    """One server of the script, and all it was started with."""

    id: str
    user: str
    server_name: str
    options: Mapping[str, Any]
    environ: Mapping[str, str]
    base_url: str
    placement: str = "compute"
    phase: Phase = Phase.CONNECTING
    socket: Path | None = None
    error: HpchubError | None = None
    created_at: float = field(default_factory=time.time)
    more: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, phase: Phase, message: str, percent: int) -> None:
        self.phase = phase
        self.events.append({"at": time.time(), "phase": phase, "message": message, "percent": percent})
        self.news.set()
        self.news = asyncio.Event()

    def view(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "user": self.user,
            "server_name": self.server_name,
            "cluster": "demo",
            "placement": self.placement,
            "phase": self.phase,
            "job_id": "42",
            "node": "c1",
            "native_state": "RUNNING",
            "socket": str(self.socket) if self.socket and self.phase is Phase.READY else "",
            "error": to_wire(self.error) if self.error else None,
            "created_at": self.created_at,
            **self.more,
        }


class RecordedBridge:
    """Runs in a thread of its own between `start` and `close`; tests set what happens next."""

    def __init__(self, folder: Path, clusters: Path, signer_socket: Path) -> None:
        self.socket = folder / "bridge.sock"
        self._folder = folder
        self._clusters = load_clusters(clusters)
        self._signer = SignerClient(signer_socket)
        self._keys: dict[str, asyncssh.SSHKey] = {}
        self.sessions: dict[str, float] = {}
        self.grants: dict[str, tuple[asyncssh.SSHKey, Secret]] = {}
        self.served: dict[str, Served] = {}
        self.requests: list[tuple[str, str]] = []
        self.stays_queued = threading.Event()
        self.dies: StartFailed | None = None
        self.asking_fails: HpchubError | None = None
        self._runners: list[web.AppRunner] = []
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen; returns once it does."""
        self._loop = asyncio.new_event_loop()
        self._endings = Endings()
        self._ready.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def close(self) -> None:
        """Stop listening, as a bridge that crashed."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._thread = None
            self.socket.unlink(missing_ok=True)

    def alive(self, user: str) -> list[Served]:
        """The servers of a user that have not ended."""
        served = list(self.served.values())  # another thread adds to it
        return [one for one in served if one.user == user and one.phase is not Phase.ENDED]

    def queued(self, user: str, count: int = 1) -> list[Served]:
        """The same, once there are so many and each has told of its job.

        The hub answers whoever starts a server after 0.3 s, also where its own request has not come here.
        """
        deadline = time.monotonic() + 15
        told = [phase for phase, _, _ in STEPS[: STEPS.index(QUEUED)]]
        while len(found := [one for one in self.alive(user) if one.events and one.phase not in told]) < count:
            assert time.monotonic() < deadline, f"of {count} servers of {user} these are known: {found}"
            time.sleep(0.02)
        return found

    def end(self, one: Served, error: HpchubError | None = None) -> None:
        """A server ends by itself."""
        one.error = error

        def end() -> None:
            one.tell(Phase.ENDED, "Ended", 100)
            self._endings.note(one.id)

        self._loop.call_soon_threadsafe(end)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())
        self._ready.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.run_until_complete(self._clean_up())
        self._loop.close()

    async def _clean_up(self) -> None:
        for site in [site for runner in self._runners for site in runner.sites]:
            await site.stop()
        await asyncio.sleep(0.05)  # a connection that has just come belongs to its runner only now
        while self._runners:
            await self._runners.pop().cleanup()
        await asyncio.sleep(0.05)  # the loop closes the last connections' sockets in its next rounds

    async def _listen(self) -> None:
        app = web.Application(middlewares=[self._recorded])
        app.add_routes(
            [
                web.post("/v1/keys", self._new_key),
                web.put("/v1/sessions/{user}", self._open_session),
                web.get("/v1/sessions/{user}", self._session),
                web.delete("/v1/sessions/{user}", self._close_session),
                web.post("/v1/sessions/{user}/terminals", self._terminal),
                web.get("/v1/users/{user}/associations", self._associations),
                web.get("/v1/users/{user}/last-server", self._last_server),
                web.post("/v1/servers", self._start),
                web.get("/v1/servers", self._servers),
                web.get("/v1/servers/{id}", self._server),
                web.get("/v1/servers/{id}/events", self._events),
                web.delete("/v1/servers/{id}", self._stop),
                web.get("/v1/endings", self._ended),
            ]
        )
        await self._serve(app, self.socket)

    async def _serve(self, app: web.Application, socket: Path) -> None:
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        self._runners.append(runner)
        await runner.setup()
        await web.UnixSite(runner, str(socket)).start()

    @web.middleware
    async def _recorded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        try:
            return await handler(request)
        except HpchubError as error:
            return web.json_response(to_wire(error), status=error.status)

    async def _new_key(self, _request: web.Request) -> web.Response:
        key = asyncssh.generate_private_key("ssh-ed25519")
        key_id = secrets.token_hex(8)
        self._keys[key_id] = key
        public_key = key.export_public_key().decode().strip()
        return web.json_response({"key_id": key_id, "public_key": public_key})

    async def _open_session(self, request: web.Request) -> web.Response:
        body = await request.json()
        key = self._keys.pop(body["key_id"])
        public_key = key.export_public_key().decode().strip()
        minted = await self._signer.certificate(Secret(body["grant"]), public_key, Profile.CONTROL)
        user = request.match_info["user"]
        if asyncssh.import_certificate(minted.certificate).principals != [user]:
            raise NotAllowed(f"That login was not {user}'s.")
        self.sessions[user] = time.time() + 3600
        self.grants[user] = (key, Secret(body["grant"]))
        return web.json_response({"expires_at": self.sessions[user]})

    async def _terminal(self, request: web.Request) -> web.Response:
        user, body = request.match_info["user"], await request.json()
        self._need_session(user)
        key, grant = self.grants[user]
        made = await self._signer.terminal_certificate(
            grant,
            login_key=key.export_public_key().decode().strip(),
            signature=key.sign(terminal_request(grant.reveal(), body["public_key"]), b"ssh-ed25519"),
            public_key=body["public_key"],
            source=body["source"],
        )
        return web.json_response({"certificate": made.certificate, "valid_before": made.valid_before})

    async def _ended(self, request: web.Request) -> web.Response:
        query = request.query
        ended, number = await self._endings.after(
            query["bridge"], int(query["after"]), float(query["wait_s"])
        )
        return web.json_response({"bridge": self._endings.bridge, "ended": ended, "next": number})

    def _need_session(self, user: str) -> float:
        if user not in self.sessions:
            raise NotAllowed(f"{user} has no live session.", "Log in again.")
        return self.sessions[user]

    async def _session(self, request: web.Request) -> web.Response:
        return web.json_response({"expires_at": self._need_session(request.match_info["user"])})

    async def _close_session(self, request: web.Request) -> web.Response:
        self.sessions.pop(request.match_info["user"], None)
        return web.json_response({})

    def _asked(self, user: str) -> list[Association]:
        self._need_session(user)
        if self.asking_fails is not None:
            raise self.asking_fails
        if not ASSOCIATIONS[user]:
            raise AccountProblem(
                f"{user} has no account in the scheduler of demo (no association).", "Ask the site's staff."
            )
        return ASSOCIATIONS[user]

    async def _associations(self, request: web.Request) -> web.Response:
        rows = self._asked(request.match_info["user"])
        return web.json_response(
            {"associations": [{"account": a.account, "is_default": a.is_default} for a in rows]}
        )

    async def _start(self, request: web.Request) -> web.Response:
        body = await request.json()
        self._need_session(body["user"])
        chosen = choose(self._clusters, body["options"])
        if chosen.placement is Placement.COMPUTE:
            chosen = choose(self._clusters, body["options"], {chosen.cluster: self._asked(body["user"])})
        one = Served(id=secrets.token_hex(8), placement=chosen.placement, **body)
        self.served[one.id] = one
        asyncio.get_running_loop().create_task(self._live(one))
        return web.json_response(one.view())

    async def _live(self, one: Served) -> None:
        for step in STEPS:
            if one.phase is Phase.ENDED:
                return
            one.tell(*step)
            await asyncio.sleep(0.02)
            while step is QUEUED and self.stays_queued.is_set():  # noqa: ASYNC110  set by another thread
                await asyncio.sleep(0.02)
        if self.dies is not None:
            one.error = self.dies
            one.tell(Phase.ENDED, str(self.dies), 100)
        elif one.phase is not Phase.ENDED:
            one.socket = await self._notebook(one)
            one.tell(Phase.READY, "Ready on c1", 100)

    async def _notebook(self, one: Served) -> Path:
        """A web server at the tunnel's end that says whose it is."""

        async def answer(request: web.Request) -> web.Response:
            if not request.path.startswith(one.base_url):
                return web.Response(status=404)
            return web.json_response(
                {"user": one.user, "server": one.server_name},
                headers={"X-JupyterHub-Version": "6.1.1"},
            )

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        socket = self._folder / f"{one.id}.sock"
        await self._serve(app, socket)
        socket.with_name(f"{socket.name}:80").symlink_to(socket.name)
        return socket

    def _find(self, request: web.Request) -> Served:
        one = self.served.get(request.match_info["id"])
        if one is None:
            raise InvalidRequest("There is no such server.")
        return one

    async def _last_server(self, request: web.Request) -> web.Response:
        wanted = request.match_info["user"], request.query["server_name"]
        found = [one for one in self.served.values() if (one.user, one.server_name) == wanted]
        return web.json_response({"server": found[-1].view() if found else None})

    async def _servers(self, request: web.Request) -> web.Response:
        return web.json_response({"servers": [one.view() for one in self.alive(request.query["user"])]})

    async def _server(self, request: web.Request) -> web.Response:
        return web.json_response(self._find(request).view())

    async def _events(self, request: web.Request) -> web.Response:
        one, after = self._find(request), int(request.query["after"])
        if len(one.events) <= after:
            with suppress(TimeoutError):
                await asyncio.wait_for(one.news.wait(), min(float(request.query["wait_s"]), 1))
        news = one.events[after:]
        return web.json_response({"server": one.view(), "events": news, "next": after + len(news)})

    async def _stop(self, request: web.Request) -> web.Response:
        one = self._find(request)
        one.tell(Phase.ENDED, "Ended", 100)
        return web.json_response(one.view())
