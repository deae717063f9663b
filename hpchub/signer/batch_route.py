"""Several certificates in one call: reading and answering a call costs as much as signing.

Each request in it stands for itself: it is checked, refused, signed and recorded as if it had come alone.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiohttp import web

from hpchub.audit import Event
from hpchub.core.secret import Secret
from hpchub.errors import HpchubError, InvalidRequest, SiteError, to_wire
from hpchub.local_api.server import read_object
from hpchub.logs import correlated
from hpchub.signer.authority import Authority
from hpchub.signer.client import LARGEST_BATCH
from hpchub.signer.minting import Minted

_FIELDS = {"grant", "public_key", "profile", "principal", "server_id"}
_LONGEST_FIELD = 8192

_log = logging.getLogger(__name__)


def batch_route(authority: Authority) -> web.RouteDef:
    """`POST /v1/certificate-batches`."""

    async def batch(request: web.Request) -> web.Response:
        try:
            asked = _requests((await read_object(request, {"requests": list}))["requests"])
        except InvalidRequest as error:
            await authority.record_unreadable(Event.CERTIFICATE, error)
            raise
        answers = await asyncio.gather(*(_answer(authority, one) for one in asked))
        return web.json_response({"answers": answers})

    return web.post("/v1/certificate-batches", batch)


def minted_body(minted: Minted) -> dict[str, Any]:
    """The answer to one request."""
    return {
        "certificate": minted.certificate,
        "serial": minted.plan.serial,
        "key_id": minted.plan.key_id,
        "account": minted.plan.account,
        "principal": minted.plan.principal,
        "valid_before": minted.plan.valid_before,
        "expires_at": minted.expires_at,
    }


async def _answer(authority: Authority, asked: dict[str, str]) -> dict[str, Any]:
    with correlated(asked["server_id"]):
        try:
            minted = await authority.minting.mint(
                Secret(asked["grant"]), asked["public_key"], asked["profile"], asked["principal"]
            )
        except HpchubError as error:
            if isinstance(error, SiteError):
                _log.error("api.error path=/v1/certificate-batches", exc_info=error)
            return to_wire(error)
    return minted_body(minted)


def _requests(rows: list[Any]) -> list[dict[str, str]]:
    """The requests. InvalidRequest where there are too many, or one is none."""
    if not 0 < len(rows) <= LARGEST_BATCH:
        raise InvalidRequest(f"Ask for 1 to {LARGEST_BATCH} certificates at once.")
    for row in rows:
        if not isinstance(row, dict) or set(row) != _FIELDS:
            raise InvalidRequest(f"A request must be an object of {', '.join(sorted(_FIELDS))}.")
        if not all(isinstance(value, str) and len(value) <= _LONGEST_FIELD for value in row.values()):
            raise InvalidRequest(f"Each field must be a text of at most {_LONGEST_FIELD} characters.")
    return rows
