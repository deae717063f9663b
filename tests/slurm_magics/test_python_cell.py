"""`%%sbatch --python`: the script is run here, as the job would run it; Slurm's commands are stand-ins."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from slurm_magics import SlurmError
from slurm_magics.python_cell import pack
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
    cell += "#SBATCH -N 9\n{'total': total, 'braces': f'{total}'}"
    job, code = submit(shell, slurm, cell)
    assert code == 0
    assert job.result(10) == {"total": 6, "braces": "6"}
    script = slurm.calls("sbatch")[0]["stdin"].splitlines()
    assert script[:2] == ["#!/bin/bash", "#SBATCH --mem=1G"]
    assert script[2].startswith("exec ")
    folder = job.submission.results
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder.parent)] == [0o700, 0o700]


def test_what_the_cell_raises_is_raised_here(
    shell: InteractiveShell, slurm: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same exception, with the job's traceback."""
    job, code = submit(shell, slurm, "def f():\n    return [][1]\nf()")
    assert code == 1
    with pytest.raises(IndexError) as caught:
        job.result(10)
    assert "In job 42:" in caught.value.__notes__[0]
    assert "line 2, in f" in caught.value.__notes__[0]
    assert "python_runner" not in caught.value.__notes__[0]
    shell.user_ns["job"] = job
    shell.run_cell("job.result(10)")
    shown = capsys.readouterr().out
    assert "line 2, in f" in shown
    assert "python_cell.py" not in shown, "people should see the job's traceback, not ours"


def test_what_nobody_has_made_is_named(shell: InteractiveShell, slurm: Commands) -> None:
    """Before anything is submitted: a job that waits for hours would only fail."""
    error = shell.run_cell("%%sbatch --python\nmodel = train(data)\nmodel.score").error_in_exec
    assert isinstance(error, SlurmError)
    assert "uses data, train, and" in error.message
    assert slurm.calls() == []


@pytest.mark.parametrize(
    "cell",
    [
        "import os.path as p, sys\nfrom math import pi\np, sys, pi, print, __name__",
        "def f(a, *b, c=1, **d):\n    global g\n    g = [x for x in b if (y := x)]\n    return a, c, d, h()\n"
        "def h(): return f, g",
        "class A:\n    one = 1\n    two: int = one\nA().two",
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    print(error)",
        "with open('/dev/null') as file:\n    {k: v for k, v in zip('a', 'b')}\n    (lambda z: z)(file)",
        "match [1, 2]:\n    case [first, *rest]:\n        print(first, rest)",
        "from os.path import *\njoin('a', 'b')",
        "total = given\ntotal += 1",
        "class Model:\n    given = given\n    other: int = 1\nModel().given",
        "step: int = 1\nstep",
        "exit(0)",
    ],
)
def test_what_the_cell_makes_itself_is_known(cell: str) -> None:
    """Whichever way a name is made, in whichever scope."""
    assert pack(cell, {"given": 1}).cell == cell


@pytest.mark.parametrize(
    "cell",
    [
        "exec('made = 1')\nprint(made)",
        "globals().update(given)\nrate",
        "vars().update(given)\nrate",
        "import builtins\nbuiltins.rate = 1\nrate",
        "try:\n    rate\nexcept NameError:\n    print('without')",
        "try:\n    rate()\nexcept Exception:\n    print('without')",
        "try:\n    rate()\nexcept:\n    print('without')",
        "def never():\n    return made_later",
        "(lambda: rate)",
    ],
)
def test_what_may_run_is_not_refused(cell: str) -> None:
    """Only what must fail is: who means to make a name at run time, or to live without one, knows better."""
    assert pack(cell, {"given": {}}).cell == cell


@pytest.mark.parametrize("name", ["display", "__IPYTHON__", "get_ipython"])
def test_what_ipython_alone_has_is_refused(shell: InteractiveShell, slurm: Commands, name: str) -> None:
    """A job has Python's own names, though a notebook finds these among them."""
    error = shell.run_cell(f"%%sbatch --python\n{name}").error_in_exec
    assert isinstance(error, SlurmError)
    assert name in error.message
    assert slurm.calls("sbatch") == []


def test_an_exit_is_pythons_own(shell: InteractiveShell, slurm: Commands) -> None:
    """IPython's would end the notebook, and stays there."""
    assert submit(shell, slurm, "exit(3)")[1] == 3


def test_variables_of_functions_and_loops_stay_at_home(shell: InteractiveShell, slurm: Commands) -> None:
    """The notebook's variables of the same names are others: some could not travel."""
    locks = {name: threading.Lock() for name in ("argument", "local", "step", "key", "one", "caught")}
    shell.user_ns |= locks
    cell = """
def twice(argument):
    local = argument * 2
    for step in range(3):
        local += 0 * step
    return local, (lambda one: one)(1), locals()
class Kind:
    key = 1
    other = key
try:
    1 / 0
except ZeroDivisionError as caught:
    print(caught)
[twice(one)[0] for one in range(3)], {key: step for key, step in {}.items()}
"""
    job, _ = submit(shell, slurm, cell)
    assert job.result(10) == ([0, 2, 4], {})
    kept = pickle.loads((job.submission.results / "names.pickle").read_bytes())  # noqa: S301  what the test has written
    assert locks.keys().isdisjoint(kept)
    assert pack("def f(x):\n    x = x + 1\n    return x\nf(1)", {"x": 1}).names == pack("1", {}).names


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
        ("return 1", "The cell is no Python: 'return' outside function (line 1)"),
        ("x = 1\nawait x", "The cell is no Python: 'await' outside function (line 2)"),
        ("(" * 1000 + "1", "The cell is no Python"),
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
    with pytest.raises(SlurmError, match=r"Job 42 left no result\. Ended"):
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


@pytest.mark.parametrize(("code", "exit_code"), [("0", 0), ("3", 3), ("", 0), ("'enough'", 1)])
def test_an_exit_is_the_jobs_and_not_the_notebooks(
    shell: InteractiveShell, slurm: Commands, code: str, exit_code: int
) -> None:
    """The job ends with that code; whoever asks for its result is told, and goes on."""
    job, ended = submit(shell, slurm, f"import sys\nsys.exit({code})")
    assert ended == exit_code
    with pytest.raises(SlurmError, match=r"left no result. Its cell ended with sys.exit"):
        job.result(10)


def test_an_interrupt_of_the_job_is_none_of_the_notebook(shell: InteractiveShell, slurm: Commands) -> None:
    """It is told, with where it was."""
    job, code = submit(shell, slurm, "raise KeyboardInterrupt")
    assert code == 1
    with pytest.raises(SlurmError, match=r"line 1, in <module>\nKeyboardInterrupt"):
        job.result(10)


def test_an_exception_that_cannot_be_made_again_is_told(shell: InteractiveShell, slurm: Commands) -> None:
    """As text, with where it was raised: one that wants more than its words is no rarity."""
    cell = "class Broken(Exception):\n    def __init__(self, a, b):\n        super().__init__(f'{a} {b}')\n"
    job, _ = submit(shell, slurm, f"{cell}raise Broken('no', 'luck')")
    with pytest.raises(
        SlurmError, match=r"cannot be made here(?s:.*)line 4, in <module>\n\S*Broken: no luck"
    ):
        job.result(10)


def test_a_variable_that_the_cell_changes_travels(shell: InteractiveShell, slurm: Commands) -> None:
    """Though the cell never reads it; and what looks like a directive in a text further down is none."""
    shell.user_ns |= {"total": 40, "gone": 1}
    cell = '# a note\n\n#SBATCH --mem=1G\ntotal += 2\ndel gone\ntext = """\n#SBATCH --mem=9T\n"""\ntotal'
    job, _ = submit(shell, slurm, cell)
    assert job.result(10) == 42
    assert slurm.calls("sbatch")[0]["stdin"].count("#SBATCH") == 1


def test_a_home_that_cannot_be_written(
    shell: InteractiveShell, slurm: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is said, nothing is submitted, and nothing is left there."""

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    error = shell.run_cell("%%sbatch --python\n1").error_in_exec
    assert isinstance(error, SlurmError)
    assert "cannot be written to" in error.message
    assert "No space left on device" in error.message
    assert slurm.calls("sbatch") == []
    assert list((tmp_path / ".slurm_magics" / "python").iterdir()) == []


def test_what_was_left_is_gone(shell: InteractiveShell, slurm: Commands) -> None:
    """Somebody has tidied up: said in a line."""
    job, _ = submit(shell, slurm, "1")
    shutil.rmtree(job.submission.results)
    with pytest.raises(SlurmError, match=r"cannot be read: No such file"):
        job.result(10)


def test_an_array_has_the_results_of_its_tasks(shell: InteractiveShell, slurm: Commands) -> None:
    """It says so at once, rather than to wait for one that nobody leaves."""
    slurm.answer("scontrol", "JobId=42 ArrayJobId=42 ArrayTaskId=2-7 JobName=x\n   StdOut=/x\n\n")
    job, _ = submit(shell, slurm, "1")
    with pytest.raises(SlurmError, match="42 is an array") as caught:
        job.result()
    assert caught.value.hint == "For example: job.array[2].result()"
