"""Which address a request came from, told by those proxies alone that the site trusts."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from tornado.httputil import HTTPServerRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNKNOWN = "unknown"


def client_address(peer: str, forwarded: str, trusted: Sequence[Network]) -> str:
    """The address nearest to the browser that a trusted proxy names; the peer's own where none does.

    Each proxy appends the address that it saw to `X-Forwarded-For`. So it is read from its end, as long
    as whoever wrote an entry is trusted; what stands before that, anybody may have sent.

    Args:
        peer: The address that connected to us; empty for a unix socket, which only our own proxy reaches.
        forwarded: The header, all of it.
        trusted: The networks of the site's proxies.
    """
    told = peer
    entries = [entry.strip() for entry in forwarded.split(",") if entry.strip()]
    while entries and (not told or _is_trusted(told, trusted)):
        entry = _parse(entries.pop())
        if entry is None:  # a proxy's "unknown", or worse: nobody further can be told
            break
        told = str(entry)
    return told


def peer_address(request: HTTPServerRequest) -> str:
    """The address that connected to us; empty for a unix socket, `unknown` where it has left already.

    tornado's `remote_ip` will not do: it believes `X-Real-Ip` and `X-Forwarded-For`, whoever sent them.
    """
    connection: socket.socket | None = request.connection.stream.socket  # type: ignore[union-attr]
    if connection is None:
        return UNKNOWN
    if connection.family == socket.AF_UNIX:
        return ""
    try:
        return str(_parse(connection.getpeername()[0]) or UNKNOWN)
    except OSError:  # ENOTCONN
        return UNKNOWN


def _is_trusted(address: str, trusted: Sequence[Network]) -> bool:
    parsed = _parse(address)
    return parsed is not None and any(parsed in network for network in trusted)


def _parse(text: str) -> Address | None:
    """An address, also with a port behind it or in brackets; IPv4 in IPv6's clothes is IPv4."""
    host = text.strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
