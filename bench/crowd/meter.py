"""What a process has used: seconds of CPU, and memory (smaps_rollup's Pss), as the kernel counts them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Seconds of CPU of a process so far, its threads included."""
    fields = (
        Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    )
    return (int(fields[11]) + int(fields[12])) / _TICKS


def pss_mib(pid: int) -> float:
    """Proportional set size in MiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return int(text.partition("\nPss:")[2].split()[0]) / 1024


@dataclass(slots=True)
class Span:
    """CPU shares over a stretch of time, by process."""

    pids: Mapping[str, int]
    began: float
    before: dict[str, float]

    @classmethod
    def begin(cls, pids: Mapping[str, int]) -> Span:
        """From now on."""
        return cls(dict(pids), time.monotonic(), {name: cpu_s(pid) for name, pid in pids.items()})

    @property
    def seconds(self) -> float:
        """How long so far."""
        return time.monotonic() - self.began

    def used_s(self) -> dict[str, float]:
        """Seconds of CPU since the begin."""
        return {name: cpu_s(pid) - self.before[name] for name, pid in self.pids.items()}

    def percent(self) -> dict[str, float]:
        """The share of one core since the begin."""
        return {name: 100 * used / self.seconds for name, used in self.used_s().items()}
