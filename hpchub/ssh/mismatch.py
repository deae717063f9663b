"""Remembers hosts that showed a key nobody knows, so that waiting servers do not knock there again and again.

A wrong key may be an attacker's. Such a host is not spoken to before somebody has changed the known_hosts
file, or before some minutes have passed, since it may be the host's own key that was put right.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpchub.errors import HostKeyMismatch

_REST_S = 300.0


class Mismatches:
    """By known_hosts file and host."""

    def __init__(self) -> None:
        self._seen: dict[tuple[Path, str], tuple[float, int, HostKeyMismatch]] = {}

    @contextmanager
    def strictly(self, known_hosts: Path, host: str) -> Iterator[None]:
        """Around a handshake.

        Raises:
            HostKeyMismatch: The host showed a wrong key not long ago, or does so now.
        """
        changed = known_hosts.stat().st_mtime_ns if known_hosts.exists() else 0
        until, as_of, error = self._seen.get((known_hosts, host), (0.0, 0, None))
        if error is not None and time.monotonic() < until and as_of == changed:
            raise HostKeyMismatch(error.message, error.hint)
        try:
            yield
        except HostKeyMismatch as mismatch:
            self._seen[known_hosts, host] = (time.monotonic() + _REST_S, changed, mismatch)
            raise
        self._seen.pop((known_hosts, host), None)
