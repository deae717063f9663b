"""What a job used of what it had asked for, from rows of the accounting."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpchub.schedulers.slurm_states import state_of
from slurm_magics.errors import SlurmError
from slurm_magics.job_ids import expand_job_id
from slurm_magics.watch import ORDER

if TYPE_CHECKING:
    import pandas as pd

FIELDS = "JobID,State,AllocCPUS,NNodes,ElapsedRaw,TotalCPU,ReqMem,MaxRSS,NTasks,AllocTRES,TRESUsageInTot"
_GPUS = re.compile(r"(?:^|,)gres/gpu=([0-9]+)", re.ASCII)
# Slurm's sampling of NVML and ROCm: hundredths of GPUs in use, of all processes of a step together.
_GPU_USE = re.compile(r"(?:^|,)gres/gpuutil=([0-9]+)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """CPU time in seconds, memory in bytes; None where the accounting does not tell.

    Memory is the most that one task had at one time, against what the job asked for on each node.
    Of an array: all tasks together, and the memory of the largest. GPUs are measured where Slurm itself
    does (JobAcctGather and AutoDetect=nvml or rsmi, from 21.08 on).
    """

    job_id: str
    state: str
    elapsed_s: int
    cpus: int
    cpu_used_s: float
    cpu_asked_s: int
    memory_used_bytes: int | None
    memory_asked_bytes: int | None
    gpus: int = 0
    gpus_used: float | None = None

    @property
    def gpu(self) -> float | None:
        """The part of its GPUs that it used, 0 to 1."""
        return min(1.0, self.gpus_used / self.gpus) if self.gpus and self.gpus_used is not None else None

    @property
    def cpu(self) -> float | None:
        """The part of its CPUs' time that it used, 0 to 1."""
        return self.cpu_used_s / self.cpu_asked_s if self.cpu_asked_s else None

    @property
    def memory(self) -> float | None:
        """The part of its memory that it used, 0 to 1."""
        if self.memory_used_bytes is None or not self.memory_asked_bytes:
            return None
        return self.memory_used_bytes / self.memory_asked_bytes

    def __str__(self) -> str:
        parts = {"CPU": self.cpu, "memory": self.memory} | ({"GPU": self.gpu} if self.gpus else {})
        told = ", ".join(
            f"{name} {'unknown' if one is None else f'{one:.0%}'}" for name, one in parts.items()
        )
        return f"Job {self.job_id}, {self.state}: {told} of what it asked for, in {self.elapsed_s} s"

    __repr__ = __str__


def has_heard(rows: pd.DataFrame, tasks: int) -> bool:
    """Whether the accounting has the end of a job, or of each task of an array of so many.

    One row may be of many tasks: those that were cancelled before they began.
    """
    jobs = _jobs_of(rows)
    known = sum(map(_tasks_of, jobs["JobID"]))
    return known >= max(1, tasks) and all(state_of(str(one)).is_final for one in jobs["State"])


def measure(job_id: str, rows: pd.DataFrame) -> Efficiency:
    """From sacct's rows of the job and its steps.

    Raises:
        SlurmError: There are none.
    """
    jobs = _jobs_of(rows)
    if jobs.empty:
        raise SlurmError(
            f"The accounting does not know job {job_id}.", "It may take some seconds to hear of it."
        )
    elapsed_s = jobs["ElapsedRaw"].dt.total_seconds()
    used, asked = rows["MaxRSS"].max(), _asked_on_each_node(jobs).max()
    return Efficiency(
        job_id=job_id,
        state=min(map(str, jobs["State"]), key=lambda native: ORDER.index(state_of(native))),
        elapsed_s=int(elapsed_s.max()),
        cpus=int(jobs["AllocCPUS"].sum()),
        cpu_used_s=float(jobs["TotalCPU"].dt.total_seconds().sum()),
        cpu_asked_s=int((elapsed_s * jobs["AllocCPUS"].astype("int64")).sum()),
        memory_used_bytes=_known(used),
        memory_asked_bytes=_known(asked),
        gpus=int(sum(_found(_GPUS, jobs["AllocTRES"]))),
        gpus_used=_gpus_used(rows),
    )


def _asked_on_each_node(jobs: pd.DataFrame) -> pd.Series[int]:
    """ReqMem is of the whole job; before 21.08 it was of each node or each CPU, and said so."""
    asked, nodes = jobs["ReqMem"], jobs["NNodes"].clip(lower=1)
    if "ReqMemPer" not in jobs:
        return asked // nodes
    per = jobs["ReqMemPer"].astype("object")
    return asked.where(per == "node", asked * jobs["AllocCPUS"] // nodes)


def _jobs_of(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[~rows["JobID"].str.contains(".", regex=False)]


def _tasks_of(job_id: str) -> int:
    try:
        return len(expand_job_id(job_id))
    except ValueError:  # a list that Slurm has shortened
        return 1


def _found(pattern: re.Pattern[str], texts: Iterable[object]) -> list[int]:
    return [int(match[1]) for text in texts if (match := pattern.search(str(text)))]


def _gpus_used(rows: pd.DataFrame) -> float | None:
    """Of each job the busiest of its steps; None where nothing was measured."""
    steps = rows[rows["JobID"].str.contains(".", regex=False)]
    used: dict[str, int] = {}
    for job_id, text in zip(steps["JobID"], steps["TRESUsageInTot"], strict=True):
        for percent in _found(_GPU_USE, [text]):
            job = str(job_id).partition(".")[0]
            used[job] = max(percent, used.get(job, 0))
    return sum(used.values()) / 100 if used else None


def _known(value: object) -> int | None:
    """None for pandas' NA."""
    return int(value) if isinstance(value, int) or hasattr(value, "__index__") else None
