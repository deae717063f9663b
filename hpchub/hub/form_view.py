"""What the form shows, as plain values: pure, so that it is tested without a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpchub.core.choices import OPTION_NAMES, accounts_for
from hpchub.core.cluster import Cluster, Partition, Placement
from hpchub.core.units import render_memory, render_time
from hpchub.errors import AccountProblem, NotAllowed
from hpchub.hub.known import Known

# What hpchub.core.choices allows at least; shown only, for `choose` has the last word.
_LEAST_MEMORY = 64 * 1024**2

_PLACEMENTS = {
    Placement.LOGIN: ("Login node", "Starts at once, on a machine shared with everybody who is logged in."),
    Placement.COMPUTE: ("Compute node", "In a batch job of your own, as soon as the scheduler finds room."),
}


def view_of(
    clusters: Mapping[str, Cluster],
    known: Known,
    values: Mapping[str, object],
    refused: Mapping[str, str],
) -> dict[str, Any]:
    """The template's variables: what is offered, what is chosen, what was refused, and the limits."""
    shown = _shown(clusters, known, values)
    return {
        "clusters": [{"name": name, "title": cluster.title} for name, cluster in clusters.items()],
        "placements": _placements(clusters, known),
        "partitions": _partitions(clusters),
        "environments": _environments(clusters),
        "accounts": _accounts(clusters, known),
        "accounts_known": all(name in known.associations for name, c in clusters.items() if c.compute),
        "default_account": _default_account(clusters, known),
        "values": shown,
        "refused": dict(refused),
        "unknown": [f"{name[:40]!r}: {why}" for name, why in refused.items() if name not in OPTION_NAMES],
        "limits": _limits(clusters),
        "largest": _largest(clusters),
        "at_first": _limits_of(_partition(clusters, shown)),
    }


def notices(clusters: Mapping[str, Cluster], known: Known) -> list[str]:
    """What the person should know before choosing: what could not be asked, and what still works."""
    if any(isinstance(problem, NotAllowed) for problem in known.problems.values()):
        return ["Your session on the clusters has ended. Log out and in again before you start a server."]
    lines = []
    for name, problem in known.problems.items():
        rest = "Login nodes still work." if clusters[name].login else ""
        told = str(problem)
        if not isinstance(problem, AccountProblem):
            told = f"Your accounts on {clusters[name].title} could not be asked for. {told}"
            rest = ""
        lines.append(f"{told} {rest}".strip())
    return lines


def _shown(clusters: Mapping[str, Cluster], known: Known, values: Mapping[str, object]) -> dict[str, str]:
    """A text for each option: what was typed or chosen before, else the cluster's default."""
    given = {name: str(value) for name, value in values.items() if isinstance(value, str | int)}
    shown = dict.fromkeys(OPTION_NAMES, "")
    first = next(iter(clusters), "")
    cluster = clusters.get(given.get("cluster", first), clusters[first])
    defaults = cluster.defaults
    barred = isinstance(known.problems.get(cluster.name), AccountProblem)
    placement = Placement.LOGIN if barred and cluster.login else defaults.placement
    shown |= {
        "cluster": cluster.name,
        "placement": placement.value,
        "partition": defaults.partition,
        "environment": defaults.environment,
    }
    partition = cluster.partitions.get(given.get("partition", defaults.partition))
    if partition is not None:
        shown |= {
            "time": render_time(min(defaults.time_s, partition.max_time_s)),
            "cpus": str(min(defaults.cpus, partition.max_cpus)),
            "memory": render_memory(min(defaults.memory_bytes, partition.max_memory_bytes)),
            "gpus": str(min(defaults.gpus, partition.max_gpus)),
        }
    return shown | given


def _placements(clusters: Mapping[str, Cluster], known: Known) -> list[dict[str, Any]]:
    rows = []
    for placement, (title, text) in _PLACEMENTS.items():
        offering = [name for name, cluster in clusters.items() if placement in cluster.placements]
        barred = placement is Placement.COMPUTE and all(
            isinstance(known.problems.get(name), AccountProblem) for name in offering
        )
        if offering:
            rows.append(
                {
                    "value": placement.value,
                    "title": title,
                    "text": " ".join((text, *_caps([clusters[name] for name in offering], placement))),
                    "clusters": offering,
                    "barred": barred,
                }
            )
    return rows


def _caps(clusters: Sequence[Cluster], placement: Placement) -> list[str]:
    """What one person may have there, where all clusters that offer the placement agree."""
    said = []
    if placement is Placement.LOGIN:
        limits = [cluster.login.limits for cluster in clusters if cluster.login]
        if cpus := _agreed([limit.cpus for limit in limits]):
            said.append(f"Up to {cpus} CPUs.")
        if memory := _agreed([limit.memory_bytes for limit in limits]):
            said.append(f"Up to {render_memory(memory)} of memory.")
    if most := _agreed([cluster.home(placement).caps.servers_per_user for cluster in clusters]):
        said.append(f"At most {most} of your servers at once.")
    return said


def _agreed(values: Sequence[int]) -> int:
    """The one value of all; 0 where they differ, or there is none."""
    return values[0] if len(set(values)) == 1 else 0


def _partitions(clusters: Mapping[str, Cluster]) -> list[dict[str, Any]]:
    return [
        {
            "name": partition.name,
            "cluster": cluster.name,
            "title": _titled(partition.title, partition.name),
            "summary": _summary(partition),
        }
        for cluster in clusters.values()
        for partition in cluster.partitions.values()
    ]


def _environments(clusters: Mapping[str, Cluster]) -> list[dict[str, Any]]:
    return [
        {
            "name": environment.name,
            "cluster": cluster.name,
            "title": environment.title,
            "description": environment.description,
            "placements": [placement.value for placement in environment.placements],
        }
        for cluster in clusters.values()
        for environment in cluster.environments.values()
    ]


def _accounts(clusters: Mapping[str, Cluster], known: Known) -> list[dict[str, Any]]:
    """One row for each account, with the partitions it may be charged on."""
    rows: dict[tuple[str, str], list[str]] = {}
    for name, associations in known.associations.items():
        for partition in clusters[name].partitions:
            for account in accounts_for(associations, partition):
                rows.setdefault((name, account), []).append(partition)
    return [
        {"cluster": cluster, "name": account, "partitions": partitions}
        for (cluster, account), partitions in rows.items()
    ]


def _default_account(clusters: Mapping[str, Cluster], known: Known) -> str:
    """The account that is charged where none is chosen; empty where clusters differ or none can say."""
    names = set()
    for name, associations in known.associations.items():
        marked = [association.account for association in associations if association.is_default]
        names.add(clusters[name].defaults.account or next(iter(marked), ""))
    return names.pop() if len(names) == 1 else ""


def _limits(clusters: Mapping[str, Cluster]) -> dict[str, dict[str, dict[str, Any]]]:
    return {
        cluster.name: {partition.name: _limits_of(partition) for partition in cluster.partitions.values()}
        for cluster in clusters.values()
    }


def _limits_of(partition: Partition | None) -> dict[str, Any]:
    if partition is None:
        return {}
    return {
        "partition": partition.name,
        "time": render_time(partition.max_time_s),
        "cpus": partition.max_cpus,
        "least_memory": render_memory(min(_LEAST_MEMORY, partition.max_memory_bytes)),
        "memory": render_memory(partition.max_memory_bytes),
        "gpus": partition.max_gpus,
        "gpu_type": partition.gpu_type,
    }


def _largest(clusters: Mapping[str, Cluster]) -> dict[str, int]:
    """The highest number that any partition allows: all that a form without JavaScript can bound."""
    partitions = [partition for cluster in clusters.values() for partition in cluster.partitions.values()]
    return {
        "cpus": max((partition.max_cpus for partition in partitions), default=1),
        "gpus": max((partition.max_gpus for partition in partitions), default=0),
    }


def _partition(clusters: Mapping[str, Cluster], shown: Mapping[str, str]) -> Partition | None:
    cluster = clusters.get(shown["cluster"])
    return cluster.partitions.get(shown["partition"]) if cluster else None


def _titled(title: str, name: str) -> str:
    return name if title in {"", name} else f"{title} ({name})"


def _summary(partition: Partition) -> str:
    parts: Sequence[str] = (
        f"Up to {render_time(partition.max_time_s)}",
        f"{partition.max_cpus} CPUs",
        render_memory(partition.max_memory_bytes),
        f"{partition.max_gpus} GPUs" if partition.max_gpus else "",
    )
    return ", ".join(part for part in parts if part)
