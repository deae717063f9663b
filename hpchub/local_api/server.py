"""The serving side: a private socket, only those who may call, and every error in one shape."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from hpchub.errors import (
    ConfigError,
    HpchubError,
    InvalidRequest,
    NotAllowed,
    RemoteError,
    SiteError,
    to_wire,
)
from hpchub.local_api.sockets import BACKLOG, listen_privately, peer_uid
from hpchub.local_api.tls import TlsListen, server_context
from hpchub.logs import CORRELATION_HEADER, correlated

_log = logging.getLogger(__name__)

_SHUTDOWN_S = 5.0
_MAX_BODY_BYTES = web.AppKey("max_body_bytes", int)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def admit_accounts(uids: frozenset[int]) -> Callable[[web.Request], None]:
    """A function that lets root, our own account and these call; it raises NotAllowed for others.

    The folder's mode is the first lock, this is the second.
    """

    def admit(request: web.Request) -> None:
        connection = request.get_extra_info("socket")
        if connection is None:  # the peer has left
            raise NotAllowed("Who calls cannot be told.")
        uid = peer_uid(connection)
        if uid not in uids | {0, os.geteuid()}:
            _log.warning("api.stranger uid=%d path=%s", uid, request.path)
            raise NotAllowed("Only the hub's own account may call this.")

    return admit


def make_app(max_body_bytes: int, admit: Callable[[web.Request], None]) -> web.Application:
    """An application without routes yet, that answers errors as `hpchub.errors.to_wire` has them.

    Args:
        max_body_bytes: The longest body.
        admit: Returns where a request may be answered, and raises otherwise.
    """

    @web.middleware
    async def admitted(request: web.Request, handler: Handler) -> web.StreamResponse:
        admit(request)
        return await handler(request)

    app = web.Application(middlewares=[_correlated, _answer_errors, admitted], client_max_size=max_body_bytes)
    app[_MAX_BODY_BYTES] = max_body_bytes
    return app


@asynccontextmanager
async def listening(
    app: web.Application, path: Path, *, group: int | None = None, remote: TlsListen | None = None
) -> AsyncIterator[None]:
    """The application, answering at `path` while the context lasts.

    Args:
        app: Says itself whom it answers.
        path: The socket's.
        group: Whose members can reach the socket too.
        remote: Where it answers over TLS besides.

    Raises:
        ConfigError: The socket's folder is not private, or somebody listens there already.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S, handle_signals=False)
    try:
        await runner.setup()
        listener = listen_privately(path, group)
        inode = _inode(path)
        try:
            await web.SockSite(runner, listener, backlog=BACKLOG).start()
            _log.info("api.listening socket=%s", path)
            if remote is not None:
                await _listen_remotely(runner, remote)
            yield
        finally:
            _remove_own(path, inode)
    finally:
        await runner.cleanup()
        _log.info("api.closed socket=%s", path)


def readiness(who: str, missing: Mapping[str, str]) -> web.Response:
    """The answer to `GET /v1/ready`: 200, or 503 with what is missing, by name, and why."""
    if not missing:
        return web.json_response({"ready": True, "missing": {}})
    told = " ".join(f"{name}: {why}" for name, why in missing.items())
    error = RemoteError(f"The {who} is not ready. {told}")
    body = {**to_wire(error), "ready": False, "missing": dict(missing)}
    return web.json_response(body, status=error.status)


async def read_object(
    request: web.Request, kinds: Mapping[str, type], optional: Collection[str] = ()
) -> dict[str, Any]:
    """The body: a JSON object of exactly these keys, each of its kind; those in `optional` may be missing.

    Raises:
        InvalidRequest: It is not. The message repeats nothing of the body, which may hold secrets.
    """
    try:
        raw = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise InvalidRequest(f"The body is longer than {request.app[_MAX_BODY_BYTES]} bytes.") from error
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise InvalidRequest("The body is not JSON.") from None  # the cause quotes the body
    if not isinstance(body, dict) or not set(kinds) - set(optional) <= set(body) <= set(kinds):
        raise InvalidRequest(f"The body must be an object of {', '.join(kinds)}.")
    refused = {
        name: f"Give a {kind.__name__}."
        for name, kind in kinds.items()
        if name in body and not isinstance(body[name], kind)
    }
    if refused:
        raise InvalidRequest(f"These are of another kind: {', '.join(refused)}.", fields=refused)
    return body


@web.middleware
async def _correlated(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What the caller does for a server, we do for that server: our log and audit name it too."""
    with correlated(request.headers.get(CORRELATION_HEADER, "")):
        return await handler(request)


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except HpchubError as error:
        if isinstance(error, SiteError):
            _log.error("api.error path=%s", request.path, exc_info=error)
        return web.json_response(to_wire(error), status=error.status)
    except web.HTTPException as error:
        refusal = InvalidRequest(f"There is no {request.method} {request.path}.")
        return web.json_response(to_wire(refusal), status=error.status)
    except Exception as error:
        _log.exception("api.unforeseen path=%s", request.path)
        fault = SiteError("A part of the hub met a fault of its own.", "Tell the site's staff.")
        fault.__cause__ = error
        return web.json_response(to_wire(fault), status=fault.status)


async def _listen_remotely(runner: web.AppRunner, remote: TlsListen) -> None:
    site = web.TCPSite(runner, remote.host, remote.port, ssl_context=server_context(remote), backlog=BACKLOG)
    try:
        await site.start()
    except OSError as error:
        raise ConfigError(f"Nothing can listen on {remote.host}:{remote.port}: {error}.") from error
    _log.info("api.listening host=%s port=%d", remote.host, remote.port)


def _remove_own(path: Path, inode: int) -> None:
    """Remove our socket, but not that of a successor."""
    try:
        if _inode(path) == inode:
            path.unlink()
    except FileNotFoundError:
        _log.warning("api.socket_vanished socket=%s", path)


def _inode(path: Path) -> int:
    return path.stat().st_ino
