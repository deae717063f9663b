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


def restart(demo: Demo, name: str) -> None:
    """Kill one process of the hub side by its id; the supervisor starts it again."""
    before = pid_of(demo, name)
    os.kill(before, signal.SIGKILL)
    until(lambda: pid_of(demo, name) != before, f"{name} was started again")
