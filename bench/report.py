"""The bench's results as a table: printed, and written to bench/results/."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(slots=True)
class Report:
    """Sections of Markdown, and the raw numbers beside them."""

    numbers: dict[str, Any] = field(default_factory=dict)
    _parts: list[str] = field(default_factory=list)

    def add(self, title: str, note: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """One table under a title."""
        lines = [f"## {title}", "", note, "", _line(head), _line(["---", *["---:"] * (len(head) - 1)])]
        self._parts.append("\n".join([*lines, *map(_line, rows)]))

    def text(self, moment: datetime, took_s: float, title: str = "Bench") -> str:
        """The whole page."""
        facts = "\n".join(f"- {name}: {value}" for name, value in self.numbers["machine"].items())
        head = f"# {title} of {moment:%Y-%m-%d %H:%M} UTC\n\n{facts}\n- the whole bench: {took_s:.0f} s"
        return "\n\n".join([head, *self._parts]) + "\n"

    def write(self, took_s: float, title: str = "Bench", suffix: str = "") -> tuple[str, Path]:
        """Write .md and .json, named after the moment and the suffix; the page and its path."""
        moment = datetime.now(UTC)
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{moment:%Y-%m-%dT%H%MZ}{suffix}.md"
        page = self.text(moment, took_s, title)
        path.write_text(page, encoding="utf-8")
        path.with_suffix(".json").write_text(json.dumps(self.numbers, indent=1) + "\n", encoding="utf-8")
        return page, path


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ("jupyterhub", "asyncssh", "aiohttp", "hpchub")
    return {
        "cores": f"{os.cpu_count()} ({_processor()})",
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "load before": " ".join(f"{one:.2f}" for one in os.getloadavg()),
        "Python": platform.python_version(),
        "a write to the disk (fsync)": f"{1000 * _fsync_s():.2f} ms",
        **{name: importlib.metadata.version(name) for name in versions},
        "Slurm": _first_line("/usr/sbin/slurmd", "-V"),
        "OpenSSH": _first_line("ssh", "-V"),
        "node": _first_line("node", "--version"),
    }


def spread(values: Sequence[float], digits: int) -> list[str]:
    """Median, least and greatest, as text."""
    return [f"{one:.{digits}f}" for one in (statistics.median(values), min(values), max(values))]


def milliseconds(phases: Mapping[str, float]) -> list[str]:
    """Each phase in whole milliseconds."""
    return [f"{1000 * one:.0f}" for one in phases.values()]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _fsync_s() -> float:
    """The median of some, beside the databases: each commit of SQLite waits for it."""
    times = []
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(50):
            file.write(b"x" * 4096)
            file.flush()
            began = time.monotonic()
            os.fsync(file.fileno())
            times.append(time.monotonic() - began)
    return statistics.median(times)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _first_line(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().partition("\n")[0]
