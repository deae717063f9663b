"""Reads what is asked of the signer. What cannot be read is an attempt too, and recorded."""

from __future__ import annotations

from collections.abc import Collection

from aiohttp import web

from hpchub.audit import Event
from hpchub.errors import InvalidRequest
from hpchub.local_api.server import read_object
from hpchub.signer.authority import Authority

MAX_FIELD_LENGTH = 8192


async def read_recorded(
    request: web.Request,
    names: Collection[str],
    authority: Authority,
    event: Event,
    *,
    optional: Collection[str] = (),
    longest: int = MAX_FIELD_LENGTH,
) -> dict[str, str]:
    """The body's fields, each a text of at most `longest` characters; those in `optional` may be missing.

    Raises:
        InvalidRequest: It is something else; `event` is recorded as refused.
        SiteError: That could not be recorded.
    """
    try:
        body: dict[str, str] = await read_object(request, dict.fromkeys(names, str), optional=optional)
        if any(len(value) > longest for value in body.values()):
            raise InvalidRequest(f"No field may be longer than {longest} characters.")
    except InvalidRequest as error:
        await authority.record_unreadable(event, error)
        raise
    return body
