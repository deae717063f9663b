"""What a job used of what it had asked for."""

from __future__ import annotations

import pandas as pd
import pytest

from slurm_magics import SlurmError
from slurm_magics.efficiency import has_heard, measure

GB = 1 << 30


def rows(*usage: str, gpus: str = "cpu=4,gres/gpu=2,node=1") -> pd.DataFrame:
    """A job of 4 CPUs and 100 s, and its steps."""
    ids = ["42", *(f"42.{step}" for step in range(len(usage)))]
    return pd.DataFrame(
        {
            "JobID": ids,
            "State": ["COMPLETED"] * len(ids),
            "AllocCPUS": pd.array([4] * len(ids), dtype="Int64"),
            "NNodes": pd.array([1] * len(ids), dtype="Int64"),
            "ElapsedRaw": pd.to_timedelta([100] * len(ids), unit="s"),
            "TotalCPU": pd.to_timedelta([300] * len(ids), unit="s"),
            "ReqMem": pd.array([4 * GB, *[pd.NA] * len(usage)], dtype="Int64"),
            "MaxRSS": pd.array([pd.NA, *[GB] * len(usage)], dtype="Int64"),
            "AllocTRES": [gpus] * len(ids),
            "TRESUsageInTot": ["", *usage],
        }
    )


def test_cpus_memory_and_gpus() -> None:
    """As parts of what was asked for; of several steps the one that used most GPUs."""
    found = measure("42", rows("cpu=1,gres/gpumem=1G,gres/gpuutil=30", "gres/gpuutil=150"))
    assert (found.cpu, found.memory, found.gpu, found.gpus) == (0.75, 0.25, 0.75, 2)
    assert str(found) == "Job 42, COMPLETED: CPU 75%, memory 25%, GPU 75% of what it asked for, in 100 s"


def test_memory_is_compared_with_what_was_asked_on_each_node() -> None:
    """ReqMem is of all nodes together; before 21.08 of each node, or of each CPU."""
    two = rows("cpu=1").assign(NNodes=pd.array([2, 2], dtype="Int64"))
    assert measure("42", two).memory == 0.5
    assert measure("42", two.assign(ReqMemPer=["node", ""])).memory == 0.25
    assert measure("42", two.assign(ReqMemPer=["CPU", ""])).memory_asked_bytes == 8 * GB


def test_gpus_that_nobody_measured() -> None:
    """Are unknown, not idle; where there are none they are not spoken of."""
    found = measure("42", rows("cpu=1"))
    assert (found.gpu, found.gpus) == (None, 2)
    assert "GPU unknown" in str(found)
    assert "GPU" not in str(measure("42", rows("cpu=1", gpus="cpu=4")))


def test_an_array_is_what_its_worst_task_is() -> None:
    """The first task ended well, the second failed: so did the array."""
    both = pd.concat([rows().assign(JobID="42_0"), rows().assign(JobID="42_1", State="FAILED")])
    assert measure("42", both).state == "FAILED"


def test_what_the_accounting_has_not_heard_yet() -> None:
    """A job that still runs there, or of an array a task that is missing."""
    assert has_heard(rows("cpu=1"), tasks=0)
    assert not has_heard(rows().assign(State="RUNNING"), tasks=0)
    assert not has_heard(rows().iloc[:0], tasks=0)
    assert not has_heard(rows("cpu=1"), tasks=2)


def test_tasks_that_never_began_are_one_row() -> None:
    """An array that was cancelled: as sacct 22.05 has it."""
    array = pd.concat(
        [rows().assign(JobID="42_1"), rows().assign(JobID="42_[2-9%4]", State="CANCELLED by 1")]
    )
    assert has_heard(array, tasks=9)
    assert not has_heard(array, tasks=10)
    assert not has_heard(array.assign(JobID=["42_1", "42_[2,4,...]"]), tasks=9)


def test_a_job_that_the_accounting_does_not_know() -> None:
    """Said, not guessed."""
    with pytest.raises(SlurmError, match="does not know job 42"):
        measure("42", rows().iloc[:0])
