"""Processes that a demo started, and only those: each is known by its id and its start time.

Every one dies with the supervisor (`setpriv --pdeathsig`), however the supervisor dies.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from hpchub.errors import SiteError

CLEAN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A process by id and start time (clock ticks since boot): ids are used again.

    One that `follows` waits outside for what runs on a host, and ends by itself when the host does.
    """

    name: str
    pid: int
    started: int
    follows: bool = False

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        return start_time(self.pid) == self.started

    def kill(self, number: signal.Signals) -> None:
        """Signal it, unless it has gone."""
        if self.is_alive:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return  # gone between the look and the signal


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot: proc(5), field 22. None where it is gone."""
    fields = _stat(pid)
    if fields is None or fields[0] == "Z":
        return None
    return int(fields[19])


def child_of(pid: int) -> int | None:
    """The only child of a process, None while it has none."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields and int(fields[1]) == pid:
                return int(entry.name)
    return None


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


@dataclass(slots=True)
class Processes:
    """Starts processes and remembers them in a file, so that a later `down` finds what is left."""

    record: Path
    logs: Path
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _recorded: list[Recorded] = field(default_factory=list)
    _again: dict[str, Callable[[], object]] = field(default_factory=dict)

    def start(
        self,
        name: str,
        argv: Sequence[str],
        environ: Mapping[str, str] | None = None,
        *,
        umask: int = 0o022,
        cwd: Path = Path("/"),
        lasting: bool = False,
        follows: bool = False,
        stdin: IO[bytes] | None = None,
        stale: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start one in the background, its output appended to its log.

        A `lasting` one is started again when it ends, as a service manager would. `stale` is a file
        that an earlier run of it may have left in its own way.
        """
        if stale is not None:
            stale.unlink(missing_ok=True)
        path = self.logs / f"{name}.log"
        with path.open("ab") as log:
            child = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *argv],
                stdin=stdin or subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environ) if environ is not None else {"PATH": CLEAN_PATH, "LANG": "C.UTF-8"},
                umask=umask,
                cwd=cwd,
                start_new_session=True,  # Ctrl-C is for the supervisor alone: it ends them in order
            )
        self.children[name] = child
        if lasting:
            self._again[name] = partial(
                self.start, name, argv, environ, umask=umask, cwd=cwd, lasting=True, stale=stale
            )
        self.remember(name, child.pid, follows=follows)
        return child

    def look_after(self) -> Iterator[str]:
        """One line for each process that has ended since; lasting ones are started again."""
        for name, child in list(self.children.items()):
            if child.poll() is None:
                continue
            ended = f"{name} ended with code {child.returncode}; its log: {self.logs / name}.log"
            if name in self._again:
                self._again[name]()
                yield f"{ended}. Started again."
            else:
                del self.children[name]
                yield ended

    def reap(self) -> None:
        """Collect our own children, which have all been ended."""
        for child in self.children.values():
            child.wait()

    def remember(self, name: str, pid: int, *, follows: bool = False) -> None:
        """Note a process for `down`, before anything else can fail."""
        started = start_time(pid)
        if started is None:
            return
        self._recorded.append(Recorded(name, pid, started, follows))
        self._recorded = [known for known in self._recorded if known.is_alive]
        write_private(self.record, json.dumps([asdict(known) for known in self._recorded]))

    def tail(self, name: str, lines: int = 15) -> str:
        """The last lines of a process's log."""
        path = self.logs / f"{name}.log"
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def wait_for_line(self, name: str, line: str, timeout_s: float = 30.0) -> None:
        """Until a process has printed a line of its own. SiteError with its log where it ends first."""
        path = self.logs / f"{name}.log"
        deadline = time.monotonic() + timeout_s
        while line not in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if self.children[name].poll() is not None or time.monotonic() > deadline:
                raise SiteError(f"{name} did not start. Its log {path} ends:\n{self.tail(name)}")
            time.sleep(0.02)


def load_recorded(path: Path) -> list[Recorded]:
    """What `Processes` wrote; empty where there is nothing."""
    if not path.exists():
        return []
    return [Recorded(**row) for row in json.loads(path.read_text(encoding="utf-8"))]


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600, whole or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)
