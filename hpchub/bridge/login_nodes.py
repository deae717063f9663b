"""Which login node a new server goes to: healthy before failed, idle before busy, empty before full.

A node's load comes with the answer of the command that every start runs there, so it costs nothing to
know. It is told through a person's own shell, who could lie: at worst servers are spread unevenly.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hpchub.core.cluster import Cluster

# The one-minute average of a while ago says nothing of now; a node nobody knows is worth a try.
_LOAD_KEPT_S = 300.0

# Loads within half a CPU's worth for each CPU count as equal, so that servers decide and not noise.
_LOAD_STEP = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What is known of a login node: hpchub's servers there, load by CPU, whether it failed lately."""

    servers: int = 0
    load: float | None = None
    rests: bool = False


def rank(nodes: Sequence[str], facts: Mapping[str, NodeFacts]) -> list[str]:
    """The nodes, best first; equals stay in the order given."""

    def key(node: str) -> tuple[bool, int, int]:
        known = facts.get(node, NodeFacts())
        return known.rests, int((known.load or 0.0) / _LOAD_STEP), known.servers

    return sorted(nodes, key=key)


def parse_load(text: str) -> float | None:
    """Load by CPU from `LOADAVG NPROC`; None where that is not what it says."""
    try:
        load, cpus = (float(word) for word in text.split())
    except ValueError:
        return None
    return load / cpus if cpus >= 1 and 0 <= load < math.inf else None


class LoginNodes:
    """Remembers loads, and puts the nodes of a cluster in order."""

    def __init__(
        self,
        servers_on: Callable[[str], Mapping[str, int]],
        rests: Callable[[str, str], bool],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`servers_on` counts a cluster's servers by login node, `rests` says whether one failed lately."""
        self._servers_on = servers_on
        self._rests = rests
        self._now = now
        self._loads: dict[tuple[str, str], tuple[float, float]] = {}

    def note(self, cluster: str, node: str, load: float | None) -> None:
        """Remember a load by CPU, if there is one."""
        if load is not None:
            self._loads[cluster, node] = (self._now(), load)

    def order(self, cluster: Cluster, user: str) -> list[str]:
        """The login nodes to try for a new server; among equals each person has a node of their own."""
        names = [node.name for node in cluster.login_nodes]
        start = zlib.crc32(user.encode()) % len(names)
        servers = self._servers_on(cluster.name)
        facts = {
            name: NodeFacts(
                servers=servers.get(name, 0),
                load=self._load(cluster.name, name),
                rests=self._rests(cluster.name, name),
            )
            for name in names
        }
        return rank(names[start:] + names[:start], facts)

    def _load(self, cluster: str, node: str) -> float | None:
        at, load = self._loads.get((cluster, node), (-math.inf, 0.0))
        return load if self._now() - at < _LOAD_KEPT_S else None
