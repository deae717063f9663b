"""OpenSSH on the login nodes, trusting one certificate authority; on compute nodes only for attach `ssh`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpchub.core.cluster import Attach
from hpchub.demo.hosts import Host, run_on
from hpchub.demo.layout import ETC, Layout
from hpchub.demo.processes import Processes
from hpchub.demo.site import COMPUTE_HOSTS, LOGIN_HOSTS, Site
from hpchub.demo.slurm import Daemon, start_daemons

_HOST_KEYS = "ssh/hpchub"
_CA = "ssh/hpchub_ca.pub"


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


def lay_out_sshd(layout: Layout, names: Sequence[str], site: Site) -> str:
    """Write sshd's files in the cluster's /etc; the hub's known_hosts, one line for each host.

    A login node is known by its edge address, a compute node by the fabric's, both by name too.
    """
    folder = layout.etc / _HOST_KEYS
    folder.mkdir(parents=True, mode=0o700)
    shutil.copy(ETC / "sshd_config", layout.etc / "ssh" / "sshd_config")
    addresses = {**site.fabric, **site.edge}
    return "".join(known_host(name, addresses[name], make_key(folder / name, name)) + "\n" for name in names)


def known_host(name: str, address: str, public_key: str) -> str:
    """The line of known_hosts for a host."""
    return f"{name},{address} {' '.join(public_key.split()[:2])}"


def sshd(name: str, site: Site, etc: Path) -> Daemon:
    """The sshd of a host. On one machine each has a loopback address of its own."""
    argv = ["/usr/sbin/sshd", "-D", "-e", "-f", f"{etc}/ssh/sshd_config", "-h", f"{etc}/{_HOST_KEYS}/{name}"]
    argv += ["-o", f'TrustedUserCAKeys="{etc}/{_CA}"']
    address = "127.0.0.1"
    if site.one_machine:
        address = site.fabric[name]
        argv += ["-o", f"ListenAddress={address}", "-o", f"PidFile={site.run}/sshd-{name}.pid"]
    ready = ("bash", "-c", f"exec 3<>/dev/tcp/{address}/22")
    return Daemon(name="sshd", host=name, argv=tuple(argv), ready=ready)


def start_sshd(
    site: Site, hosts: Mapping[str, Host], processes: Processes, names: Sequence[str], etc: Path
) -> None:
    """Start sshd on each host, wait for its port. `etc` is where the hosts see what was laid out."""
    start_daemons([sshd(name, site, etc) for name in names], hosts, processes)


def trust(host: Host, etc: Path, ca_line: str) -> None:
    """Have the cluster trust a certificate authority; /etc is one for all hosts."""
    run_on(host, ["sh", "-c", 'cat >"$1"', "sh", f"{etc}/{_CA}"], stdin=ca_line + "\n")
