"""What differs between the ways to run the one cluster: namespaces, containers, or a single machine.

Everything else is the same: the files in `etc/`, which are rendered with these values, and the
daemons of `slurm.py`.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hpchub.demo.layout import ETC

LOGIN_HOSTS = ("login1", "login2")
COMPUTE_HOSTS = ("c1", "c2")
CONTROLLER = "ctl"
CLUSTER_HOSTS = (CONTROLLER, *LOGIN_HOSTS, *COMPUTE_HOSTS)
HUB = "hub"

_EDGE = {HUB: "10.78.0.1", "login1": "10.78.0.11", "login2": "10.78.0.12"}


def fabric_addresses() -> dict[str, str]:
    """Address by host, as the cluster's own /etc/hosts has it."""
    rows = [line.split() for line in (ETC / "hosts").read_text(encoding="utf-8").splitlines()]
    return {name: address for address, name in rows if name in CLUSTER_HOSTS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Names, addresses and folders of one cluster.

    `edge` is what the hub sees, `fabric` what the cluster's hosts see of each other. On `one_machine`
    all hosts are that machine: daemons keep to loopback and tell each other apart by port. Without a
    `jwt_key` Slurm makes no tokens.
    """

    edge: Mapping[str, str] = field(default_factory=lambda: dict(_EDGE))
    fabric: Mapping[str, str] = field(default_factory=fabric_addresses)
    controller: str = CONTROLLER
    run: str = "/run"
    spool: str = "/var/spool"
    database: str = "/var/lib/mysql"
    munge_key: str = "/etc/munge/munge.key"
    jwt_key: str = ""
    one_machine: bool = False

    @property
    def munge_socket(self) -> str:
        """Where each host's munged listens."""
        return f"{self.run}/munge/munge.socket.2"

    @property
    def mariadb_socket(self) -> str:
        """Where MariaDB listens, on the controller."""
        return f"{self.run}/mysqld/mysqld.sock"

    def render(self, name: str) -> str:
        """One of the cluster's own files in `etc/`, with these values."""
        return render(
            name,
            asdict(self)
            | {
                "munge_socket": self.munge_socket,
                "node_ports": {name: 16818 + number for number, name in enumerate(COMPUTE_HOSTS)},
            },
        )


def render(name: str, values: Mapping[str, object]) -> str:
    """A template of `etc/`, rendered. A file that has no variables comes out as it is."""
    environment = Environment(  # noqa: S701  settings files, not HTML
        loader=FileSystemLoader(ETC), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    return environment.get_template(name).render(values)


def loopback_site(folder: Path) -> Site:
    """All hosts on this machine, each with a loopback address of its own, files under one folder.

    Slurm's daemons listen on the address of the machine's name (CommunicationParameters), which
    `loopback` makes 127.0.0.1.
    """
    fabric = {name: "127." + address.partition(".")[2] for name, address in fabric_addresses().items()}
    return Site(
        edge={HUB: "127.0.0.1"} | {name: fabric[name] for name in LOGIN_HOSTS},
        fabric=fabric,
        controller=socket.gethostname().partition(".")[0],
        run=str(folder / "run"),
        spool=str(folder / "spool"),
        database=str(folder / "mysql"),
        munge_key=str(folder / "munge.key"),
        one_machine=True,
    )
