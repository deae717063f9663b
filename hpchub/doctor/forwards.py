"""What tunnels to a cluster's login nodes carry, and the options that permit it and no more. Pure.

sshd holds the path of a unix socket to `permitopen` as well, knows no patterns there, and each server's path
is new: so a login node that carries sockets can have no `permitopen`. `permitlisten` counts for ports only.
Seen with OpenSSH 9.2 (channels.c, channel_connect_to_path); a test asks the sshd that is installed.
"""

from __future__ import annotations

from enum import StrEnum

from hpchub.core.cluster import Attach, Cluster

NO_PORT = "none:1"  # sshd has no word for it; `none` is a host that nobody asks for


class Forwards(StrEnum):
    """The least that serves all that a cluster offers."""

    SOCKETS = "unix sockets"
    NODES = "port 22 of compute nodes"
    PORTS = "ports of compute nodes"
    NOTHING = "nothing"


def forwards_of(cluster: Cluster | None) -> Forwards:
    """What a cluster's tunnels carry; the most where the cluster is not known."""
    if cluster is None or cluster.login is not None or cluster.compute is None:
        return Forwards.SOCKETS
    ways = {Attach.SRUN: Forwards.NOTHING, Attach.SSH: Forwards.NODES, Attach.TCP: Forwards.PORTS}
    return ways[cluster.compute.attach]


def principals_line(principal: str, address: str, forwards: Forwards) -> str:
    """The line that the strict level wants in a person's file of principals."""
    options = [f'from="{address}"', "restrict"]
    if forwards is not Forwards.NOTHING:
        options.append("port-forwarding")
        if forwards is Forwards.NODES:
            options.append('permitopen="*:22"')
        options.append(f'permitlisten="{NO_PORT}"')
    return f"{','.join(options)} {principal}"
