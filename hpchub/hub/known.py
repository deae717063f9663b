"""What the form and the checks need to know: the cluster files, and what a person may charge."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from hpchub.bridge.client import BridgeClient
from hpchub.core.choices import ServerOptions, choose
from hpchub.core.cluster import Cluster, Placement
from hpchub.core.cluster_file import load_clusters
from hpchub.core.job import Association
from hpchub.errors import AccountProblem, HostUnreachable, HpchubError

# A form that waits longer is shown without accounts.
_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Known:
    """By cluster: what a person may charge, or why nobody could say."""

    associations: Mapping[str, list[Association]] = field(default_factory=dict)
    problems: Mapping[str, HpchubError] = field(default_factory=dict)


def clusters_in(folder: Path) -> dict[str, Cluster]:
    """Every cluster file of a folder, read again once one of them has changed. ConfigError if wrong."""
    stats = [(path.name, path.stat()) for path in sorted(folder.glob("*.toml"))]
    return dict(_load(folder, tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)))


@lru_cache(maxsize=4)
def _load(folder: Path, _versions: tuple[tuple[str, int, int], ...]) -> Mapping[str, Cluster]:
    return load_clusters(folder)


async def ask(bridge: BridgeClient, user: str, clusters: Mapping[str, Cluster]) -> Known:
    """What a person may charge on each cluster that has a scheduler to ask, all asked at once."""
    names = [name for name, cluster in clusters.items() if cluster.compute]
    answers = await asyncio.gather(*(_ask_one(bridge, user, name) for name in names))
    by_name = dict(zip(names, answers, strict=True))
    return Known(
        {name: answer for name, answer in by_name.items() if isinstance(answer, list)},
        {name: answer for name, answer in by_name.items() if isinstance(answer, HpchubError)},
    )


async def _ask_one(bridge: BridgeClient, user: str, cluster: str) -> list[Association] | HpchubError:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await bridge.associations(user, cluster)
    except HpchubError as error:
        return error
    except TimeoutError:
        return HostUnreachable(f"{cluster} did not answer within {_PATIENCE_S:.0f} seconds.", "Try again.")


async def check(
    bridge: BridgeClient, user: str, clusters: Mapping[str, Cluster], options: Mapping[str, object]
) -> ServerOptions:
    """Options with the defaults filled in, checked against the limits and the person's accounts.

    Where the accounts cannot be asked for they are not checked: the bridge checks once more.

    Raises:
        InvalidRequest: Some field is refused; `fields` says which and why.
        AccountProblem: A job is asked for, and the person may charge nothing on that cluster.
    """
    asked: dict[str, list[Association]] = {}
    problem: HpchubError | None = None
    name = options.get("cluster") or next(iter(clusters), "")
    cluster = clusters.get(name) if isinstance(name, str) else None
    if cluster is not None and _wants_job(cluster, options):
        answer = await _ask_one(bridge, user, cluster.name)
        if isinstance(answer, HpchubError):
            problem = answer
        else:
            asked[cluster.name] = answer
    chosen = choose(clusters, options, asked)
    if isinstance(problem, AccountProblem):
        raise problem
    return chosen


def _wants_job(cluster: Cluster, options: Mapping[str, object]) -> bool:
    placement = options.get("placement") or cluster.defaults.placement
    return cluster.compute is not None and placement == Placement.COMPUTE
