"""`hpchub check`: what is wrong in cluster files, where, and the nearest valid key."""

from __future__ import annotations

import argparse
from fnmatch import fnmatchcase
from pathlib import Path

from hpchub.core.cluster import Cluster, LoginNode
from hpchub.core.cluster_file import load_cluster, load_clusters
from hpchub.errors import ConfigError

_DEFAULT_PORT = 22


def configure(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "paths", nargs="*", type=Path, default=[Path("clusters.d")], help="cluster files or folders of them"
    )


def run(args: argparse.Namespace) -> int:
    """Print one line for each good cluster; ConfigError carries the faults of a bad one."""
    for path in args.paths:
        clusters = load_clusters(path) if path.is_dir() else {path.stem: load_cluster(path)}
        problems = [problem for cluster in clusters.values() for problem in host_key_problems(cluster)]
        if problems:
            raise ConfigError("The hub could not log in anywhere:", problems=problems)
        for cluster in clusters.values():
            print(f"{cluster.name}: good. {_summary(cluster)}")
    return 0


def host_key_problems(cluster: Cluster) -> list[str]:
    """One line for each login node whose host key could not be verified.

    Names are compared as sshd(8), SSH_KNOWN_HOSTS FILE FORMAT, has them. A file with hashed names
    cannot be judged and passes.
    """
    try:
        lines = cluster.known_hosts.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return [f"{cluster.name}: known_hosts: {cluster.known_hosts} cannot be read: {error}"]
    fields = [line.split() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    hosts = [row[1] if row[0] == "@cert-authority" and len(row) > 1 else row[0] for row in fields]
    # OpenSSH's patterns know * and ?; a bracket is a bracket, which fnmatch must be told.
    patterns = [pattern.replace("[", "[[]") for host in hosts for pattern in host.split(",")]
    if any(pattern.startswith("|") for pattern in patterns):
        return []
    return [
        f"{cluster.name}: {cluster.known_hosts} holds no host key of {node.name} ({node.address})"
        for node in cluster.login_nodes
        if not any(fnmatchcase(name, pattern) for name in _names(node) for pattern in patterns)
    ]


def _names(node: LoginNode) -> list[str]:
    """As known_hosts writes them: with brackets and the port where that is not 22."""
    plain = [node.name, node.address]
    return plain if node.port == _DEFAULT_PORT else [*plain, *(f"[{name}]:{node.port}" for name in plain)]


def _summary(cluster: Cluster) -> str:
    return ", ".join(
        (
            f"login nodes: {', '.join(node.name for node in cluster.login_nodes)}",
            f"placements: {', '.join(cluster.placements)}",
            f"partitions: {', '.join(cluster.partitions) or 'none'}",
            f"environments: {', '.join(cluster.environments)}",
        )
    )
