"""OpenSSH on the login nodes, trusting one certificate authority; on compute nodes only for attach `ssh`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpchub.core.cluster import Attach
from hpchub.demo.hosts import COMPUTE_HOSTS, LOGIN_HOSTS, Host, run_on, wait_until
from hpchub.demo.layout import ETC, Layout
from hpchub.demo.network import EDGE, fabric_addresses
from hpchub.demo.processes import Processes

_HOST_KEYS = "ssh/hpchub"


def hosts_with_sshd(attach: Attach) -> tuple[str, ...]:
    """Where an sshd service runs."""
    return (*LOGIN_HOSTS, *COMPUTE_HOSTS) if attach is Attach.SSH else LOGIN_HOSTS


def make_key(path: Path, comment: str) -> str:
    """Make an ed25519 key pair; its public line."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)],
        stdin=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    return path.with_name(path.name + ".pub").read_text(encoding="ascii").strip()


def lay_out_sshd(layout: Layout, names: Sequence[str]) -> str:
    """Write sshd's files in the cluster's /etc; the hub's known_hosts, one line for each host.

    A login node is known by its edge address, a compute node by the fabric's, both by name too.
    """
    folder = layout.etc / _HOST_KEYS
    folder.mkdir(parents=True, mode=0o700)
    shutil.copy(ETC / "sshd_config", layout.etc / "ssh" / "sshd_config")
    addresses = {**fabric_addresses(), **EDGE}
    lines = []
    for name in names:
        kind, key = make_key(folder / name, name).split()[:2]
        lines.append(f"{name},{addresses[name]} {kind} {key}")
    return "\n".join(lines) + "\n"


def start_sshd(hosts: Mapping[str, Host], processes: Processes, names: Sequence[str], ca_line: str) -> None:
    """Have the cluster trust a certificate authority, start sshd on each host, wait for its port."""
    run_on(hosts[names[0]], ["sh", "-c", "cat >/etc/ssh/hpchub_ca.pub"], stdin=ca_line + "\n")
    for name in names:
        argv = ["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/sshd_config", "-h", f"/etc/{_HOST_KEYS}/{name}"]
        processes.start(f"sshd-{name}", hosts[name].enter(argv), follows=True)
    for name in names:
        wait_until(hosts[name], ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/22"], processes, f"sshd-{name}")
