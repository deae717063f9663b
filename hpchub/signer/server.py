"""The signer's API: HTTP with JSON bodies on a unix socket (docs/reference/processes.md)."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from hpchub.audit import AuditLog, Event
from hpchub.core.secret import Secret
from hpchub.errors import HpchubError, InvalidRequest, NotAllowed, SiteError, to_wire
from hpchub.signer.authority import Authority
from hpchub.signer.keys import Keys, load_keys, render_ca_public_key
from hpchub.signer.password_file import PasswordFileProof, load_password_file
from hpchub.signer.proofs import PamProof, Proof
from hpchub.signer.settings import ProofSettings, SignerSettings
from hpchub.signer.sockets import listen_privately, peer_uid

_log = logging.getLogger(__name__)

_MAX_BODY_BYTES = 32 * 1024
_MAX_FIELD_LENGTH = 8192
_SHUTDOWN_S = 5.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def serve(settings: SignerSettings) -> None:
    """Serve until SIGTERM or SIGINT. ConfigError where keys, folders or settings will not do."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with running(settings):
        await ended.wait()


@asynccontextmanager
async def running(settings: SignerSettings) -> AsyncIterator[None]:
    """The signer, listening while the context lasts."""
    keys = load_keys(settings.state_dir)
    audit = AuditLog(settings.audit_log)
    audit.check()
    authority = Authority(keys, settings.policy, make_proof(settings.proof), audit)
    runner = web.AppRunner(
        make_app(keys, authority), access_log=None, shutdown_timeout=_SHUTDOWN_S, handle_signals=False
    )
    try:
        await runner.setup()
        listener = listen_privately(settings.socket)
        inode = settings.socket.stat().st_ino
        try:
            await web.SockSite(runner, listener).start()
            _log.info("signer.started socket=%s", settings.socket)
            yield
        finally:
            _remove_own(settings.socket, inode)
    finally:
        await runner.cleanup()
        authority.close()
        _log.info("signer.stopped")


def make_proof(settings: ProofSettings) -> Proof:
    """The proof that the settings name. ConfigError where it cannot work."""
    if settings.file is None:
        return PamProof(settings.service)
    load_password_file(settings.file)
    return PasswordFileProof(settings.file)


def make_app(keys: Keys, authority: Authority) -> web.Application:
    """The API's routes."""
    ca = {"public_key": render_ca_public_key(keys.ca)}

    async def health(_request: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def ca_public_key(_request: web.Request) -> web.Response:
        return web.json_response(ca)

    async def grants(request: web.Request) -> web.Response:
        names = ("username", "password", "public_key", "source")
        body = await _read_recorded(request, names, authority, Event.LOGIN)
        login = await authority.log_in(
            body["username"], Secret(body["password"]), body["public_key"], body["source"]
        )
        return web.json_response(
            {
                "username": login.grant.account,
                "grant": login.token.reveal(),
                "expires_at": login.grant.ceiling,
            }
        )

    async def certificates(request: web.Request) -> web.Response:
        names = ("grant", "public_key", "profile")
        body = await _read_recorded(request, names, authority, Event.CERTIFICATE)
        minted = await authority.mint(Secret(body["grant"]), body["public_key"], body["profile"])
        return web.json_response(
            {
                "certificate": minted.certificate,
                "serial": minted.plan.serial,
                "key_id": minted.plan.key_id,
                "valid_before": minted.plan.valid_before,
                "expires_at": minted.expires_at,
            }
        )

    app = web.Application(middlewares=[_answer_errors, _only_own], client_max_size=_MAX_BODY_BYTES)
    app.router.add_get("/v1/health", health)
    app.router.add_get("/v1/ca", ca_public_key)
    app.router.add_post("/v1/grants", grants)
    app.router.add_post("/v1/certificates", certificates)
    return app


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error in the one shape of our unix sockets."""
    try:
        return await handler(request)
    except HpchubError as error:
        if isinstance(error, SiteError):
            _log.error("signer.error path=%s", request.path, exc_info=error)
        return web.json_response(to_wire(error), status=error.status)
    except web.HTTPException as error:
        refusal = InvalidRequest(f"The signer has no {request.method} {request.path}.")
        return web.json_response(to_wire(refusal), status=error.status)
    except Exception as error:
        _log.exception("signer.unforeseen path=%s", request.path)
        fault = SiteError("The signer met a fault of its own.", "Tell the site's staff.")
        fault.__cause__ = error
        return web.json_response(to_wire(fault), status=fault.status)


@web.middleware
async def _only_own(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Only root and our own account. The folder's mode says so already; this is the second lock."""
    connection = request.get_extra_info("socket")
    if connection is None:  # the peer has left
        raise NotAllowed("Who calls cannot be told.")
    uid = peer_uid(connection)
    if uid not in {0, os.geteuid()}:
        _log.warning("signer.stranger uid=%d path=%s", uid, request.path)
        raise NotAllowed("Only the hub's own account may call the signer.")
    return await handler(request)


async def _read_recorded(
    request: web.Request, names: tuple[str, ...], authority: Authority, event: Event
) -> dict[str, str]:
    """The body's fields. An attempt that cannot be read is recorded too."""
    try:
        return _parse_body(await _read_body(request), names)
    except InvalidRequest as error:
        await authority.record_unreadable(event, error)
        raise


async def _read_body(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise InvalidRequest(f"The body is longer than {_MAX_BODY_BYTES} bytes.") from error


def _parse_body(raw: bytes, names: tuple[str, ...]) -> dict[str, str]:
    """A JSON object of exactly these fields, each a text. Messages repeat nothing of the body."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise InvalidRequest("The body is not JSON.") from None  # the cause quotes the body
    if not isinstance(body, dict) or set(body) != set(names):
        raise InvalidRequest(f"The body must be an object of {', '.join(names)}.")
    refused = {name: "Give a text." for name in names if not _is_text(body[name])}
    if refused:
        raise InvalidRequest(f"These must be texts: {', '.join(refused)}.", fields=refused)
    return body


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_FIELD_LENGTH


def _remove_own(path: Path, inode: int) -> None:
    """Remove our socket, but not that of a successor."""
    try:
        if path.stat().st_ino == inode:
            path.unlink()
    except FileNotFoundError:
        _log.warning("signer.socket_vanished socket=%s", path)
