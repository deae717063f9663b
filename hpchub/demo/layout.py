"""Where a demo keeps its things."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parent
ETC = PACKAGE / "etc"
SCRIPTS = PACKAGE / "scripts"
CHECKOUT = PACKAGE.parents[1]


def cache_folder() -> Path:
    """What one demo leaves for the next: environments and an empty accounting database."""
    if (CHECKOUT / "pyproject.toml").is_file():
        return CHECKOUT / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hpchub"


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths inside one demo's state folder."""

    dir: Path

    @property
    def info(self) -> Path:
        """What tests and people need to know, mode 0600."""
        return self.dir / "info.json"

    @property
    def ready(self) -> Path:
        """There once the demo has said its last word before going quiet."""
        return self.dir / "ready"

    @property
    def processes(self) -> Path:
        """Every process that was started, with its start time."""
        return self.dir / "processes.json"

    @property
    def lock(self) -> Path:
        """Held by the supervisor while it lives."""
        return self.dir / "lock"

    @property
    def added(self) -> Path:
        """What `--loopback` added to this machine."""
        return self.dir / "added.json"

    @property
    def logs(self) -> Path:
        """One log for each process. They stay after the demo."""
        return self.dir / "logs"

    @property
    def etc(self) -> Path:
        """Files laid over the cluster's /etc."""
        return self.dir / "etc"

    @property
    def home(self) -> Path:
        """The cluster's shared /home."""
        return self.dir / "home"

    @property
    def magics(self) -> Path:
        """slurm_magics, as the cluster's hosts see it in /opt."""
        return self.dir / "slurm_magics"

    @property
    def mysql(self) -> Path:
        """MariaDB's data."""
        return self.dir / "mysql"

    @property
    def own(self) -> Path:
        """Where the private mount namespace mounts its own tmpfs; empty as the machine sees it."""
        return self.dir / "own"

    @property
    def hub(self) -> Path:
        """Settings, keys and databases of the hub side."""
        return self.dir / "hub"

    @property
    def clusters(self) -> Path:
        """The folder of cluster files."""
        return self.dir / "clusters.d"

    @property
    def scripts(self) -> Path:
        """What the hosts run to become hosts."""
        return self.etc / "hpchub"

    @property
    def sockets(self) -> Path:
        """A link to the hub side's folder of sockets in /tmp: their paths must be short."""
        return self.dir / "sockets"

    @property
    def run_files(self) -> tuple[Path, ...]:
        """All that goes when the demo ends."""
        return (
            self.ready,
            self.info,
            self.etc,
            self.home,
            self.magics,
            self.mysql,
            self.own,
            self.hub,
            self.clusters,
        )
