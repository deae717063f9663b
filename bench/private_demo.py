"""A demo cluster of the bench's own, gone when it is left."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HPCHUB = (sys.executable, "-m", "hpchub.cli")
CHECKOUT = Path(__file__).resolve().parent.parent

_QUIET_LIMIT_S = 60.0
_NOTICED_S = 0.3  # for the bridge to see that its connections are gone


@dataclass(frozen=True, slots=True)
class Demo:
    """A running demo. `info` is its info.json."""

    folder: Path
    info: Mapping[str, Any]

    @property
    def port(self) -> int:
        """Where the hub's proxy listens, on the loopback."""
        return int(str(self.info["url"]).rstrip("/").rpartition(":")[2])

    @property
    def sockets(self) -> Path:
        """The folder of the bridge's and the signer's sockets."""
        return Path(self.info["sockets"])

    @property
    def homes(self) -> Path:
        """The cluster's /home as this machine sees it."""
        return self.folder / "home"

    def host_pid(self, name: str) -> int:
        """The process that holds a host's namespaces."""
        return next(int(row["pid"]) for row in self.info["hosts"] if row["name"] == name)

    def pid(self, name: str) -> int:
        """A daemon's process now: the hub side's are started again when they end."""
        rows = json.loads((self.folder / "processes.json").read_text(encoding="utf-8"))
        return next(int(row["pid"]) for row in reversed(rows) if row["name"] == name)

    def argv(self, host: str, command: Sequence[str], user: str = "") -> list[str]:
        """The argv that runs a command on a host, as root or as a user."""
        as_user = ["--user", user] if user else []
        return [*HPCHUB, "demo", "exec", "--dir", str(self.folder), host, *as_user, "--", *command]

    def run(self, host: str, command: Sequence[str], user: str = "", limit_s: float = 60.0) -> str:
        """A command's standard output. CalledProcessError where it fails."""
        done = subprocess.run(
            self.argv(host, command, user), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            check=True, timeout=limit_s,
        )  # fmt: skip
        return done.stdout

    def wait_until_quiet(self) -> None:
        """Until no job is left and both nodes are idle, so that nobody measures another's end."""
        deadline = time.monotonic() + _QUIET_LIMIT_S
        command = ["sh", "-c", "squeue -h; sinfo -h -N -p cpu -o %t | grep -v idle || :"]
        while self.run("ctl", command).strip():
            if time.monotonic() > deadline:
                raise TimeoutError("the demo's queue does not get empty")
            time.sleep(0.1)

    def cut_off(self, user: str) -> None:
        """End a user's SSH connections at the login nodes: the next start must connect again."""
        for host in self.info["clusters"]["demo"]["login_hosts"]:
            rows = self.run(host, ["ps", "-e", "-o", "pid=,args="]).splitlines()
            pids = [row.split()[0] for row in rows if f"sshd: {user}" in row]
            if pids:
                # A session is two processes, and the first one's end may be the other's.
                self.run(host, ["sh", "-c", 'kill "$@" 2>/dev/null || :', "sh", *pids])
        time.sleep(_NOTICED_S)


@contextmanager
def private_demo() -> Iterator[Demo]:
    """Boot a demo, and take it down again whatever happens, a second Ctrl-C included."""
    # Short and in lower case: sockets lie below it.
    folder = Path(tempfile.mkdtemp(prefix="hpchub-bench-"))
    folder.chmod(0o755)
    try:
        subprocess.run((*HPCHUB, "demo", "up", "--dir", str(folder), "--port", "0"), stdout=subprocess.PIPE,
                       stdin=subprocess.DEVNULL, check=True)  # fmt: skip
        yield Demo(folder, json.loads((folder / "info.json").read_text(encoding="utf-8")))
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        subprocess.run((*HPCHUB, "demo", "down", "--dir", str(folder)), stdout=subprocess.PIPE, check=False)
        shutil.rmtree(folder, ignore_errors=True)
