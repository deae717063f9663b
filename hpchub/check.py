"""`hpchub check`: what is wrong in cluster files, where, and the nearest valid key."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpchub.core.cluster import Cluster
from hpchub.core.cluster_file import load_cluster, load_clusters


def configure(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "paths", nargs="*", type=Path, default=[Path("clusters.d")], help="cluster files or folders of them"
    )


def run(args: argparse.Namespace) -> int:
    """Print one line for each good cluster; ConfigError carries the faults of a bad one."""
    for path in args.paths:
        clusters = load_clusters(path) if path.is_dir() else {path.stem: load_cluster(path)}
        for cluster in clusters.values():
            print(f"{cluster.name}: good. {_summary(cluster)}")
    return 0


def _summary(cluster: Cluster) -> str:
    return ", ".join(
        (
            f"login nodes: {', '.join(node.name for node in cluster.login_nodes)}",
            f"placements: {', '.join(cluster.placements)}",
            f"partitions: {', '.join(cluster.partitions) or 'none'}",
            f"environments: {', '.join(cluster.environments)}",
        )
    )
