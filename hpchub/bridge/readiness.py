"""Whether the bridge could start a server now, and what there is of everything."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence

from hpchub.bridge.metrics import Census
from hpchub.bridge.store import ServerRecord, Store
from hpchub.core.server import ConnectionView
from hpchub.errors import HpchubError
from hpchub.signer.client import SignerClient
from hpchub.ssh.pool import Pool

# A failure older than this says nothing: nobody has tried the node since.
_LATELY_S = 600.0


async def missing_parts(
    store: Store, signer: SignerClient, pool: Pool, clusters: Sequence[str]
) -> dict[str, str]:
    """What is missing, by name, and why: the store, the signer, or all login nodes of a cluster.

    No cluster is called for this: a login node counts as reachable unless the newest attempt failed.
    """
    missing: dict[str, str] = {}
    try:
        await asyncio.to_thread(store.check)
    except HpchubError as error:
        missing["store"] = error.message
    try:
        await signer.health()
    except HpchubError as error:
        missing["signer"] = error.message
    for name in clusters:
        failed = pool.unreachable(name, _LATELY_S)
        if len(failed) == pool.login_nodes(name):
            told = "; ".join(f"{node}: {why}" for node, why in failed.items())
            missing[f"cluster {name}"] = f"No login node could be reached lately ({told})."
    return missing


def take_census(
    clusters: Iterable[str],
    servers: Sequence[ServerRecord],
    tunnels: Sequence[str],
    connections: Sequence[ConnectionView],
    logins: int,
) -> Census:
    """Counts of what there is. `tunnels` are ids of servers.

    A cluster without a tunnel counts 0, so that an alert can tell it from one that is not there.
    """
    open_tunnels = set(tunnels)
    tunnels_by_cluster = Counter({(name,): 0 for name in clusters})
    tunnels_by_cluster.update((one.cluster,) for one in servers if one.id in open_tunnels)
    sessions: Counter[tuple[str, str, str]] = Counter()
    for one in connections:
        sessions[one.cluster, one.node, one.use] += one.sessions
    return Census(
        servers=Counter(
            (one.cluster, str(one.options.get("placement", "")), one.phase.value) for one in servers
        ),
        tunnels=tunnels_by_cluster,
        connections=Counter((one.cluster, one.node, one.use) for one in connections),
        sessions=sessions,
        logins=logins,
    )
