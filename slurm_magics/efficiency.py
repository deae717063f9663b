"""What a job used of what it had asked for, from rows of the accounting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from slurm_magics.errors import SlurmError

if TYPE_CHECKING:
    import pandas as pd

FIELDS = "JobID,State,AllocCPUS,NNodes,ElapsedRaw,TotalCPU,ReqMem,MaxRSS,NTasks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """CPU time in seconds, memory in bytes; None where the accounting does not tell.

    Memory is the most that one task had at one time, against what the job asked for on each node.
    Of an array: all tasks together, and the memory of the largest. GPUs are not measured.
    """

    job_id: str
    state: str
    elapsed_s: int
    cpus: int
    cpu_used_s: float
    cpu_asked_s: int
    memory_used_bytes: int | None
    memory_asked_bytes: int | None

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
        parts = {"CPU": self.cpu, "memory": self.memory}
        told = ", ".join(
            f"{name} {'unknown' if one is None else f'{one:.0%}'}" for name, one in parts.items()
        )
        return f"Job {self.job_id}, {self.state}: {told} of what it asked for, in {self.elapsed_s} s"

    __repr__ = __str__


def measure(job_id: str, rows: pd.DataFrame) -> Efficiency:
    """From sacct's rows of the job and its steps.

    Raises:
        SlurmError: There are none.
    """
    jobs = rows[~rows["JobID"].str.contains(".", regex=False)]
    if jobs.empty:
        raise SlurmError(
            f"The accounting does not know job {job_id}.", "It may take some seconds to hear of it."
        )
    elapsed_s = jobs["ElapsedRaw"].dt.total_seconds()
    used, asked = rows["MaxRSS"].max(), jobs["ReqMem"].max()
    return Efficiency(
        job_id=job_id,
        state=str(jobs["State"].iloc[0]),
        elapsed_s=int(elapsed_s.max()),
        cpus=int(jobs["AllocCPUS"].sum()),
        cpu_used_s=float(jobs["TotalCPU"].dt.total_seconds().sum()),
        cpu_asked_s=int((elapsed_s * jobs["AllocCPUS"].astype("int64")).sum()),
        memory_used_bytes=_known(used),
        memory_asked_bytes=_known(asked),
    )


def _known(value: object) -> int | None:
    """None for pandas' NA."""
    return int(value) if isinstance(value, int) or hasattr(value, "__index__") else None
