"""The part of the signer's API with which people set up and change their second factors."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from aiohttp import web

from hpchub.audit import Event
from hpchub.core.secret import Secret
from hpchub.signer.authority import Authority
from hpchub.signer.certificates import parse_public_key
from hpchub.signer.factor_changes import CHANGE_PURPOSE, Held, login_purpose
from hpchub.signer.proving import Attempt
from hpchub.signer.reading import read_recorded

# An attestation can hold a chain of certificates, though we ask for none.
_LONGEST_FIELD = 16 * 1024


def factor_routes(authority: Authority) -> list[web.RouteDef]:
    """For the hub, which only carries what browsers and signer say to each other."""
    factors = authority.factors

    async def read(request: web.Request, event: Event, *names: str) -> dict[str, str]:
        return await read_recorded(request, names, authority, event, longest=_LONGEST_FIELD)

    async def kinds(_request: web.Request) -> web.Response:
        found = authority.factor_kinds
        return web.json_response({"asked": bool(found), "kinds": found})

    async def challenges(request: web.Request) -> web.Response:
        body = await read(request, Event.FACTOR_CHANGE, "username", "public_key")
        key = body["public_key"]
        purpose = login_purpose(parse_public_key(key).fingerprint) if key else CHANGE_PURPOSE
        return _options(await factors.challenge(body["username"], purpose))

    async def tickets(request: web.Request) -> web.Response:
        body = await read(request, Event.FACTOR_CHANGE, "username", "password", "code", "source")
        attempt = Attempt(
            username=body["username"],
            password=Secret(body["password"]),
            code=Secret(body["code"]),
            source=body["source"],
        )
        return web.json_response({"ticket": (await authority.ticket(attempt)).reveal()})

    async def held(request: web.Request) -> web.Response:
        return _held(
            await factors.held(Secret((await read(request, Event.FACTOR_CHANGE, "ticket"))["ticket"]))
        )

    async def key_offers(request: web.Request) -> web.Response:
        return _options(
            await factors.offer_key(Secret((await read(request, Event.ENROLMENT, "ticket"))["ticket"]))
        )

    async def keys(request: web.Request) -> web.Response:
        body = await read(request, Event.ENROLMENT, "ticket", "name", "attestation", "source")
        ticket, attestation = Secret(body["ticket"]), Secret(body["attestation"])
        enrolled = await factors.add_key(ticket, body["name"], attestation, body["source"])
        return _codes(enrolled.account, enrolled.recovery_codes)

    async def removals(request: web.Request) -> web.Response:
        body = await read(request, Event.FACTOR_REMOVAL, "ticket", "what", "source")
        return _held(await factors.remove(Secret(body["ticket"]), body["what"], body["source"]))

    async def recovery_codes(request: web.Request) -> web.Response:
        body = await read(request, Event.ENROLMENT, "ticket", "source")
        renewed = await factors.renew_codes(Secret(body["ticket"]), body["source"])
        return _codes(renewed.account, renewed.recovery_codes)

    start = "/v1/second-factor"
    return [
        web.get(start, kinds),
        web.post(f"{start}/challenges", challenges),
        web.post(f"{start}/tickets", tickets),
        web.post(f"{start}/held", held),
        web.post(f"{start}/key-offers", key_offers),
        web.post(f"{start}/keys", keys),
        web.post(f"{start}/removals", removals),
        web.post(f"{start}/recovery-codes", recovery_codes),
    ]


def _options(options: dict[str, Any]) -> web.Response:
    """As text: what is in it is between the signer and the browser."""
    return web.json_response({"options": json.dumps(options)})


def _held(held: Held) -> web.Response:
    return web.json_response(
        {
            "username": held.account,
            "kinds": list(held.kinds),
            "has_app": held.has_app,
            "keys": [asdict(key) for key in held.keys],
            "codes_left": held.codes_left,
        }
    )


def _codes(account: str, codes: tuple[Secret, ...]) -> web.Response:
    return web.json_response({"username": account, "recovery_codes": [code.reveal() for code in codes]})
