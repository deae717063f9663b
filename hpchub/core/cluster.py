"""A cluster as its file describes it: where it is, how to get in, what it offers.

Every component reads these values and nothing else about the site. `cluster_file.py` makes them
from `clusters.d/<name>.toml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

# A start takes some 0.3 s of connecting and submitting, so eight at once let through what one JupyterHub
# can start at most (26 to 35 a second), with twice the handshakes that one login node takes at a time.
STARTS_AT_ONCE = 8


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
class Caps:
    """The most servers at once, of everybody together and of one person. 0 is no cap."""

    servers: int = 0
    servers_per_user: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginLimits:
    """What one server on a login node may take; 0 is no limit. `nice` is niceness, as nice(1) has it."""

    memory_bytes: int = 0
    cpus: int = 0
    processes: int = 0
    nice: int = 0

    @property
    def are_set(self) -> bool:
        """Whether there is any."""
        return any((self.memory_bytes, self.cpus, self.processes, self.nice))


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginPlacement:
    """Servers on login nodes. `runtime_dir` is local to the node and holds their sockets.

    `idle_time_s`, `max_age_s`: when a server is stopped that does nothing, or in any case; 0 is never.
    """

    runtime_dir: str = "/tmp"  # noqa: S108  each server makes a 0700 folder in it, and the bridge checks its owner
    caps: Caps = Caps()
    limits: LoginLimits = LoginLimits()
    idle_time_s: int = 0
    max_age_s: int = 0


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
    caps: Caps = Caps()
    idle_time_s: int = 0
    max_age_s: int = 0
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
    """One `clusters.d/<name>.toml`, checked. `login` or `compute` is None where not offered.

    `status_account` asks about everybody's jobs; where it is empty, each person asks about their own.
    `principal` is the form of the principals that its sshd expects; where it is empty, the signer's first.
    `proxy_jump` is the host through which people's own machines reach the login nodes, as ssh_config(5)
    has it; the hub does not use it.
    """

    name: str
    title: str
    scheduler: str
    scheduler_cluster: str = ""
    status_account: str = ""
    principal: str = ""
    templates: Path | None = None
    login_nodes: tuple[LoginNode, ...]
    proxy_jump: str = ""
    known_hosts: Path
    login: LoginPlacement | None
    compute: ComputePlacement | None
    partitions: Mapping[str, Partition] = field(default_factory=dict)
    environments: Mapping[str, Environment]
    defaults: Defaults
    caps: Caps = Caps()
    starts_at_once: int = STARTS_AT_ONCE

    @property
    def placements(self) -> tuple[Placement, ...]:
        """What the cluster offers, in the order of the form."""
        offered = []
        if self.login:
            offered.append(Placement.LOGIN)
        if self.compute:
            offered.append(Placement.COMPUTE)
        return tuple(offered)

    def home(self, placement: Placement) -> LoginPlacement | ComputePlacement:
        """What the file says of a placement that is offered."""
        home = self.login if placement is Placement.LOGIN else self.compute
        if home is None:
            raise ValueError(f"cluster {self.name} offers no placement {placement}")
        return home

    def runtime_dir(self, placement: Placement) -> str:
        """The node-local folder that holds a server's own folder."""
        return self.home(placement).runtime_dir

    def server_runtime_dir(self, placement: Placement, server_id: str) -> str:
        """A server's own folder on its node. Half of the id is unguessable enough, and a path to a
        kernel's socket in it must fit into 107 bytes (unix(7)).
        """
        return f"{self.runtime_dir(placement).rstrip('/')}/hpchub-{server_id[:16]}"
