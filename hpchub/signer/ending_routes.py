"""The part of the signer's API that is about ends: what the bridge asks and tells, and what staff do."""

from __future__ import annotations

import base64
import time
from dataclasses import asdict
from typing import Any

from aiohttp import web

from hpchub.core.secret import Secret
from hpchub.core.terminal import is_terminal
from hpchub.errors import InvalidRequest
from hpchub.local_api.server import read_object
from hpchub.signer.ending import Ending
from hpchub.signer.ledger import Ledger

_LONGEST_TARGET = 8192  # an RSA key's line
_LONGEST_TEXT = 256


def bridge_routes(ending: Ending, ledger: Ledger) -> list[web.RouteDef]:
    """For whoever holds connections. None of them can give anything back that was taken."""

    async def log_out(request: web.Request) -> web.Response:
        body = await read_object(request, {"grant": str})
        await ending.log_out(Secret(body["grant"]))
        return web.json_response({})

    async def ends(request: web.Request) -> web.Response:
        try:
            after = max(0, int(request.query.get("after", "0")))
        except ValueError as error:
            raise InvalidRequest("after must be a number.") from error
        rows, newest = ledger.ends(min(after, 2**62))
        return web.json_response(
            {"ends": [{"fingerprint": key, "why": why} for key, why in rows], "next": newest}
        )

    async def disconnected(request: web.Request) -> web.Response:
        body = await read_object(request, {"user": str, "why": str, "connections": int})
        await ending.disconnected(body["user"], body["why"], body["connections"])
        return web.json_response({})

    async def krl(_request: web.Request) -> web.Response:
        return web.json_response({"krl": base64.b64encode(ending.ends.krl()).decode("ascii")})

    return [
        web.post("/v1/logout", log_out),
        web.get("/v1/ends", ends),
        web.post("/v1/disconnected", disconnected),
        web.get("/v1/krl", krl),
    ]


def staff_routes(ending: Ending, ledger: Ledger) -> list[web.RouteDef]:
    """For staff on the signer's own machine; not for a hub or bridge elsewhere."""

    async def revoke(request: web.Request) -> web.Response:
        body = await read_object(request, {"target": str, "reason": str, "by": str})
        _check_lengths(body)
        taken = await ending.revoke(body["target"], reason=body["reason"], by=body["by"])
        return web.json_response(
            {
                "account": taken.account,
                "logins": len(taken.grants),
                "terminals": sum(is_terminal(made.grant_id) for made in taken.certificates),
                "serials": [made.serial for made in taken.certificates],
                "valid_before": max((made.valid_before for made in taken.certificates), default=0),
                "has_krl_file": ending.ends.has_file,
                "krl_error": taken.krl_error,
            }
        )

    async def undo(request: web.Request) -> web.Response:
        body = await read_object(request, {"target": str, "reason": str, "by": str})
        _check_lengths(body)
        await ending.undo(body["target"], reason=body["reason"], by=body["by"])
        return web.json_response({})

    async def sessions(_request: web.Request) -> web.Response:
        now = int(time.time())
        in_krl = set(ledger.revoked(now).get("serial", ()))
        certificates: dict[str, list[dict[str, Any]]] = {}
        queries = []
        for made in ledger.certificates(now):
            row = {"serial": made.serial, "profile": made.profile, "valid_before": made.valid_before}
            if made.grant_id:
                certificates.setdefault(made.grant_id, []).append(row)
            elif made.serial not in in_krl:
                queries.append({"account": made.account, **row})
        rows = [
            {**asdict(grant), "certificates": certificates.get(grant.grant_id, [])}
            for grant in ledger.grants(now)
        ]
        return web.json_response({"sessions": rows, "service_accounts": queries, "revoked": ledger.blocked()})

    return [
        web.post("/v1/revocations", revoke),
        web.post("/v1/revocations/undo", undo),
        web.get("/v1/sessions", sessions),
    ]


def _check_lengths(body: dict[str, str]) -> None:
    if len(body["target"]) > _LONGEST_TARGET or max(len(body["reason"]), len(body["by"])) > _LONGEST_TEXT:
        raise InvalidRequest("A part of the request is too long.")
