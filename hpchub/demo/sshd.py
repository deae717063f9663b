"""OpenSSH on the login nodes, at hpchub's strict level; on compute nodes only for attach `ssh`.

The level is that of docs/howto/trust-the-authority.md: one certificate authority, principals files, and a
revocation list that `push_krl` brings, as a site does whose login nodes cannot reach the hub.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpchub.core.certificate import principal_of
from hpchub.core.cluster import Attach
from hpchub.demo.accounts import STATUS_ACCOUNT, accounts
from hpchub.demo.hosts import Host, run_on
from hpchub.demo.layout import ETC, Layout
from hpchub.demo.processes import Processes
from hpchub.demo.site import COMPUTE_HOSTS, HUB, LOGIN_HOSTS, Site
from hpchub.demo.slurm import Daemon, start_daemons

PRINCIPAL = "hpchub:{account}"
TERMINAL_PRINCIPAL = "terminal:{account}"
_PENALTIES_SINCE = (9, 8)
_HOST_KEYS = "ssh/hpchub"
_CA = "ssh/hpchub_ca.pub"
_PRINCIPALS = "ssh/hpchub_principals"
_KRL = "ssh/hpchub_revoked_keys"

# No permitopen: sshd holds unix sockets to it as well, and their paths are new each time.
_FORWARDS = ',port-forwarding,permitlisten="none:1"'

# sshd reads the list at each login: it must be whole at every moment.
_REPLACE = (
    'cat >"$1.new" && chmod 0644 "$1.new" && ssh-keygen -Q -l -f "$1.new" >/dev/null && mv "$1.new" "$1"'
)


def hosts_with_sshd(attach: Attach) -> tuple[str, ...]:
    """Where an sshd service runs."""
    return (*LOGIN_HOSTS, *COMPUTE_HOSTS) if attach is Attach.SSH else LOGIN_HOSTS


def source_addresses(attach: Attach, site: Site) -> list[str]:
    """Where sshd sees certificates come from: the hub; with attach `ssh`, login nodes go on to the job."""
    return [site.edge[HUB], *(site.fabric[name] for name in LOGIN_HOSTS if attach is Attach.SSH)]


def make_key(path: Path, comment: str) -> str:
    """Make an ed25519 key pair; its public line."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)],
        stdin=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    return path.with_name(path.name + ".pub").read_text(encoding="ascii").strip()


def lay_out_sshd(layout: Layout, names: Sequence[str], site: Site) -> str:
    """Write sshd's host keys into the cluster's /etc; the hub's known_hosts, one line for each host.

    A login node is known by its edge address, a compute node by the fabric's, both by name too.
    """
    folder = layout.etc / _HOST_KEYS
    folder.mkdir(parents=True, mode=0o700)
    addresses = {**site.fabric, **site.edge}
    return "".join(known_host(name, addresses[name], make_key(folder / name, name)) + "\n" for name in names)


def lay_out_strict(layout: Layout, attach: Attach, site: Site) -> None:
    """Write what the strict level asks for: sshd_config, a file of principals for each account, a list."""
    (layout.etc / "ssh").mkdir(exist_ok=True)
    shutil.copy(ETC / "sshd_config", layout.etc / "ssh" / "sshd_config")
    folder = layout.etc / _PRINCIPALS
    folder.mkdir(mode=0o755)
    for account in accounts():
        name = account.person.name
        forwards = "" if name == STATUS_ACCOUNT else _FORWARDS
        options = f'from="{",".join(source_addresses(attach, site))}",restrict{forwards}'
        lines = [f"{options} {principal_of(PRINCIPAL, name)}\n"]
        if name != STATUS_ACCOUNT:  # from anywhere, and with a terminal: for what `hpchub login` gets
            lines.append(f"restrict,pty,port-forwarding {principal_of(TERMINAL_PRINCIPAL, name)}\n")
        (folder / name).write_text("".join(lines), encoding="ascii")
    (layout.etc / _KRL).touch(mode=0o644)


def known_host(name: str, address: str, public_key: str) -> str:
    """The line of known_hosts for a host."""
    return f"{name},{address} {' '.join(public_key.split()[:2])}"


def openssh_version() -> tuple[int, int]:
    """Of this machine's OpenSSH, which every way to run the demo uses."""
    done = subprocess.run(["ssh", "-V"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    found = re.search(r"OpenSSH_([0-9]+)\.([0-9]+)", done.stdout + done.stderr)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def sshd(name: str, site: Site, etc: Path) -> Daemon:
    """The sshd of a host. On one machine each has a loopback address of its own."""
    argv = ["/usr/sbin/sshd", "-D", "-e", "-f", f"{etc}/ssh/sshd_config", "-h", f"{etc}/{_HOST_KEYS}/{name}"]
    address = "127.0.0.1"
    if site.one_machine:
        address = site.fabric[name]
        for option in (
            f"TrustedUserCAKeys={etc}/{_CA}",
            f"AuthorizedPrincipalsFile={etc}/{_PRINCIPALS}/%u",
            f"RevokedKeys={etc}/{_KRL}",
            f"ListenAddress={address}",
            f"PidFile={site.run}/sshd-{name}.pid",
        ):
            argv += ["-o", option]
    # Older ones do not know the word, and would not start with it.
    if openssh_version() >= _PENALTIES_SINCE:
        argv += ["-o", f"PerSourcePenaltyExemptList={site.edge[HUB]}"]
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


class KrlPush:
    """Brings the signer's revocation list to the cluster whenever it has changed."""

    def __init__(self, source: Path, host: Host, etc: Path) -> None:
        self._source = source
        self._argv = host.enter(["sh", "-c", _REPLACE, "sh", f"{etc}/{_KRL}"])
        self._pushed: bytes | None = None
        self._said = ""

    def look(self) -> list[str]:
        """Push the list if it is another than the last one; what went wrong, said once."""
        content = self._source.read_bytes() if self._source.exists() else None
        if content is None or content == self._pushed:
            return []
        done = subprocess.run(self._argv, input=content, capture_output=True, timeout=30, check=False)
        problem = done.stderr.decode(errors="replace").strip() if done.returncode else ""
        if not problem:
            self._pushed = content
        problem, self._said = problem if problem != self._said else "", problem
        return [f"the revocation list did not reach the cluster: {problem}"] if problem else []
