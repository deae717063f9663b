"""What is known of each login node: how many log in there now, and whether and why it failed lately.

From this comes the order in which login nodes are tried. Nothing here connects; wrong host keys are
remembered in `mismatch.py`.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from hpchub.core.cluster import Cluster, LoginNode
from hpchub.errors import HostKeyMismatch, HostUnreachable, InvalidRequest
from hpchub.ssh.failures import reason
from hpchub.ssh.limits import Limits


@dataclass(slots=True)
class _Node:
    """Whom a login node lets in at once, and until when it is tried last.

    `failed_at` is monotonic, and 0 where the newest attempt went well; `why` it did not.
    """

    handshakes: asyncio.Semaphore
    resting_until: float = 0.0
    failed_at: float = 0.0
    why: str = ""


class NodeHealth:
    """Of the login nodes of all clusters."""

    def __init__(self, clusters: Mapping[str, Cluster], limits: Limits) -> None:
        self._clusters = clusters
        self._limits = limits
        self._nodes: dict[tuple[str, str], _Node] = {}

    def in_order(self, user: str, cluster: str, node: str = "") -> list[LoginNode]:
        """Login nodes in the order to try: the user's own choice first, failed ones last.

        Raises:
            InvalidRequest: There is no such cluster, or it has no login node of this name.
        """
        known = self._clusters.get(cluster)
        if known is None:
            raise InvalidRequest(f"There is no cluster named {cluster!r}.")
        nodes = list(known.login_nodes)
        if node:
            named = [one for one in nodes if one.name == node]
            if not named:
                raise InvalidRequest(f"{cluster} has no login node named {node!r}.")
            return named
        start = zlib.crc32(user.encode()) % len(nodes)
        turned = nodes[start:] + nodes[:start]
        return sorted(turned, key=lambda one: self.rests(cluster, one.name))

    def count(self, cluster: str) -> int:
        """How many login nodes a cluster has."""
        return len(self._clusters[cluster].login_nodes)

    def rests(self, cluster: str, node: str) -> bool:
        """Whether a login node failed lately, and is to be tried last."""
        return self._node(cluster, node).resting_until > time.monotonic()

    def unreachable(self, cluster: str, within_s: float) -> dict[str, str]:
        """Login nodes whose newest attempt failed within the last `within_s` seconds, and why it did."""
        since = time.monotonic() - within_s
        names = [node.name for node in self._clusters[cluster].login_nodes]
        states = {name: self._nodes[cluster, name] for name in names if (cluster, name) in self._nodes}
        return {name: state.why for name, state in states.items() if state.failed_at > max(0.0, since)}

    def turn(self, cluster: str, node: str) -> asyncio.Semaphore:
        """To be held during a handshake, so that a node has no more at once than sshd takes."""
        return self._node(cluster, node).handshakes

    @contextmanager
    def noted(self, cluster: str, node: str) -> Iterator[None]:
        """Around an attempt to connect, its retries included: how it ended is remembered.

        A node that showed a wrong host key has failed, but does not rest: `mismatch.py` keeps us away.
        """
        state = self._node(cluster, node)
        try:
            yield
        except (HostKeyMismatch, HostUnreachable) as error:
            state.failed_at, state.why = time.monotonic(), reason(error)
            if isinstance(error, HostUnreachable):
                state.resting_until = state.failed_at + self._limits.node_rest_s
            raise
        state.resting_until = state.failed_at = 0.0

    def _node(self, cluster: str, name: str) -> _Node:
        return self._nodes.setdefault(
            (cluster, name), _Node(asyncio.Semaphore(self._limits.handshakes_per_node))
        )
