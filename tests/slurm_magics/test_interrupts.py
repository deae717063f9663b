"""Ctrl-C at any moment: no job is lost, nothing goes on unseen, one line is shown. Commands are stand-ins."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from IPython.core.async_helpers import get_asyncio_loop
from IPython.core.interactiveshell import InteractiveShell

from slurm_magics import local_process
from slurm_magics.errors import Interrupted
from slurm_magics.job import Job
from slurm_magics.jobs import Jobs
from slurm_magics.machine import Local
from slurm_magics.session import Session
from slurm_magics.settings import Settings
from slurm_magics.submission import Outputs, Submission
from support.ctrl_c import press_ctrl_c
from support.slurm_commands import Commands


@pytest.fixture
def job(commands: Commands) -> Job:
    """One that runs."""
    commands.answer("squeue", "42\x1fRUNNING\x1fc1\x1fNone\x1f1795259154\x1f4102444800\n")
    jobs = Jobs(Session(Local(), Settings()))
    return Job(jobs, "42", Submission(words=(), folder=Path.cwd()), "", Outputs())


@pytest.mark.parametrize("presses", [1, 3])
def test_ctrl_c_lets_srun_cancel(
    shell: InteractiveShell,
    commands: Commands,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    presses: int,
) -> None:
    """It is told by SIGHUP and waited for, however often that is pressed; what it printed and one line are
    shown, and no traceback.
    """
    begun, told, goes, ended = (tmp_path / name for name in ("begun", "told", "goes", "ended"))
    program = commands.folder / "srun"
    script = (
        f"cancel() {{ echo >{told}; until [ -e {goes} ]; do /bin/sleep 0.05; done; echo >{ended}; }}\n"
        "trap 'cancel; echo last; echo srun: forced >&2; exit' HUP\n"
        f"echo first\necho >{begun}\nwhile :; do /bin/sleep 0.05; done\n"
    )
    program.write_text(f"#!/bin/sh\n{script}")
    program.chmod(0o755)
    press_ctrl_c(begun.exists)
    press_ctrl_c(told.exists, presses - 1, goes.touch)
    error = shell.run_cell("%srun hostname").error_in_exec
    assert isinstance(error, Interrupted)
    assert ended.exists()
    shown, errors = capsys.readouterr()
    assert shown.startswith("first\nlast\n")
    assert errors == ("" if presses == 1 else "Waiting for srun to cancel what it has begun.\n")
    assert "Interrupted: srun was ended, and what it had begun in the cluster is cancelled." in shown
    assert "Traceback" not in shown


def test_ctrl_c_while_a_command_starts(
    shell: InteractiveShell, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has started, and is ended: a job of its would be nobody's."""
    started = []

    class Starting(local_process._Command):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(local_process, "_Command", Starting)
    program = commands.folder / "srun"
    program.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    program.chmod(0o755)
    assert isinstance(shell.run_cell("%srun ./program").error_in_exec, Interrupted)
    (process,) = started
    assert process.returncode == -signal.SIGHUP


def test_an_srun_that_does_not_end_is_killed(
    shell: InteractiveShell,
    commands: Commands,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And it is not said that anything was cancelled."""
    monkeypatch.setattr("slurm_magics.local_process.CANCELS_WITHIN_S", 0.1)
    program = commands.folder / "srun"
    program.write_text(
        f"#!/bin/sh\ntrap '' HUP\nkill -INT {os.getpid()}\nwhile :; do /bin/sleep 0.05; done\n"
    )
    program.chmod(0o755)
    assert isinstance(shell.run_cell("%srun hostname").error_in_exec, Interrupted)
    assert "srun did not end when it was told to, and was killed. What it had begun may go on" in (
        capsys.readouterr().out
    )


def test_ctrl_c_ends_an_await(
    shell: InteractiveShell, job: Job, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    """In plain IPython, which has no handler of its own: one line, and nothing goes on behind it. Ctrl-C in
    other code is its own.
    """
    shell.user_ns["job"] = job
    press_ctrl_c(lambda: commands.calls("squeue"))
    with contextlib.closing(get_asyncio_loop()) as loop:
        error = shell.run_cell("await job").error_in_exec
        assert isinstance(error, KeyboardInterrupt)
        assert capsys.readouterr().out.strip() == "Not waiting any more. Job 42 goes on."
        assert not asyncio.all_tasks(loop)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        others = "import signal\nasync def f(): signal.raise_signal(2)\nawait f()"
        error = shell.run_cell(others).error_in_exec
    assert isinstance(error, KeyboardInterrupt)
    assert "Traceback" in capsys.readouterr().out


def test_a_wait_that_is_left_behind_keeps_no_ctrl_c(job: Job) -> None:
    """Where its loop has stopped, Ctrl-C is Python's again. A wait that is cancelled stays cancelled."""

    async def wait() -> None:
        await job

    with contextlib.closing(asyncio.new_event_loop()) as loop:
        waiting = loop.create_task(wait())
        loop.run_until_complete(asyncio.sleep(0.01))
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(waiting)
        loop.run_until_complete(loop.shutdown_default_executor())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("cell", "place", "words"),
    [
        ("%squeue -o %i", "slurm_magics.reading.Reading.feed", "Interrupted: squeue was given up."),
        ("%squeue -o %i", "slurm_magics.reading.Reading.frame", "Interrupted: squeue was given up."),
        ("job.state", "slurm_magics.local_process._talk", "Interrupted."),
        ("job.efficiency()", "slurm_magics.local_process._talk", "Interrupted: sacct was given up."),
    ],
)
def test_ctrl_c_at_any_moment(
    shell: InteractiveShell,
    commands: Commands,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cell: str,
    place: str,
    words: str,
) -> None:
    """Is one line: while an answer is read, and while a job is asked for its state."""

    def press(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    commands.answer("sbatch", "42\n")
    commands.answer("scontrol")
    commands.answer("squeue", "MARK\x1fJOBID\x1fMARK\n")
    shell.run_cell("%%sbatch --as job\ntrue").raise_error()
    if "efficiency" in cell:
        commands.answer("squeue")
        commands.answer("sacct")
        _ = shell.user_ns["job"].state
    monkeypatch.setattr(place, press)
    shell.run_cell(cell)
    assert capsys.readouterr().out.strip() == words


def test_ctrl_c_behind_sbatch_loses_no_job(
    shell: InteractiveShell,
    commands: Commands,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It has been submitted: the person gets it, and its number. The cell ends all the same."""

    def press(*_: object, **__: object) -> None:
        raise Interrupted("scontrol")

    commands.answer("sbatch", "42;alpha\n")
    monkeypatch.setattr(Jobs, "outputs", press)
    assert isinstance(shell.run_cell("%%sbatch --as job\ntrue").error_in_exec, Interrupted)
    assert shell.user_ns["job"].id == "42"
    shown = capsys.readouterr().out.strip()
    assert shown == (
        "Interrupted: Job 42 on alpha has been submitted and goes on; %scancel -M alpha 42 ends it."
    )


@pytest.mark.parametrize("answer", ["echo 42", "echo sbatch: error: Invalid partition name >&2; exit 1"])
def test_ctrl_c_while_sbatch_runs_waits_for_its_answer(
    shell: InteractiveShell,
    commands: Commands,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    answer: str,
) -> None:
    """However often it is pressed: a job whose number nobody knows would run all the same."""
    begun, goes = tmp_path / "begun", tmp_path / "goes"
    commands.answer("scontrol")
    program = commands.folder / "sbatch"
    waits = f"n=0; until [ -e {goes} ] || [ $n = 600 ]; do /bin/sleep 0.05; n=$((n+1)); done"
    program.write_text(f"#!/bin/sh\n/bin/cat >/dev/null\necho >{begun}\n{waits}\n{answer}\n")
    program.chmod(0o755)
    press_ctrl_c(begun.exists, 3, goes.touch)
    error = shell.run_cell("%%sbatch --as job\ntrue").error_in_exec
    shown, errors = capsys.readouterr()
    assert errors == "Waiting for the number of the job that sbatch submits.\n"
    if answer == "echo 42":
        assert isinstance(error, Interrupted)
        assert shell.user_ns["job"].id == "42"
        assert shown.strip() == "Interrupted: Job 42 has been submitted and goes on; %scancel 42 ends it."
    else:
        assert shown.startswith("SlurmError: Slurm refused the job: Invalid partition name")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
