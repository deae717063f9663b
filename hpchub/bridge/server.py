"""The bridge's API: HTTP with JSON over a unix socket. docs/reference/processes.md lists the calls."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from hpchub.bridge.service import Service
from hpchub.bridge.store import ServerRecord
from hpchub.core.secret import Secret
from hpchub.errors import InvalidRequest
from hpchub.local_api.metrics import metrics_handler
from hpchub.local_api.server import admit_accounts, make_app, read_object, readiness

# An environment of a few hundred variables; anything near this is no notebook's.
_LARGEST_BODY = 1024**2
_LONGEST_WAIT_S = 30.0


def make_bridge_app(service: Service) -> web.Application:
    """The application that answers for a service."""
    api = _Api(service)
    app = make_app(_LARGEST_BODY, admit_accounts(service.settings.hub_uids))
    app.middlewares.append(_once_up(service))
    app.add_routes(
        [
            web.get("/v1/health", api.health),
            web.get("/v1/ready", api.ready),
            web.get("/v1/metrics", metrics_handler(service.metrics.registry)),
            web.get("/v1/connections", api.connections),
            web.post("/v1/keys", api.new_key),
            web.put("/v1/sessions/{user}", api.open_session),
            web.get("/v1/sessions/{user}", api.session),
            web.delete("/v1/sessions/{user}", api.close_session),
            web.post("/v1/sessions/{user}/terminals", api.terminal),
            web.get("/v1/users/{user}/associations", api.associations),
            web.post("/v1/users/{user}/slurm-tokens", api.slurm_token),
            web.get("/v1/users/{user}/last-server", api.last_server),
            web.post("/v1/servers", api.start),
            web.get("/v1/servers", api.servers),
            web.get("/v1/servers/{id}", api.server),
            web.get("/v1/servers/{id}/events", api.events),
            web.delete("/v1/servers/{id}", api.stop),
            web.get("/v1/endings", api.endings),
        ]
    )
    return app


class _Api:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def health(self, _request: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def ready(self, _request: web.Request) -> web.Response:
        return readiness("bridge", await self._service.missing())

    async def connections(self, _request: web.Request) -> web.Response:
        rows = [asdict(one) for one in self._service.connections()]
        return web.json_response({"connections": rows, "tunnels": self._service.tunnels()})

    async def new_key(self, request: web.Request) -> web.Response:
        source = (await read_object(request, {"source": str}))["source"]
        key_id, public_key = self._service.sessions.new_key(source)
        return web.json_response({"key_id": key_id, "public_key": public_key})

    async def open_session(self, request: web.Request) -> web.Response:
        body = await read_object(request, {"key_id": str, "grant": str})
        expires_at = await self._service.open_session(
            request.match_info["user"], body["key_id"], Secret(body["grant"])
        )
        return web.json_response({"expires_at": expires_at})

    async def session(self, request: web.Request) -> web.Response:
        expires_at = self._service.sessions.expires_at(request.match_info["user"])
        return web.json_response({"expires_at": expires_at})

    async def close_session(self, request: web.Request) -> web.Response:
        await self._service.close_session(request.match_info["user"])
        return web.json_response({})

    async def terminal(self, request: web.Request) -> web.Response:
        body = await read_object(request, {"public_key": str, "source": str})
        user = request.match_info["user"]
        made = await self._service.sessions.terminal_certificate(user, body["public_key"], body["source"])
        return web.json_response({"certificate": made.certificate, "valid_before": made.valid_before})

    async def associations(self, request: web.Request) -> web.Response:
        rows = await self._service.associations(request.match_info["user"], request.query.get("cluster", ""))
        return web.json_response({"associations": [asdict(row) for row in rows]})

    async def slurm_token(self, request: web.Request) -> web.Response:
        body = await read_object(request, {"cluster": str, "lifespan_s": int})
        made = await self._service.slurm_token(
            request.match_info["user"], body["cluster"], body["lifespan_s"]
        )
        return web.json_response({"token": made.token.reveal(), "expires_at": made.expires_at})

    async def last_server(self, request: web.Request) -> web.Response:
        name = request.query.get("server_name", "")
        record = await self._service.last(request.match_info["user"], name)
        return web.json_response({"server": None if record is None else self._view(record)})

    async def start(self, request: web.Request) -> web.Response:
        body = await read_object(
            request, {"user": str, "server_name": str, "options": dict, "environ": dict, "base_url": str}
        )
        if not all(isinstance(value, str) for value in body["environ"].values()):
            raise InvalidRequest("environ must map texts to texts.")
        record = await self._service.start(**body)
        return web.json_response(self._view(record))

    async def servers(self, request: web.Request) -> web.Response:
        user = request.query.get("user")
        records = self._service.servers() if user is None else self._service.servers_of(user)
        return web.json_response({"servers": [self._view(record) for record in records]})

    async def server(self, request: web.Request) -> web.Response:
        return web.json_response(self._view(await self._service.find(request.match_info["id"])))

    async def events(self, request: web.Request) -> web.Response:
        after, wait_s = _position(request)
        life = self._service.lives.get(request.match_info["id"])
        if life is None:
            record = await self._service.find(request.match_info["id"])
            return web.json_response({"server": self._view(record), "events": [], "next": after})
        if request.query.get("until") == "settled":
            await life.progress.until_settled(wait_s)
            wait_s = 0.0
        if after > len(life.progress.events):  # counted by a caller whom a bridge before us answered
            after = 0
        events = await life.progress.after(after, wait_s)
        return web.json_response(
            {
                "server": self._view(life.record),
                "events": [event.as_dict() for event in events],
                "next": after + len(events),
            }
        )

    async def endings(self, request: web.Request) -> web.Response:
        after, wait_s = _position(request)
        endings = self._service.endings
        ended, number = await endings.after(request.query.get("bridge", ""), after, wait_s)
        return web.json_response({"bridge": endings.bridge, "ended": ended, "next": number})

    async def stop(self, request: web.Request) -> web.Response:
        return web.json_response(self._view(await self._service.stop(request.match_info["id"])))

    def _view(self, record: ServerRecord) -> dict[str, Any]:
        return self._service.view(record).as_dict()


def _once_up(service: Service) -> Middleware:
    """A bridge that has just restarted knows nobody's session yet: whoever asks waits until it does."""

    @web.middleware
    async def wait(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != "/v1/health":
            await service.up.wait()
        return await handler(request)

    return wait


def _position(request: web.Request) -> tuple[int, float]:
    """From where on somebody asks for news, and how many seconds to wait for some."""
    try:
        after = int(request.query.get("after", "0"))
        wait_s = min(float(request.query.get("wait_s", "0")), _LONGEST_WAIT_S)
    except ValueError as error:
        raise InvalidRequest("after and wait_s must be numbers.") from error
    if after < 0 or not wait_s >= 0:  # so that NaN is refused too
        raise InvalidRequest("after and wait_s must not be negative.")
    return after, wait_s
