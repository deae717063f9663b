"""The demo's hosts from within: their processes, their daemons, and nothing of the machine's own."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hpchub.demo.hosts import Host, run_on
from hpchub.demo.info import find_host
from hpchub.demo.layout import Layout
from hpchub.demo.processes import Recorded, load_recorded, start_time
from hpchub.demo.site import Site
from hpchub.demo.slurm import Daemon, accounting, foundation, scheduling
from hpchub.demo.sshd import sshd
from support.demo import Demo

_START_LIMIT_S = 20.0


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a host, as this machine sees it."""

    known: Recorded
    parent: int
    uid: int

    @property
    def name(self) -> str:
        """Its program's name, as the kernel has it."""
        return self.known.name

    @property
    def pid(self) -> int:
        """Its id outside."""
        return self.known.pid

    def kill(self, number: signal.Signals) -> None:
        """Signal this very process, unless it has gone."""
        self.known.kill(number)


def host_of(demo: Demo, name: str) -> Host:
    """A host of the demo."""
    return find_host(Layout(demo.directory), name)


def processes_in(demo: Demo, host: str) -> list[Process]:
    """All processes of a host but the two that hold its namespaces: the first, and what that waits for."""
    first = host_of(demo, host).pid
    assert first is not None, "faults need hosts with namespaces of their own"
    return [
        one
        for one in _processes_beside(first)
        if one.pid != first and not (one.parent == first and one.name == "sleep" and one.uid == 0)
    ]


def _processes_beside(first: int) -> Iterator[Process]:
    theirs = Path(f"/proc/{first}/ns/pid").readlink()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "ns" / "pid").readlink() != theirs:
                continue
            name, _, rest = (entry / "stat").read_text(errors="replace").partition("(")[2].rpartition(")")
            # Not the owner of the entry: that is root wherever a process forbids dumps, as sshd does.
            uid = int((entry / "status").read_text(errors="replace").partition("\nUid:")[2].split()[0])
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # ended since it was listed, or nobody's business of ours
        started = start_time(int(entry.name))
        if started is not None:
            yield Process(Recorded(name, int(entry.name), started), int(rest.split()[1]), uid)


def with_descendants(demo: Demo, host: str, chosen: list[Process]) -> list[Process]:
    """Some processes of a host and all that they have started and still hold."""
    found = {one.pid: one for one in chosen}
    everyone = processes_in(demo, host)
    size = 0
    while len(found) != size:
        size = len(found)
        found |= {one.pid: one for one in everyone if one.parent in found}
    return list(found.values())


def named(demo: Demo, host: str, name: str) -> list[Process]:
    """A host's processes of one program."""
    return [one for one in processes_in(demo, host) if one.name == name]


def daemon(name: str, host: str) -> Daemon:
    """How the demo starts a daemon on a host."""
    site = Site()
    if name == "sshd":
        return sshd(host, site, Path("/etc"))
    known = [*foundation(site), accounting(site), *scheduling(site)]
    found = next(one for one in known if (one.name, one.host) == (name, host))
    if name == "slurmd":  # at the demo's start all nodes are to be idle; here others may be busy, or down
        up = f"sinfo -h -p cpu -n {host} -o %T | grep -qx 'idle\\|mixed\\|allocated'"
        resume = f"scontrol update NodeName={host} State=RESUME 2>/dev/null"
        found = replace(found, ready=("sh", "-c", f"{up} || {{ {resume}; false; }}"))
    return found


def start(demo: Demo, which: Daemon, *more: str) -> None:
    """Start a daemon again and wait until it is ready. It ends with its host.

    Raises:
        AssertionError: It is not ready in time.
    """
    host = host_of(demo, which.host)
    log = Path(demo.info["logs"]) / f"{which.label}.log"
    with log.open("ab") as output:
        subprocess.run(
            ["setsid", "--fork", *host.enter([*which.argv, *more], which.user)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=True, cwd="/",
        )  # fmt: skip
    deadline = time.monotonic() + _START_LIMIT_S
    while subprocess.run(host.enter(which.ready), capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline, f"{which.label} does not get ready; its log is {log}"
        time.sleep(0.1)


def on(demo: Demo, host: str, *argv: str) -> str:
    """What a command prints on a host, as root. SiteError where it fails."""
    return run_on(host_of(demo, host), argv)


def hub_process(demo: Demo, name: str) -> Recorded:
    """One of jupyterhub, bridge, proxy and signer, as it is now: the supervisor starts each again."""
    known = load_recorded(Layout(demo.directory).processes)
    return next(one for one in reversed(known) if one.name == name and one.is_alive)


@contextmanager
def standing_still(frozen: list[Process]) -> Iterator[None]:
    """Stop some processes (SIGSTOP) for as long as the block lasts.

    An `nsenter` that waits for one of them stops with it, and must be told to go on as well: stopped, it
    would never see its child's end, and neither could the host end.
    """
    waiting = [
        Recorded("nsenter", one.parent, started) for one in frozen if (started := _of_nsenter(one.parent))
    ]
    for one in sorted(frozen, key=lambda one: one.known.started):
        one.kill(signal.SIGSTOP)
    try:
        yield
    finally:
        for known in (*(one.known for one in frozen), *waiting):
            known.kill(signal.SIGCONT)


def _of_nsenter(pid: int) -> int | None:
    """The start time of a process that is an nsenter; None where it is something else."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return start_time(pid) if name == "nsenter" else None


def signal_all(chosen: list[Process], number: signal.Signals) -> None:
    """Signal some processes, parents first."""
    for one in sorted(chosen, key=lambda one: one.known.started):
        one.kill(number)
