"""Loopback ports for servers that cannot choose one themselves, and whether anybody listens at a socket."""

from __future__ import annotations

import itertools
import os
import socket
from pathlib import Path

# Below those from which Linux takes one for whoever names none (ip_local_port_range): no client and no other
# server gets it before it is used. Each process of a test run begins elsewhere, and comes to each in turn.
_FIRST, _COUNT, _APART = 16_384, 16_384, 251
_numbers = itertools.count(os.getpid() * _APART)


def free_ports(count: int) -> list[int]:
    """Ports where nobody listens, all different."""
    ports = (_FIRST + number % _COUNT for number in _numbers)
    return list(itertools.islice(filter(_is_free, ports), count))


def free_port() -> int:
    """One such port."""
    return free_ports(1)[0]


def listens(path: Path) -> bool:
    """Whether somebody takes connections at a unix socket. Its file is there a moment before."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
