"""What can go wrong on a cluster, done to the demo and undone again.

Each fault is a context manager: it lasts as long as its block. FAULTS names them all. Processes are
signalled by recorded id, or found inside the demo's own hosts; commands and mounts are made in the
hosts' own namespaces, so that the machine does not see them.
"""

from __future__ import annotations

import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from hpchub.demo.site import COMPUTE_HOSTS, HUB, LOGIN_HOSTS, Site
from support.demo import Demo
from support.inside import (
    Process,
    daemon,
    host_of,
    hub_process,
    named,
    on,
    processes_in,
    signal_all,
    standing_still,
    start,
    with_descendants,
)

_SQUEUE = "/usr/bin/squeue"
_REAL = "/run/hpchub-real-squeue"
_WRAPPER = "/run/hpchub-squeue"
_CALLS = "/run/hpchub-squeue-calls"

# What squeue does instead of answering, as shell text; $real is the true one.
SQUEUE_ANSWERS = {
    "an error": "echo 'slurm_load_jobs error: Unexpected message received' >&2; exit 1",
    "garbage": "head -c 3000 /dev/urandom",
    "half a line": '"$real" "$@" | head -c 8',
    "nothing": "exit 0",
    "after 60 s": 'sleep 60; exec "$real" "$@"',
}


# slurmctld writes its state five seconds after a change. What it had not written it forgets when it is
# killed, and gives the same job id again: that is Slurm's to promise, not ours.
SLURM_SAVES_WITHIN_S = 6.0


# -- Slurm ------------------------------------------------------------------------------------------


@contextmanager
def daemon_frozen(demo: Demo, name: str, host: str = "ctl") -> Iterator[None]:
    """A daemon that takes connections and answers nothing (SIGSTOP)."""
    frozen = named(demo, host, name)
    assert frozen, f"no {name} on {host}"
    with standing_still(frozen):
        yield


@contextmanager
def daemon_dead(demo: Demo, name: str, host: str = "ctl", *, at_once: bool = False) -> Iterator[None]:
    """A daemon that was killed, and is started again at the end.

    slurmctld is given the time to save what it knows, unless it is to be killed `at_once`.
    """
    dead = named(demo, host, name)
    assert dead, f"no {name} on {host}"
    if name == "slurmctld" and not at_once:
        time.sleep(SLURM_SAVES_WITHIN_S)
    signal_all(dead, signal.SIGKILL)
    _wait_gone(dead)
    try:
        yield
    finally:
        start(demo, daemon(name, host))


@contextmanager
def squeue_answers(demo: Demo, what: str) -> Iterator[None]:
    """squeue answers with one of SQUEUE_ANSWERS on every login node, and counts its calls."""
    script = f"#!/bin/sh\nreal={_REAL}\necho >>{_CALLS}\n{SQUEUE_ANSWERS[what]}\n"
    put = (
        f'cp {_SQUEUE} {_REAL} && printf %s "$1" >{_WRAPPER} && chmod 755 {_WRAPPER} '
        f"&& : >{_CALLS} && chmod 666 {_CALLS} && mount --bind {_WRAPPER} {_SQUEUE}"
    )
    begun = []
    try:
        for host in LOGIN_HOSTS:
            on(demo, host, "sh", "-ec", put, "sh", script)
            begun.append(host)
        yield
    finally:
        for host in begun:
            on(demo, host, "umount", "--lazy", _SQUEUE)  # some that answer late still read it


def squeue_calls(demo: Demo) -> int:
    """How often squeue was called since the newest `squeue_answers` began."""
    return sum(int(on(demo, host, "sh", "-c", f"wc -l <{_CALLS}")) for host in LOGIN_HOSTS)


def squeue_processes(demo: Demo) -> int:
    """How many squeue run or hang on the login nodes now."""
    return sum(len(named(demo, host, "squeue")) for host in LOGIN_HOSTS)


# -- login nodes ------------------------------------------------------------------------------------


@contextmanager
def login_node_frozen(demo: Demo, host: str) -> Iterator[None]:
    """Every sshd process of a login node stands still; its kernel still takes connections."""
    frozen = named(demo, host, "sshd")
    with standing_still(frozen):
        yield


@contextmanager
def login_node_dead(demo: Demo, host: str) -> Iterator[None]:
    """sshd, all sessions and what they hold are gone from a login node; nobody listens."""
    dead = with_descendants(demo, host, named(demo, host, "sshd"))
    signal_all(dead, signal.SIGKILL)
    _wait_gone(dead)
    try:
        yield
    finally:
        start(demo, daemon("sshd", host))


def end_sessions(demo: Demo, host: str) -> None:
    """Kill the sshd processes of all who are logged in on a login node; half-open connections stay."""
    signal_all([one for one in named(demo, host, "sshd") if _is_session(one)], signal.SIGKILL)


@contextmanager
def login_node_refuses(demo: Demo, host: str) -> Iterator[None]:
    """sshd drops every new login (MaxStartups, one half-open connection); old sessions live on."""
    _restart_listener(demo, host, "-o", "MaxStartups=1:100:1")
    # Whoever else logs in just then has the one place, and ours is dropped, with another greeting.
    greeted = f"exec 3<>/dev/tcp/{Site().edge[host]}/22; read -r -t 5 line <&3; [[ $line == SSH-* ]]"
    hold = f"until {greeted}; do sleep 0.05; done; echo open; exec sleep infinity"
    stalled = subprocess.Popen(
        host_of(demo, HUB).enter(["bash", "-c", hold]), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        assert stalled.stdout is not None and stalled.stdout.readline() == b"open\n"
        yield
    finally:
        stalled.kill()
        stalled.communicate()
        _restart_listener(demo, host)


@contextmanager
def login_node_out_of_processes(demo: Demo, host: str) -> Iterator[None]:
    """New sessions on a login node may start no process. Old ones are ended, and at the end the new ones."""
    listeners = [one for one in processes_in(demo, host) if _is_listener(one)]
    before = [_limit(one.pid, resource.RLIMIT_NPROC, 0) for one in listeners]
    end_sessions(demo, host)
    try:
        yield
    finally:
        for one, (soft, _) in zip(listeners, before, strict=True):
            _limit(one.pid, resource.RLIMIT_NPROC, soft)
        end_sessions(demo, host)


@contextmanager
def account_locked(demo: Demo, user: str) -> Iterator[None]:
    """The cluster's sshd refuses an account: `!` in its line of shadow, as `usermod --lock` has it."""
    with _changed(demo, "/etc/shadow", f"s/^{re.escape(user)}:[*]/{user}:!/"):
        yield


@contextmanager
def account_gone(demo: Demo, user: str) -> Iterator[None]:
    """The cluster does not know an account any more; what runs in its name goes on."""
    line = f"/^{re.escape(user)}:/d"
    with _changed(demo, "/etc/passwd", line), _changed(demo, "/etc/shadow", line):
        yield


@contextmanager
def _changed(demo: Demo, path: str, edit: str) -> Iterator[None]:
    """A file of the cluster's /etc, which all its hosts share, changed by sed and put back as it was."""
    on(demo, "ctl", "cp", "--preserve=all", path, f"{path}.kept")
    on(demo, "ctl", "sed", "-i", edit, path)
    try:
        yield
    finally:
        on(demo, "ctl", "mv", f"{path}.kept", path)


# -- the network and compute nodes ------------------------------------------------------------------


@contextmanager
def fabric_cut(demo: Demo, host: str) -> Iterator[None]:
    """A host is off the cluster's network: packets vanish, nobody is told."""
    on(demo, "ctl", "ip", "link", "set", host, "down")
    try:
        yield
    finally:
        on(demo, "ctl", "ip", "link", "set", host, "up")


@contextmanager
def ports_closed(demo: Demo, host: str) -> Iterator[None]:
    """A host may not connect to the compute nodes' ports from 32768 on: what would begin it vanishes.

    srun still works: slurmd's port is a lower one, and the nodes may connect to srun.
    """
    # u32 counts bytes from the IP header's first: the destination port, then SYN without ACK.
    new = "match ip protocol 6 0xff match u16 0x8000 0x8000 at 22 match u8 0x02 0x12 at 33"
    rule = "filter add dev fabric parent 1: protocol ip u32 match ip dst"
    lines = [
        "qdisc add dev fabric root handle 1: htb",
        "class add dev fabric parent 1: classid 1:9 htb rate 8kbit quantum 1600",
        "qdisc add dev fabric parent 1:9 pfifo limit 0",  # no room in the queue: all is dropped
        *(f"{rule} {Site().fabric[node]}/32 {new} flowid 1:9" for node in COMPUTE_HOSTS),
    ]
    on(demo, host, "sh", "-ec", 'printf "%s\\n" "$@" | tc -batch -', "sh", *lines)
    try:
        yield
    finally:
        on(demo, host, "tc", "qdisc", "del", "dev", "fabric", "root")


@contextmanager
def compute_node_dead(demo: Demo, host: str) -> Iterator[None]:
    """A compute node loses its power: its daemons and jobs are gone, and it says nothing more.

    At the end it has booted again, with munge and slurmd.
    """
    with fabric_cut(demo, host):
        dead = processes_in(demo, host)
        signal_all(dead, signal.SIGKILL)
        _wait_gone(dead)
        yield
    for name in ("munged", "slurmd"):
        start(demo, daemon(name, host))


# -- the hub's own machine --------------------------------------------------------------------------


@contextmanager
def bridge_disk_full(demo: Demo) -> Iterator[None]:
    """No write of the bridge's to a file succeeds, its database and its log included.

    As on a full disk every write ends in an error (EFBIG for ENOSPC): its limit on the size of files is 0.
    """
    bridge = hub_process(demo, "bridge")
    before = _limit(bridge.pid, resource.RLIMIT_FSIZE, 0)
    try:
        yield
    finally:
        if bridge.is_alive:
            _limit(bridge.pid, resource.RLIMIT_FSIZE, before[0])


@contextmanager
def hub_process_killed(demo: Demo, name: str) -> Iterator[None]:
    """A process of the hub side is killed (-9); at the end the supervisor has started it again."""
    known = hub_process(demo, name)
    known.kill(signal.SIGKILL)
    try:
        yield
    finally:
        deadline = time.monotonic() + 20
        while _is_missing(demo, name):
            assert time.monotonic() < deadline, f"{name} was not started again"
            time.sleep(0.05)


# A fault must outlast every timeout; nobody wants to wait for the real ones.
_SHORT_PATIENCE = """
[ssh]
connect_timeout_s = 3
login_timeout_s = 3
command_timeout_s = 6
keepalive_interval_s = 1
keepalive_tries = 3
node_rest_s = 2
"""


@contextmanager
def short_patience(demo: Demo) -> Iterator[None]:
    """The bridge with short timeouts. It is started again for it, before and after: people log in anew."""
    path = demo.directory / "hub" / "bridge.toml"
    before = path.read_text()
    path.write_text(before + _SHORT_PATIENCE)
    _restart_bridge(demo)
    try:
        yield
    finally:
        path.write_text(before)
        _restart_bridge(demo)


def _restart_bridge(demo: Demo) -> None:
    socket = Path(demo.info["sockets"]) / "bridge.sock"
    socket.unlink()
    with hub_process_killed(demo, "bridge"):
        pass
    deadline = time.monotonic() + 20
    while not socket.exists():
        assert time.monotonic() < deadline, "the bridge does not listen"
        time.sleep(0.05)


# -- all of them ------------------------------------------------------------------------------------

FAULTS: Mapping[str, Callable[[Demo], AbstractContextManager[None]]] = {
    "slurmctld frozen": partial(daemon_frozen, name="slurmctld"),
    "slurmctld dead": partial(daemon_dead, name="slurmctld"),
    "slurmdbd frozen": partial(daemon_frozen, name="slurmdbd"),
    "slurmdbd dead": partial(daemon_dead, name="slurmdbd"),
    "munge down on login1": partial(daemon_dead, name="munged", host="login1"),
    **{f"squeue answers {what}": partial(squeue_answers, what=what) for what in SQUEUE_ANSWERS},
    "login1 frozen": partial(login_node_frozen, host="login1"),
    "login2 frozen": partial(login_node_frozen, host="login2"),
    "login1 dead": partial(login_node_dead, host="login1"),
    "login1 refuses logins": partial(login_node_refuses, host="login1"),
    "c1 cut off": partial(fabric_cut, host="c1"),
    "login1 cut off": partial(fabric_cut, host="login1"),
    "the bridge's disk full": bridge_disk_full,
}
"""By plain name, those that end nobody's job. A compute node that dies takes its jobs with it."""

RESTARTS: Mapping[str, Callable[[Demo], AbstractContextManager[None]]] = {
    f"{name} killed": partial(hub_process_killed, name=name)
    for name in ("jupyterhub", "bridge", "proxy", "signer")
}
"""The hub's own processes, killed and started again by the supervisor."""


def _restart_listener(demo: Demo, host: str, *more: str) -> None:
    """Put a new listening sshd in the old one's place; sessions are not its children's concern."""
    listeners = [one for one in processes_in(demo, host) if _is_listener(one)]
    signal_all(listeners, signal.SIGKILL)
    _wait_gone(listeners)
    start(demo, daemon("sshd", host), *more)


def _is_listener(one: Process) -> bool:
    return one.name == "sshd" and b"[listener]" in _title(one)


def _is_session(one: Process) -> bool:
    # `sshd: bob [priv]` and `sshd: bob@notty`; before the login it is `sshd: [accepted]` and `sshd: [net]`.
    title = _title(one)
    return title.startswith(b"sshd: ") and not title.startswith(b"sshd: [") and b"[listener]" not in title


def _title(one: Process) -> bytes:
    try:
        return Path(f"/proc/{one.pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _limit(pid: int, kind: int, soft: int) -> tuple[int, int]:
    """Set a process's soft limit; both limits as they were."""
    before = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (soft, before[1]))
    return before


def _is_missing(demo: Demo, name: str) -> bool:
    try:
        hub_process(demo, name)
    except StopIteration:
        return True
    return False


def _wait_gone(dead: list[Process]) -> None:
    deadline = time.monotonic() + 10
    while any(one.known.is_alive for one in dead):
        assert time.monotonic() < deadline, f"{[one.name for one in dead]} would not die"
        time.sleep(0.02)
