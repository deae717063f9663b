"""Login nodes that let a person in, and from which nothing could be done: cut off from the cluster, say."""

from __future__ import annotations

import time
from collections.abc import Callable

# Long enough not to wait for the same node again every minute, short enough for the load to spread again.
LASTS_S = 600.0


class Detours:
    """By person and cluster, the login nodes to try last: a person's word must not move other people."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._avoided: dict[tuple[str, str], dict[str, float]] = {}

    def avoid(self, user: str, cluster: str, node: str) -> None:
        """Something did not answer through this node."""
        self._avoided.setdefault((user, cluster), {})[node] = self._now()

    def since(self, user: str, cluster: str, node: str) -> float:
        """When that was last, on the clock; 0 where it was not, or too long ago to count."""
        nodes = self._avoided.get((user, cluster), {})
        at = nodes.get(node, 0.0)
        if at and self._now() - at > LASTS_S:
            del nodes[node]
            return 0.0
        return at
