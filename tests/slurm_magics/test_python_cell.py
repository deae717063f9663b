"""`%%sbatch --python`: the script is run here, as the job would run it; Slurm's commands are stand-ins."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from slurm_magics import SlurmError
from support.slurm_commands import Commands

OVER = "42\x1fCOMPLETED\x1fc1\x1fNone\x1f1795259154\x1f1795262754\n"


@pytest.fixture
def slurm(commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """A Slurm whose jobs have always ended well."""
    monkeypatch.setenv("HOME", str(tmp_path))
    commands.answer("sbatch", "42\n")
    commands.answer("scontrol", "JobId=42 JobName=x\n")
    commands.answer("squeue", OVER)
    commands.answer("sacct", "42\x1fCOMPLETED\x1fc1\x1f0:0\n")
    return commands


def submit(shell: InteractiveShell, slurm: Commands, cell: str, **environ: str) -> tuple[Any, int]:
    """The job, and the exit code of its script."""
    shell.run_cell(f"%%sbatch --as job --python -t 5\n{cell}").raise_error()
    script = slurm.calls("sbatch")[-1]["stdin"]
    variables = {"SLURM_JOB_ID": "42", "HOME": os.environ["HOME"], **environ}
    done = subprocess.run(
        ("/bin/bash",), input=script, text=True, env=variables, capture_output=True, check=False
    )
    return shell.user_ns["job"], done.returncode


def test_variables_travel_and_the_value_comes_back(shell: InteractiveShell, slurm: Commands) -> None:
    """Functions of the notebook, modules and frames as well; what the cell does not use stays at home."""
    shell.run_cell("import math, threading\nimport pandas as pd\nhalf = 0.5").raise_error()
    shell.run_cell("def twice(x):\n    return 2 * x * math.floor(half + 0.5)").raise_error()
    shell.run_cell("frame = pd.DataFrame({'a': [1, 2]})\nlock = threading.Lock()").raise_error()
    cell = "#SBATCH --mem=1G\nlock = None\nassert lock is None\ntotal = twice(int(frame.a.sum()))\n"
    cell += "{'total': total, 'braces': f'{total}'}"
    job, code = submit(shell, slurm, cell)
    assert code == 0
    assert job.result(10) == {"total": 6, "braces": "6"}
    script = slurm.calls("sbatch")[0]["stdin"].splitlines()
    assert script[:2] == ["#!/bin/bash", "#SBATCH --mem=1G"]
    folder = job.submission.results
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder.parent)] == [0o700, 0o700]


def test_what_the_cell_raises_is_raised_here(shell: InteractiveShell, slurm: Commands) -> None:
    """The same exception, with the job's traceback."""
    job, code = submit(shell, slurm, "def f():\n    return [][1]\nf()")
    assert code == 1
    with pytest.raises(IndexError) as caught:
        job.result(10)
    assert "In job 42:" in caught.value.__notes__[0]
    assert "line 2, in f" in caught.value.__notes__[0]
    assert "python_runner" not in caught.value.__notes__[0]


def test_each_task_of_an_array_has_a_result(shell: InteractiveShell, slurm: Commands) -> None:
    """By its number."""
    slurm.answer("squeue", OVER.replace("42", "42_7"))
    slurm.answer("scontrol", "JobId=42 ArrayJobId=42 ArrayTaskId=7 JobName=x\n   StdOut=/x\n\n")
    slurm.answer("sacct", "42_7\x1fCOMPLETED\x1fc1\x1f0:0\n")
    cell = "import os\nint(os.environ['SLURM_ARRAY_TASK_ID']) ** 2"
    job, _ = submit(shell, slurm, cell, SLURM_ARRAY_JOB_ID="42", SLURM_ARRAY_TASK_ID="7")
    assert job.array[7].result(10) == 49


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("lock.acquire()", "lock, of type lock, cannot travel to the job"),
        ("print(next(numbers))", "numbers, of type generator, cannot travel"),
        ("x = (", "The cell is no Python"),
    ],
)
def test_what_cannot_travel_is_named(shell: InteractiveShell, slurm: Commands, cell: str, words: str) -> None:
    """Before anything is submitted or written."""
    shell.user_ns |= {"lock": threading.Lock(), "numbers": (n for n in [1])}
    error = shell.run_cell(f"%%sbatch --python\n{cell}").error_in_exec
    assert isinstance(error, SlurmError)
    assert words in error.message
    assert slurm.calls("sbatch") == []
    assert not Path("~/.slurm_magics").expanduser().exists()


def test_a_value_that_cannot_travel_is_named(shell: InteractiveShell, slurm: Commands) -> None:
    """The job has run all the same."""
    job, code = submit(shell, slurm, "import threading\nthreading.Lock()")
    assert code == 1
    with pytest.raises(SlurmError, match="result, of type lock, cannot travel"):
        job.result(10)


def test_a_job_without_a_result_says_so(
    shell: InteractiveShell, slurm: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was killed; one that was no Python at all; one of a line."""
    monkeypatch.setattr("slurm_magics.python_cell._LATE_S", 0.0)
    shell.run_cell("%%sbatch --as job --python\n1").raise_error()
    with pytest.raises(SlurmError, match="Job 42 left no result"):
        shell.user_ns["job"].result(10)
    shell.run_cell("%%sbatch --as job\ntrue").raise_error()
    with pytest.raises(SlurmError, match="has no result"):
        shell.user_ns["job"].result()
    assert "takes a cell" in str(shell.run_cell("%sbatch --python x.sh").error_in_exec)


def test_a_dry_run_writes_nothing(shell: InteractiveShell, slurm: Commands) -> None:
    """It shows the script."""
    shown = shell.run_cell("%%sbatch --dry-run --python\n1").result
    assert "python_runner.py" in shown
    assert not Path("~/.slurm_magics").expanduser().exists()
