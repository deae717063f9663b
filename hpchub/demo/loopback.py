"""The cluster on one machine's loopback addresses, where namespaces are not allowed.

For containers that are thrown away: the accounts and files of the demo become the machine's own.
Each addition is written down before it is made, so that `down` takes back exactly these, also after
a crash.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hpchub.core.cluster import Attach
from hpchub.demo.accounts import accounts, make_home
from hpchub.demo.hosts import Host
from hpchub.demo.layout import SCRIPTS, Layout
from hpchub.demo.processes import Recorded, start_time, write_private
from hpchub.demo.site import CLUSTER_HOSTS, HUB, Site, loopback_site
from hpchub.demo.slurm import SLURM_FILES, make_database, make_munge_key
from hpchub.demo.software import MAGICS
from hpchub.demo.sshd import hosts_with_sshd
from hpchub.errors import SiteError

HELP = (
    "where namespaces are not allowed, in containers that are thrown away: ADDS the demo's accounts, homes "
    "and Slurm settings TO THIS MACHINE, and removes them at the end"
)
NOT_SHOWN = (
    "hub and compute nodes can reach each other, and each other's ports: there is one network",
    "all hosts are one: one /tmp, /run and /dev/shm, one `hostname`, everybody's processes in one list",
    "the people of the demo see this machine's files and people",
    "no home is full (jana's is an ordinary one)",
    "no second demo of this kind runs beside it",
    "processes that a killed supervisor leaves end at `hpchub demo down`, not at once",
)

_STATE = Path("/var/lib/hpchub-demo")
MACHINE_ETC = _STATE  # sshd's files: root's own all the way up, or StrictModes refuses everybody
_OPT = Path("/opt/hpc")
_SLURM = Path("/etc/slurm")
_SHARED_FOLDERS = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))  # noqa: S108  looked at, not made
_PROFILE = Path("/etc/profile.d/hpc-modules.sh")


def machine() -> Site:
    """Names, addresses and folders of the cluster when this machine is all of its hosts."""
    return loopback_site(_STATE)


def require_loopback(attach: Attach) -> None:
    """SiteError that names all that stands in the way of adding a cluster to this machine."""
    if attach is Attach.TCP:
        raise SiteError(
            "--loopback cannot show attach `tcp`: all compute nodes have one address.", "Choose srun or ssh."
        )
    files = [_SLURM / name.removesuffix(".j2") for name in SLURM_FILES]
    paths = [_STATE, _OPT, MAGICS, _PROFILE, *files, *(Path(account.home) for account in accounts())]
    found = [str(path) for path in paths if os.path.lexists(path)]
    known = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    for account in accounts():
        if account.person.name in known or account.uid in known.values():
            found.append(f"account {account.person.name} or uid {account.uid}")
    try:
        socket.getaddrinfo("localhost", None, socket.AF_INET, flags=socket.AI_ADDRCONFIG)
    except socket.gaierror:
        raise SiteError(
            "--loopback needs a network interface beside `lo`: without one Slurm resolves no host name.",
            "In a container, choose any network but `none`.",
        ) from None
    site = machine()
    found += _taken((site.fabric[name], 22) for name in hosts_with_sshd(attach))
    found += _taken(("127.0.0.1", port) for port in (6817, 6819, 16818, 16819))
    if found:
        raise SiteError(
            f"This machine has already what --loopback would add to it: {', '.join(found)}.",
            "Use a container of its own, or stop the demo that runs here.",
        )


def _taken(places: Iterator[tuple[str, int]]) -> list[str]:
    taken = []
    for place in places:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(place)
            except OSError:
                taken.append(f"port {place[1]} of {place[0]}")
    return taken


@dataclass(slots=True)
class Additions:
    """What was added to this machine: `record` says it before it is done."""

    record: Path

    def load(self) -> list[list[str]]:
        """Pairs of a path and the text that was appended to it; empty text: the whole path is ours."""
        return json.loads(self.record.read_text(encoding="utf-8")) if self.record.exists() else []

    def note(self, path: Path, text: str = "") -> Path:
        """Write down what is about to be added."""
        write_private(self.record, json.dumps([*self.load(), [str(path), text]]))
        return path

    def lines(self, path: Path, text: str, *, first: bool = False) -> None:
        """Add lines to a file that is there, in place: a container's /etc/hosts cannot be replaced."""
        self.note(path, text)
        with _account_files_locked():
            old = path.read_text(encoding="utf-8")
            gap = "" if first or not old or old.endswith("\n") else "\n"
            path.write_text(text + old if first else old + gap + text, encoding="utf-8")

    def take_back(self) -> None:
        """Remove it all, the newest first."""
        for name, text in reversed(self.load()):
            path = Path(name)
            if text:
                with _account_files_locked():
                    path.write_text(path.read_text(encoding="utf-8").replace(text, "", 1), encoding="utf-8")
            else:
                remove(path)
        self.record.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _account_files_locked() -> Iterator[None]:
    """As lckpwdf(3) does it, so that a `useradd` at the same moment waits."""
    with Path("/etc/.pwd.lock").open("a") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        yield


def add_to_machine(layout: Layout, environments: Path) -> dict[str, Host]:
    """Add accounts, homes, settings and environments to this machine; its hosts, which are all it."""
    site, additions = machine(), Additions(layout.added)
    additions.note(_STATE).mkdir(mode=0o755)
    for name in ("run", "spool"):
        (_STATE / name).mkdir(mode=0o755)
    if not Path("/run/sshd").exists():
        additions.note(Path("/run/sshd"))
    shutil.copytree(layout.etc / "ssh", MACHINE_ETC / "ssh")
    subprocess.run(["sh", str(SCRIPTS / "folders.sh"), site.run, site.spool], check=True)
    make_munge_key(Path(site.munge_key))
    Path(site.database).mkdir(mode=0o700)
    shutil.chown(site.database, "mysql", "mysql")
    make_database(site.database)

    _add_accounts(additions)
    names = "".join(f"{site.fabric[name]} {name}\n" for name in CLUSTER_HOSTS)
    # First, so that the machine's own name is a loopback address to all of Slurm's daemons.
    additions.lines(Path("/etc/hosts"), f"127.0.0.1 {site.controller}\n{names}", first=True)
    if not _SLURM.exists():
        additions.note(_SLURM).mkdir(mode=0o755)
    for path in sorted((layout.etc / "slurm").iterdir()):
        _copy(path, additions.note(_SLURM / path.name))
    _copy(layout.etc / "profile.d" / _PROFILE.name, additions.note(_PROFILE))
    _add_environments(additions, environments)
    shutil.copytree(layout.magics, additions.note(MAGICS))
    return {name: Host(name, None) for name in (*CLUSTER_HOSTS, HUB)}


def _add_accounts(additions: Additions) -> None:
    rows = [account.lines for account in accounts()]
    for name in ("group", "passwd", "shadow"):
        additions.lines(Path("/etc") / name, "".join(row[name] + "\n" for row in rows))
    for account in accounts():
        make_home(additions.note(Path(account.home)), account)


def _copy(source: Path, target: Path) -> None:
    shutil.copy2(source, target)
    shutil.chown(target, source.owner(), source.group())


def _add_environments(additions: Additions, environments: Path) -> None:
    """Make /opt/hpc a link to the cache; a copy where the demo's people may not pass, as under /root."""
    additions.note(_OPT)
    if all(folder.stat().st_mode & 0o001 for folder in (environments, *environments.parents)):
        _OPT.symlink_to(environments)
    else:
        subprocess.run(["cp", "-a", "--reflink=auto", str(environments), str(_OPT)], check=True)


@contextmanager
def building_in(folder: Path, layout: Layout) -> Iterator[None]:
    """Let /opt/hpc be a folder for as long as environments are built in it."""
    additions = Additions(layout.added)
    additions.note(_OPT).symlink_to(folder)
    try:
        yield
    finally:
        additions.take_back()


def remove_from_machine(layout: Layout) -> None:
    """End every process of the demo's people and of its jobs, and take back all additions."""
    additions = Additions(layout.added)
    if not additions.load():
        return
    uids = {account.uid for account in accounts()}
    deadline = time.monotonic() + 5
    while (left := list(_processes_of(uids))) and time.monotonic() < deadline:
        for known in left:
            known.kill(signal.SIGKILL)
        time.sleep(0.02)
    for folder in _SHARED_FOLDERS:
        for path in folder.iterdir():
            if path.lstat().st_uid in uids:
                remove(path)
    additions.take_back()


def _processes_of(uids: set[int]) -> Iterator[Recorded]:
    """Processes of people whose accounts are the demo's own, and Slurm's keepers of their jobs.

    A keeper, `slurmstepd`, is root's, and known by the socket it holds in the demo's spool folder.
    """
    rows = [line.split() for line in Path("/proc/net/unix").read_text(encoding="utf-8").splitlines()]
    sockets = {f"socket:[{row[6]}]" for row in rows if len(row) > 7 and row[7].startswith(f"{_STATE}/")}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                ours = entry.stat().st_uid in uids or any(
                    str(handle.readlink()) in sockets for handle in (entry / "fd").iterdir()
                )
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended since it was listed
            started = start_time(int(entry.name)) if ours else None
            if started is not None:
                yield Recorded("of a person", int(entry.name), started)
