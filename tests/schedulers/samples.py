"""Clusters and requests that the scheduler tests share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpchub.core.choices import ServerOptions
from hpchub.core.cluster import (
    Attach,
    Cluster,
    ComputePlacement,
    Container,
    Defaults,
    Environment,
    LoginNode,
    LoginPlacement,
    Partition,
    Placement,
)
from hpchub.core.job import Resources

GIB = 1024**3

ENVIRONMENTS = (
    Environment(name="plain", title="The node's own Python"),
    Environment(name="modules", title="Modules", modules=("python/3.11", "jupyter")),
    Environment(name="venv", title="A virtualenv", prefix="/opt/jupyter"),
    Environment(name="conda", title="A conda environment", conda_root="/opt/conda", conda="jupyter"),
    Environment(
        name="apptainer",
        title="An image",
        modules=("apptainer",),
        container=Container.APPTAINER,
        image="/images/jupyter.sif",
        binds=("/scratch", "/data:/mnt/data"),
    ),
    Environment(
        name="podman",
        title="An image",
        container=Container.PODMAN_HPC,
        image="docker.io/jupyter/base:1",
        binds=("/scratch", "/data:/mnt/data"),
    ),
    Environment(
        name="shifter",
        title="An image",
        container=Container.SHIFTER,
        image="docker:jupyter/base:1",
        binds=("/scratch",),
    ),
)


def make_cluster(
    environments: Sequence[Environment] = ENVIRONMENTS,
    *,
    attach: Attach = Attach.SRUN,
    templates: Path | None = None,
    scheduler: str = "slurm",
    scheduler_cluster: str = "",
    runtime_dir: str = "/tmp",
) -> Cluster:
    """A cluster with both placements."""
    return Cluster(
        name="alpha",
        title="Alpha",
        scheduler=scheduler,
        scheduler_cluster=scheduler_cluster,
        templates=templates,
        login_nodes=(LoginNode(name="login1", address="192.0.2.1"),),
        known_hosts=Path("/etc/hpchub/known_hosts"),
        login=LoginPlacement(runtime_dir=runtime_dir),
        compute=ComputePlacement(attach=attach, runtime_dir=runtime_dir),
        partitions={"cpu": Partition(name="cpu", max_time_s=7200, max_cpus=4, max_memory_bytes=8 * GIB)},
        environments={env.name: env for env in environments},
        defaults=Defaults(placement=Placement.LOGIN, environment=environments[0].name),
    )


def make_options(
    environment: str = "plain", *, placement: Placement = Placement.COMPUTE, **changes: str | int
) -> ServerOptions:
    """One request; `changes` are fields of Resources."""
    asked: dict[str, str | int] = {
        "partition": "cpu",
        "account": "physics",
        "time_s": 5400,
        "cpus": 2,
        "memory_bytes": 3 * GIB // 2,
    }
    resources = Resources(**{**asked, **changes}) if placement is Placement.COMPUTE else None
    return ServerOptions(cluster="alpha", placement=placement, environment=environment, resources=resources)
