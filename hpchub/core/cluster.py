"""A cluster as its file describes it: where it is, how to get in, what it offers.

Every component reads these values and nothing else about the site. `cluster_file.py` makes them
from `clusters.d/<name>.toml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Placement(StrEnum):
    """Where a notebook server runs."""

    LOGIN = "login"
    COMPUTE = "compute"


class Attach(StrEnum):
    """The way from a login node into a job on a compute node.

    `srun`: an unprivileged `sshd -i` as a step of the job, so the node needs neither service nor
    port. `ssh`: the node's own sshd. `tcp`: a plain forward to a port, for sites that prefer it.
    """

    SRUN = "srun"
    SSH = "ssh"
    TCP = "tcp"


class Container(StrEnum):
    """The programs that run a notebook inside a container image."""

    APPTAINER = "apptainer"
    PODMAN_HPC = "podman-hpc"
    SHIFTER = "shifter"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginNode:
    """A login node: the name people know, and the address sshd answers on."""

    name: str
    address: str
    port: int = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A partition and the most that one notebook may ask of it. Seconds and bytes."""

    name: str
    title: str = ""
    max_time_s: int
    max_cpus: int
    max_memory_bytes: int
    max_gpus: int = 0
    gpu_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What a notebook runs in. Modules are loaded first, then one of the three, or none.

    `prefix`: a virtualenv or conda environment by its folder. `conda`: a conda environment
    activated by `conda_root`'s own script. `image`: a container image, run by `container`.
    """

    name: str
    title: str
    description: str = ""
    modules: tuple[str, ...] = ()
    prefix: str = ""
    conda_root: str = ""
    conda: str = ""
    container: Container | None = None
    image: str = ""
    binds: tuple[str, ...] = ()
    placements: tuple[Placement, ...] = (Placement.LOGIN, Placement.COMPUTE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginPlacement:
    """Servers on login nodes. `runtime_dir` is local to the node and holds their sockets."""

    runtime_dir: str = "/tmp"  # noqa: S108  each server makes a 0700 folder in it, and the bridge checks its owner


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputePlacement:
    """Servers in jobs. `sshd` is its path on compute nodes; `port` belongs to attach `ssh`.

    Before its job's time is up a server warns, `warn_before_s` seconds ahead, and where `successor`
    is set it offers to start another one.
    """

    attach: Attach = Attach.SRUN
    runtime_dir: str = "/tmp"  # noqa: S108  as above
    sshd: str = "/usr/sbin/sshd"
    port: int = 22
    warn_before_s: tuple[int, ...] = (900, 300)
    successor: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What an option takes when it is left out. An empty account is the scheduler's default."""

    placement: Placement
    environment: str
    partition: str = ""
    account: str = ""
    time_s: int = 3600
    cpus: int = 1
    memory_bytes: int = 1024**3
    gpus: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """One `clusters.d/<name>.toml`, checked. `login` or `compute` is None where not offered."""

    name: str
    title: str
    scheduler: str
    scheduler_cluster: str = ""
    templates: Path | None = None
    login_nodes: tuple[LoginNode, ...]
    known_hosts: Path
    login: LoginPlacement | None
    compute: ComputePlacement | None
    partitions: Mapping[str, Partition] = field(default_factory=dict)
    environments: Mapping[str, Environment]
    defaults: Defaults

    @property
    def placements(self) -> tuple[Placement, ...]:
        """What the cluster offers, in the order of the form."""
        offered = []
        if self.login:
            offered.append(Placement.LOGIN)
        if self.compute:
            offered.append(Placement.COMPUTE)
        return tuple(offered)

    def runtime_dir(self, placement: Placement) -> str:
        """The node-local folder that holds a server's own folder."""
        home = self.login if placement is Placement.LOGIN else self.compute
        if home is None:
            raise ValueError(f"cluster {self.name} offers no placement {placement}")
        return home.runtime_dir

    def server_runtime_dir(self, placement: Placement, server_id: str) -> str:
        """A server's own folder on its node. Half of the id is unguessable enough, and a path to a
        kernel's socket in it must fit into 107 bytes (unix(7)).
        """
        return f"{self.runtime_dir(placement).rstrip('/')}/hpchub-{server_id[:16]}"
