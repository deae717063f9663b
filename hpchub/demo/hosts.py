"""Hosts: namespaces with a shell as PID 1, entered by `nsenter`; or the machine we are on, as it is."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpchub.demo.layout import SCRIPTS, Layout
from hpchub.demo.processes import CLEAN_PATH, Processes, child_of
from hpchub.demo.site import CLUSTER_HOSTS, HUB
from hpchub.errors import SiteError


@dataclass(frozen=True, slots=True)
class Host:
    """One host, by the process that holds its namespaces. The hub has only a network of its own.

    Without such a process the host is where we are: a container of its own, or a name for this machine.
    """

    name: str
    pid: int | None

    @property
    def is_apart(self) -> bool:
        """Whether it has namespaces of its own, whose end is the end of all that runs there."""
        return self.pid is not None

    def enter(self, argv: Sequence[str], user: str = "") -> list[str]:
        """The argv that runs a command on this host, as root or as one of its users.

        The command has a clean environment and dies with its `nsenter`.
        """
        if self.name == HUB:
            return [*(("nsenter", f"--net=/proc/{self.pid}/ns/net", "--") if self.is_apart else ()), *argv]
        into: list[str] = []
        if self.is_apart:
            into = ["nsenter", "-t", str(self.pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--"]
        drop = ["setpriv", "--pdeathsig", "KILL"]
        if not user:
            clean = ["env", "-i", f"PATH={CLEAN_PATH}", "HOME=/root", "LANG=C.UTF-8"]
            return [*into, *clean, *drop, "--", *argv]
        drop += [f"--reuid={user}", f"--regid={user}", "--init-groups", "--reset-env"]
        go_home = ["sh", "-c", 'cd "$HOME" 2>/dev/null || cd /; exec "$@"', "sh"]
        return [*into, *drop, "--", *go_home, *argv]


def require_namespaces() -> None:
    """SiteError where this machine, or the container we are in, does not let us make a host."""
    kinds = ("--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--mount-proc")
    done = subprocess.run(
        ["unshare", *kinds, "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SiteError(
            f"This machine does not allow namespaces: {done.stderr.strip()}.",
            "In a container, give it the capability SYS_ADMIN (`--privileged` has it); or, where the whole "
            "container is for throwing away, use --loopback: `hpchub demo up --help` says what that does.",
        )


def boot_hosts(layout: Layout, processes: Processes, environments: Path) -> dict[str, Host]:
    """Make the private mount namespace and every host in it; nothing runs on them yet."""
    layout.scripts.mkdir()
    for script in ("host.sh", "folders.sh"):
        shutil.copy(SCRIPTS / script, layout.scripts)
    base = processes.start(
        "base",
        [
            *("unshare", "--mount", "--propagation", "private", "--"),
            *("sh", str(SCRIPTS / "base.sh"), str(layout.dir), str(environments)),
        ],
    )
    processes.wait_for_line("base", "ready")
    # The checkout may be out of sight by now: /root is, on the cluster.
    script = "/etc/hpchub/host.sh"
    for name in CLUSTER_HOSTS:
        processes.start(
            name,
            [
                *("nsenter", f"--mount=/proc/{base.pid}/ns/mnt", "--"),
                *("unshare", "--mount", "--propagation", "private", "--uts", "--ipc", "--net", "--pid"),
                *("--fork", "--kill-child=KILL", "--mount-proc", "--", "sh", script, name),
            ],
            follows=True,
        )
    hub = processes.start(HUB, ["unshare", "--net", "--", "sh", "-c", "echo ready; exec sleep infinity"])
    for name in (*CLUSTER_HOSTS, HUB):
        processes.wait_for_line(name, "ready")
    hosts = {name: Host(name, _holder(processes, name)) for name in CLUSTER_HOSTS}
    return hosts | {HUB: Host(HUB, hub.pid)}


def _holder(processes: Processes, name: str) -> int:
    pid = child_of(processes.children[name].pid)
    if pid is None:
        raise SiteError(f"host {name} ended while it was made:\n{processes.tail(name)}")
    processes.remember(name, pid)
    return pid


def run_on(
    host: Host,
    argv: Sequence[str],
    *,
    user: str = "",
    stdin: str = "",
    timeout_s: float = 60.0,
    environ: Mapping[str, str] | None = None,
) -> str:
    """A command's standard output. SiteError with its stderr where it fails."""
    done = subprocess.run(
        host.enter(argv, user), input=stdin, capture_output=True, text=True, timeout=timeout_s,
        check=False, env=environ,
    )  # fmt: skip
    if done.returncode != 0:
        shown = " ".join(argv)[:200]
        raise SiteError(
            f"`{shown}` on {host.name} ended with {done.returncode}: {done.stderr or done.stdout}"
        )
    return done.stdout


def wait_until(
    host: Host, argv: Sequence[str], processes: Processes, daemon: str, timeout_s: float = 8.0
) -> None:
    """Until a command on a host succeeds. SiteError with the daemon's log where it ends first."""
    deadline = time.monotonic() + timeout_s
    while True:
        done = subprocess.run(host.enter(argv), capture_output=True, timeout=timeout_s, check=False)
        if done.returncode == 0:
            return
        if processes.children[daemon].poll() is not None or time.monotonic() > deadline:
            raise SiteError(f"{daemon} did not start. Its log ends:\n{processes.tail(daemon)}")
        time.sleep(0.05)
