"""What a process has used: seconds of CPU, and memory (smaps_rollup's Pss), as the kernel counts them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Seconds of CPU of a process so far, its threads included."""
    return _used_s(Path(f"/proc/{pid}/stat"))


def main_thread_cpu_s(pid: int) -> float:
    """Seconds of CPU of a process's first thread: of Python's and node's event loops."""
    return _used_s(Path(f"/proc/{pid}/task/{pid}/stat"))


def open_files(pid: int) -> int:
    """How many file descriptors a process holds."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


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


# Above these shares of a second a loop, and the machine, count as busy throughout.
_BUSY, _ALL_BUSY = 0.9, 0.95


class Load:
    """Looks at event loops each second while the context lasts: a mean hides who was at the limit."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._seconds = dict.fromkeys([*pids, "machine"], 0.0)
        self._busy = dict(self._seconds)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    @property
    def busy_percent(self) -> dict[str, float]:
        """For how much of the time each loop was at its limit, one core; `machine`: all cores were."""
        return {
            name: 100 * self._busy[name] / seconds if seconds else 0.0
            for name, seconds in self._seconds.items()
        }

    async def _look(self) -> None:
        at, before = time.monotonic(), self._used()
        while True:
            await asyncio.sleep(1.0)
            now, used = time.monotonic(), self._used()
            for name, seconds in used.items():
                self._seconds[name] += now - at
                limit = _ALL_BUSY * (os.cpu_count() or 1) if name == "machine" else _BUSY
                if seconds - before[name] >= limit * (now - at):
                    self._busy[name] += now - at
            at, before = now, used

    def _used(self) -> dict[str, float]:
        used = {name: main_thread_cpu_s(pid) for name, pid in self._pids.items()}
        # proc_stat(5): user, nice, system, idle, iowait, irq, softirq
        fields = Path("/proc/stat").read_text(encoding="ascii").split(maxsplit=8)[1:8]
        user, nice, system, _idle, _iowait, irq, softirq = (int(one) for one in fields)
        return used | {"machine": (user + nice + system + irq + softirq) / _TICKS}


def _used_s(stat: Path) -> float:
    fields = stat.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
