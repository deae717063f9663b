"""The calling side. Errors come out as the classes that they were on the other side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from hpchub.errors import ProcessAway, UnexpectedOutput, from_wire
from hpchub.local_api.tls import TlsPeer, client_context
from hpchub.logs import CORRELATION_HEADER, correlation_id

# Everybody's servers, of which thousands may run, each with an error and the end of its log.
_MAX_ANSWER_BYTES = 16 * 1024**2


async def call(
    where: Path | TlsPeer,
    who: str,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    timeout_s: float,
) -> dict[str, Any]:
    """One call and its answer. Holds no connection afterwards.

    Args:
        where: Where the other process listens: a unix socket, or a host with TLS.
        who: What it is called, for messages: "signer", "bridge".
        method: HTTP's.
        path: From `/v1/` on, quoted.
        body: The JSON body, if there is one.
        timeout_s: For the whole call.

    Raises:
        ProcessAway: Nobody answers, or not in time; over TLS also where one side refuses the other.
        ConfigError: Our own side of TLS cannot be set up.
        UnexpectedOutput: What answers is none of ours.
        HpchubError: Whatever the other side raised.
    """
    headers = {CORRELATION_HEADER: correlation_id()} if correlation_id() else {}
    start, connector = _way_to(where, who)
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector, timeout=aiohttp.ClientTimeout(total=timeout_s)
            ) as session,
            session.request(method, f"{start}{path}", json=body, headers=headers) as response,
        ):
            status = response.status
            raw = await _read(response)
    except TimeoutError as error:
        raise ProcessAway(
            f"The hub's {who} did not answer within {timeout_s:.0f} s.", "Try again in a minute."
        ) from error
    except (aiohttp.ClientError, OSError) as error:
        raise ProcessAway(
            f"The hub's {who} does not answer on {where}.",
            f"Tell the site's staff: is `hpchub {who}` running?",
        ) from error
    return _parse_answer(who, status, raw)


def _way_to(where: Path | TlsPeer, who: str) -> tuple[str, aiohttp.BaseConnector]:
    """The URL's start, and what connects. Certificates are read anew each time: they are renewed often."""
    if isinstance(where, TlsPeer):
        host = f"[{where.host}]" if ":" in where.host else where.host
        return f"https://{host}:{where.port}", aiohttp.TCPConnector(ssl=client_context(where))
    return f"http://{who}", aiohttp.UnixConnector(str(where))


async def _read(response: aiohttp.ClientResponse) -> bytes:
    chunks = bytearray()
    async for chunk in response.content.iter_any():
        chunks += chunk
        if len(chunks) > _MAX_ANSWER_BYTES:
            break
    return bytes(chunks)


def _parse_answer(who: str, status: int, raw: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(raw)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        # The answer itself may hold a secret, so it is not shown.
        raise UnexpectedOutput(f"the {who}", f"HTTP status {status}, no JSON object")
    if status != 200:
        raise from_wire(answer)
    return answer
