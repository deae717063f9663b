"""The processes of a demo's hub side, killed and started again."""

from __future__ import annotations

import json
import os
import signal

from support.demo import Demo
from support.servers import until


def pid_of(demo: Demo, name: str) -> int:
    """The process's id, of its newest start."""
    rows = json.loads((demo.directory / "processes.json").read_text())
    return int(next(row["pid"] for row in reversed(rows) if row["name"] == name))


def restart(demo: Demo, *names: str, number: signal.Signals = signal.SIGKILL) -> None:
    """End processes of the hub side by their ids, at once; return when new ones have been started."""
    before = {name: pid_of(demo, name) for name in names}
    for pid in before.values():
        os.kill(pid, number)
    until(
        lambda: all(_runs_anew(demo, name, pid) for name, pid in before.items()),
        f"{names} were started again",
    )


def _runs_anew(demo: Demo, name: str, before: int) -> bool:
    try:
        return pid_of(demo, name) != before
    except StopIteration:  # another's new start was recorded first, and the dead are left out then
        return False
