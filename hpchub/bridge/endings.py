"""Which servers have ended, in order: whoever listens learns of each at once, and asks about no other."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import deque

# A listener that was away longer than this many ends misses some, and finds them when it asks again.
_KEPT = 10_000


class Endings:
    """Counts from the start of this process, whose `bridge` tells it from the one before."""

    def __init__(self) -> None:
        self.bridge = secrets.token_hex(8)
        self._ids: deque[str] = deque(maxlen=_KEPT)
        self._count = 0
        self._news = asyncio.Event()

    def note(self, server_id: str) -> None:
        """A server has ended."""
        self._ids.append(server_id)
        self._count += 1
        self._news.set()
        self._news = asyncio.Event()

    async def after(self, bridge: str, number: int, wait_s: float) -> tuple[list[str], int]:
        """Ids beyond the first `number`, and the number to ask from next time; waits for one.

        Args:
            bridge: Whose count `number` is; another process's counts for nothing.
            number: How many are known.
            wait_s: How long to wait, in seconds.
        """
        known = number if bridge == self.bridge and number <= self._count else 0
        if known == self._count:
            try:
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
            except TimeoutError:
                return [], self._count
        forgotten = self._count - len(self._ids)
        return list(itertools.islice(self._ids, max(0, known - forgotten), None)), self._count
