"""The bench's own processes: started, restarted, ended by their ids; each has a log."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

# `python -m bench...` is found from here.
CHECKOUT = Path(__file__).resolve().parents[2]

_START_LIMIT_S = 120.0
_END_LIMIT_S = 60.0
_MANY_FILES = 262_144


@dataclass(slots=True)
class Processes:
    """Children by name. `start` remembers how, so that `restart` can do it again."""

    folder: Path
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _again: dict[str, Callable[[], None]] = field(default_factory=dict)

    def start(self, name: str, argv: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
        """Start a process; its output goes to `<name>.log`."""

        def begin() -> None:
            with (self.folder / f"{name}.log").open("ab") as log:
                self.children[name] = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, umask=0o077,
                    env={**os.environ, **(environ or {})}, cwd=CHECKOUT, start_new_session=True,
                )  # fmt: skip

        begin()
        self._again[name] = begin

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal and wait for the end."""
        child = self.children[name]
        child.send_signal(number)
        child.wait(_END_LIMIT_S)

    def again(self, name: str) -> None:
        """Start a process that has ended, as it was."""
        self._again[name]()

    def wait_until(self, name: str, ready: Callable[[], bool]) -> None:
        """Until `ready`. RuntimeError with the log's end where the process ends first."""
        deadline = time.monotonic() + _START_LIMIT_S
        while not ready():
            if self.children[name].poll() is not None or time.monotonic() > deadline:
                text = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"{name} did not start. Its log ends:\n{text[-2000:]}")
            time.sleep(0.05)

    def pids(self, *names: str) -> dict[str, int]:
        """Process ids by name."""
        return {name: self.children[name].pid for name in names}

    def end_all(self) -> None:
        """End every child, the newest first."""
        for child in reversed(self.children.values()):
            if child.poll() is None:
                child.terminate()
                try:
                    child.wait(20)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()


@contextmanager
def processes(folder: Path) -> Iterator[Processes]:
    """They end with the block."""
    allow_many_files()
    made = Processes(folder)
    try:
        yield made
    finally:
        made.end_all()


def allow_many_files() -> None:
    """As many as deploy/systemd gives the bridge, for this process and its children, or what there may be.

    Each server is three sockets of a simulator's and two of the bridge's.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, _MANY_FILES), max(hard, _MANY_FILES)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@dataclass(slots=True)
class Probe:
    """A running `bench.crowd.probe`; `end` gives what it saw."""

    child: subprocess.Popen[str]
    output: Path

    @classmethod
    def begin(cls, url: str, token: str, folder: Path) -> Probe:
        """Start asking."""
        output = folder / "probe.txt"
        with output.open("w", encoding="ascii") as file:
            child = subprocess.Popen(
                [sys.executable, "-m", "bench.crowd.probe"], stdin=subprocess.PIPE, stdout=file, text=True
            )
        assert child.stdin is not None
        child.stdin.write(json.dumps({"url": url, "token": token}) + "\n")
        child.stdin.flush()
        return cls(child, output)

    def end(self) -> list[tuple[float, float, int]]:
        """Stop asking: when, how long, and the status of each answer."""
        assert self.child.stdin is not None
        self.child.stdin.close()
        self.child.wait(_END_LIMIT_S)
        rows = [line.split() for line in self.output.read_text(encoding="ascii").splitlines()]
        return [(float(at), float(took), int(status)) for at, took, status in rows]
