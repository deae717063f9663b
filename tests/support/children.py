"""The processes that a process has started: who they are, what they show, and how they are stopped."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def watched_children(name: str) -> Iterator[list[str]]:
    """Arguments and environment of each child of this process whose arguments name `name`."""
    found: dict[int, str] = {}
    seen: list[str] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.002):
            for task in Path("/proc/self/task").iterdir():
                with suppress(OSError):  # threads and children come and go
                    for pid in map(int, (task / "children").read_text().split()):
                        arguments = Path(f"/proc/{pid}/cmdline").read_text()
                        if pid not in found and name in arguments:
                            found[pid] = arguments + Path(f"/proc/{pid}/environ").read_text()

    thread = threading.Thread(target=watch, name=f"watch-{os.getpid()}")
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()
        seen.extend(found.values())


def descendants(pid: int) -> list[int]:
    """All that a process and its children have started, parents first. Those may come and go meanwhile."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended, and so started nothing more
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *descendants(child)]
    return found


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process and all that it started stand still (SIGSTOP) while the block lasts.

    Who is stopped starts nothing more, so we look until nothing new is there: sshd starts the child that
    serves a session only after it has told the client of its login.
    """
    stopped: list[int] = []
    try:
        while started := [one for one in (pid, *descendants(pid)) if one not in stopped]:
            for one in started:
                stopped.append(one)
                _signal(one, signal.SIGSTOP)
        yield
    finally:
        for one in reversed(stopped):
            _signal(one, signal.SIGCONT)


def kill_descendants(pid: int) -> None:
    """Kill all that a process has started, and nothing that it starts afterwards."""
    with frozen(pid):
        for one in descendants(pid):
            _signal(one, signal.SIGKILL)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has ended by itself
        os.kill(pid, number)
