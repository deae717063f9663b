"""Login nodes that let a person in, and from which nothing could be done: cut off from the cluster, say."""

from __future__ import annotations

import time
from collections.abc import Callable

# Long enough not to wait for the same node again every minute, short enough for the load to spread again.
LASTS_S = 600.0


class Detours:
    """By person and cluster, the login node to try last. A newer one takes its place."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._avoided: dict[tuple[str, str], tuple[str, float]] = {}

    def avoid(self, user: str, cluster: str, node: str) -> None:
        """Something did not answer through this node."""
        self._avoided[user, cluster] = (node, self._now())

    def node(self, user: str, cluster: str) -> str:
        """The node to try last; empty where there is none, or none any more."""
        node, since = self._avoided.get((user, cluster), ("", 0.0))
        if node and self._now() - since > LASTS_S:
            del self._avoided[user, cluster]
            return ""
        return node
