"""The part of the signer's API that is about people's own terminals."""

from __future__ import annotations

from aiohttp import web

from hpchub.core.secret import Secret
from hpchub.errors import InvalidRequest
from hpchub.local_api.server import read_object
from hpchub.signer.batch_route import minted_body
from hpchub.signer.terminals import Terminals

_MAX_FIELD_LENGTH = 8192


def terminal_routes(terminals: Terminals) -> list[web.RouteDef]:
    """For the bridge, which asks for certificates, and the hub, which brings what a terminal has signed."""

    async def mint(request: web.Request) -> web.Response:
        body = await _texts(request, "grant", "login_key", "signature", "public_key", "source")
        minted = await terminals.mint(
            Secret(body["grant"]),
            login_key=body["login_key"],
            signature=body["signature"],
            public_key=body["public_key"],
            source=body["source"],
        )
        return web.json_response(minted_body(minted))

    async def holder(request: web.Request) -> web.Response:
        body = await _texts(request, "public_key", "purpose", "challenge", "signature")
        held = await terminals.vouch(**body)
        return web.json_response({"username": held.account, "expires_at": held.ceiling})

    async def log_out(request: web.Request) -> web.Response:
        await terminals.log_out(**await _texts(request, "public_key", "challenge", "signature"))
        return web.json_response({})

    return [
        web.post("/v1/terminals", mint),
        web.post("/v1/terminals/holder", holder),
        web.post("/v1/terminals/logout", log_out),
    ]


async def _texts(request: web.Request, *names: str) -> dict[str, str]:
    body = await read_object(request, dict.fromkeys(names, str))
    if any(len(value) > _MAX_FIELD_LENGTH for value in body.values()):
        raise InvalidRequest(f"No field may be longer than {_MAX_FIELD_LENGTH} characters.")
    return body
