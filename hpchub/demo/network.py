"""Two networks: the cluster's fabric, and the edge where the hub meets the login nodes.

All of it is inside the hosts' own network namespaces: the bridges too. Nobody forwards, so the hub
and the compute nodes cannot reach each other.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from hpchub.demo.hosts import Host
from hpchub.demo.site import CLUSTER_HOSTS, CONTROLLER, HUB, Site
from hpchub.errors import SiteError


def connect(hosts: Mapping[str, Host], site: Site) -> None:
    """Join the hosts. The fabric's bridge is on the controller, the edge's in the hub's namespace."""
    _star(hosts, CONTROLLER, "fabric", site.fabric)
    _star(hosts, HUB, "edge", site.edge)
    for name in (*CLUSTER_HOSTS, HUB):
        _ip(hosts[name], ["link set lo up"])


def _star(hosts: Mapping[str, Host], middle: str, network: str, addresses: Mapping[str, str]) -> None:
    """One bridge named after the network in the middle host, and a wire to each other host."""
    lines = [
        f"link add name {network} type bridge stp_state 0 forward_delay 0",
        f"addr add {addresses[middle]}/24 dev {network}",
        f"link set {network} up",
    ]
    others = [name for name in addresses if name != middle]
    for name in others:
        lines += [
            f"link add name {name} type veth peer name {network} netns {hosts[name].pid}",
            f"link set {name} master {network} up",
        ]
    _ip(hosts[middle], lines)
    for name in others:
        _ip(hosts[name], [f"addr add {addresses[name]}/24 dev {network}", f"link set {network} up"])


def _ip(host: Host, lines: list[str]) -> None:
    # Only the network namespace is entered: `netns PID` below means a process of the machine.
    done = subprocess.run(
        ["nsenter", f"--net=/proc/{host.pid}/ns/net", "--", "ip", "-batch", "-"],
        input="\n".join(lines), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SiteError(f"The network of {host.name} could not be made: {done.stderr.strip()}")
