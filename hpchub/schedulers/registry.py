"""Which scheduler a cluster has: one line for each backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hpchub.core.cluster import Cluster
from hpchub.errors import ConfigError
from hpchub.schedulers.base import Scheduler
from hpchub.schedulers.slurm import Slurm

BACKENDS: Mapping[str, Callable[[Cluster], Scheduler]] = {
    "slurm": lambda cluster: Slurm(cluster=cluster.scheduler_cluster),
}


def scheduler_for(cluster: Cluster) -> Scheduler:
    """The backend that the cluster file names, bound to the cluster's options.

    Raises:
        ConfigError: There is no such backend.
    """
    backend = BACKENDS.get(cluster.scheduler)
    if backend is None:
        raise ConfigError(
            f"Cluster {cluster.name} names the scheduler {cluster.scheduler!r}, which hpchub does not know.",
            f"Write one of {', '.join(BACKENDS)}.",
        )
    return backend(cluster)
