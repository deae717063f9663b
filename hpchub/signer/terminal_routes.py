"""The part of the signer's API that is about people's own terminals."""

from __future__ import annotations

from aiohttp import web

from hpchub.audit import Event
from hpchub.core.secret import Secret
from hpchub.signer.authority import Authority
from hpchub.signer.batch_route import minted_body
from hpchub.signer.reading import read_recorded
from hpchub.signer.terminals import Terminals


def terminal_routes(terminals: Terminals, authority: Authority) -> list[web.RouteDef]:
    """For the bridge, which asks for certificates, and the hub, which brings what a terminal has signed."""

    async def mint(request: web.Request) -> web.Response:
        names = ("grant", "login_key", "signature", "public_key", "source")
        body = await read_recorded(request, names, authority, Event.CERTIFICATE)
        minted = await terminals.mint(
            Secret(body["grant"]),
            login_key=body["login_key"],
            signature=body["signature"],
            public_key=body["public_key"],
            source=body["source"],
        )
        return web.json_response(minted_body(minted))

    async def holder(request: web.Request) -> web.Response:
        names = ("public_key", "purpose", "hub", "challenge", "signature")
        body = await read_recorded(request, names, authority, Event.TERMINAL_PROOF)
        held = await terminals.vouch(**body)
        return web.json_response({"username": held.account, "expires_at": held.ceiling})

    async def log_out(request: web.Request) -> web.Response:
        names = ("public_key", "hub", "challenge", "signature")
        await terminals.log_out(**await read_recorded(request, names, authority, Event.LOGOUT))
        return web.json_response({})

    return [
        web.post("/v1/terminals", mint),
        web.post("/v1/terminals/holder", holder),
        web.post("/v1/terminals/logout", log_out),
    ]
