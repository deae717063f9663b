"""Slurm is away for a while: waits, cards and files go on. Its commands are stand-ins, all else is real."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell

from slurm_magics.done import Done
from slurm_magics.job import Job
from slurm_magics.jobs import Jobs
from slurm_magics.machine import Local
from slurm_magics.output import Live
from slurm_magics.pace import rest_s
from slurm_magics.session import Session, _pass_on, _unshown
from slurm_magics.settings import Settings
from slurm_magics.submission import Outputs, Submission
from support.slurm_commands import Commands
from support.tree import ROOT

ROW = "{id}\x1f{state}\x1fc1\x1fNone\x1f1795259154\x1f4102444800\n"
AWAY = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n"
NO_DATABASE = "sacct: error: Problem talking to the database: Connection refused\n"


@pytest.fixture
def jobs(commands: Commands) -> Jobs:
    """A kernel's jobs, none so far."""
    return Jobs(Session(Local(), Settings()))


def a_job(jobs: Jobs, job_id: str = "42") -> Job:
    return Job(jobs, job_id, Submission(words=(), folder=Path.cwd()), "", Outputs())


def test_a_wait_outlasts_the_controller(
    jobs: Jobs, commands: Commands, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what is wrong, asks less and less, and ends with the job; so does following its output."""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        jobs.changed()
        if len(pauses) == 1:
            commands.answer("squeue", stderr=AWAY, exit_code=1)
        if len(pauses) == 5:
            commands.answer("squeue", ROW.format(id=42, state="COMPLETED"))
            commands.answer("sacct", "42\x1fCOMPLETED\x1fc1\x1f0:0\n")

    monkeypatch.setattr("slurm_magics.job.sleep", pause)
    commands.answer("squeue", ROW.format(id=42, state="RUNNING"))
    assert a_job(jobs).wait() == "COMPLETED"
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "Job 42: Running on c1 (RUNNING)."
    assert told[1].startswith(
        "Job 42: Running on c1 (RUNNING). Not up to date: Slurm's controller (slurmctld)"
    )
    assert told[2:] == ["Job 42: Ended (COMPLETED)."]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert rest_s(20) == rest_s(2000) == 30.0


def test_output_is_followed_without_the_controller(
    jobs: Jobs, commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """What is written is shown; the controller is left alone between its failures."""
    path = tmp_path / "out.txt"
    path.write_text("one\n")
    commands.answer("squeue", stderr=AWAY, exit_code=1)
    rounds: list[float] = []

    def write(seconds: float) -> None:
        rounds.append(seconds)
        with path.open("a") as file:
            file.write(f"{len(rounds)}\n")
        if len(rounds) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr("slurm_magics.job.sleep", write)
    job = a_job(jobs)
    job.outputs.learn(Outputs({None: str(path)}))
    job.tail(follow=True)
    assert capsys.readouterr().out == "one\n1\n2\n3\n4\n"
    assert len(commands.calls("squeue")) == 1


def test_an_end_without_the_accounting(jobs: Jobs, commands: Commands) -> None:
    """One that was seen stays known; what left the queue unseen is said to be in doubt, until it is known."""
    commands.answer("sacct", stderr=NO_DATABASE, exit_code=1)
    commands.answer("squeue", ROW.format(id=42, state="COMPLETED") + ROW.format(id=43, state="RUNNING"))
    seen, unseen = a_job(jobs), a_job(jobs, "43")
    assert (seen.state, unseen.state) == ("COMPLETED", "RUNNING")
    commands.answer("squeue")
    jobs.changed()
    assert (seen.state, seen.is_over) == ("COMPLETED", True)
    look = jobs.look(unseen, 0.0)
    assert (look.status.native, look.status.state.is_final) == ("UNKNOWN", False)
    assert look.trouble is not None and look.trouble.retryable
    assert look.trouble.message.startswith(
        "It has left the queue, and how it ended only the accounting knows."
    )
    assert "Slurm's accounting (slurmdbd) did not answer sacct" in look.trouble.message
    commands.answer("sacct", "42\x1fCOMPLETED\x1fc1\x1f0:0\n43\x1fTIMEOUT\x1fc1\x1f0:0\n")
    jobs.changed()
    assert (seen.state, unseen.state, unseen.is_over) == ("COMPLETED", "TIMEOUT", True)


def test_tasks_that_left_unseen_keep_an_array_open(jobs: Jobs, commands: Commands) -> None:
    """Without the accounting, the end of those in the queue is not the end of all."""
    commands.answer("sacct", stderr=NO_DATABASE, exit_code=1)
    commands.answer("squeue", ROW.format(id="42_1", state="RUNNING") + ROW.format(id="42_2", state="RUNNING"))
    array = a_job(jobs)
    assert array.state == "RUNNING"
    commands.answer("squeue", ROW.format(id="42_2", state="COMPLETED"))
    jobs.changed()
    assert not jobs.look(array, 0.0).status.state.is_final
    assert array.array[2].state == "COMPLETED"


def test_a_failure_serves_all_who_ask(jobs: Jobs, commands: Commands) -> None:
    """Fifty jobs that nobody has heard of, asked about by many threads: one query at a time, and few."""
    commands.answer("squeue", stderr=AWAY, exit_code=1)
    many = [a_job(jobs, str(number)) for number in range(100, 150)]
    threads = [threading.Thread(target=jobs.look, args=(job, 60.0)) for job in many]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(commands.calls("squeue")) == 1
    assert all(jobs.look(job, float("inf")).trouble for job in many)


def test_what_is_known_can_be_read_while_slurm_is_silent(
    jobs: Jobs, commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-C nobody waits for the query of a card, nor does a cell that shows one."""
    monkeypatch.setattr("slurm_magics.board._PATIENCE_S", 0.1)
    begun, answers = tmp_path / "begun", tmp_path / "answers"
    program = commands.folder / "squeue"
    program.write_text(f"#!/bin/sh\necho >{begun}\nuntil [ -e {answers} ]; do /bin/sleep 0.02; done\n")
    program.chmod(0o755)
    job = a_job(jobs)
    asking = threading.Thread(target=jobs.look, args=(job, 60.0))
    asking.start()
    while not begun.exists():
        assert asking.is_alive()
        time.sleep(0.01)
    assert jobs.last_look(job).status.native == "UNKNOWN"
    assert "has not answered yet" in jobs.board._first_card(job).trouble
    assert asking.is_alive()
    answers.touch()
    asking.join()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_what_srun_prints_is_shown_as_it_comes(
    shell: InteractiveShell, commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    """Once, before its end; it is the result as well, and kept by --as it is not shown."""
    seen = tmp_path / "seen"
    program = commands.folder / "srun"
    wait = f"n=0; until [ -e {seen} ] || [ $n = 600 ]; do /bin/sleep 0.05; n=$((n+1)); done; [ -e {seen} ]"
    program.write_text(f"#!/bin/sh\n[ {stream} = stdout ] || exec >&2\necho größer\n{wait}\n")
    program.chmod(0o755)
    shown = io.StringIO()

    def write(text: str) -> int:
        seen.touch()
        return io.StringIO.write(shown, text)

    monkeypatch.setattr(shown, "write", write)
    monkeypatch.setattr(sys, stream, shown)
    shell.run_cell("out = %srun ./program").raise_error()
    assert (shown.getvalue(), shell.user_ns["out"]) == ("größer\n", "größer\n")
    shell.run_cell("%srun --as kept ./program").raise_error()
    assert (shown.getvalue(), shell.user_ns["kept"]) == ("größer\n", "größer\n")


def test_what_was_shown_is_shown_again_where_it_is_asked_for(
    commands: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a later cell; it travels like any other text, too."""
    program = "import sys, pickle\nfrom IPython.core.interactiveshell import InteractiveShell\n"
    program += "shell = InteractiveShell.instance()\nshell.history_manager.enabled = False\n"
    program += "for cell in sys.argv[1:]:\n    shell.run_cell(cell, store_history=True).raise_error()\n"
    program += "    print('--')\nassert pickle.loads(pickle.dumps(shell.user_ns['out'])) == 'hi\\n'"
    commands.answer("srun", "hi\n")
    cells = ("%load_ext slurm_magics", "%srun ./a", "out = %srun ./a", "out")
    done = subprocess.run((sys.executable, "-c", program, *cells), capture_output=True, text=True, check=True)
    shown = [part.strip() for part in done.stdout.split("--\n")]
    assert [part.count("hi") for part in shown] == [0, 1, 1, 1, 0]


class NoMore(io.StringIO):
    """A stream whose reader goes away after the first piece."""

    encoding = "latin-1"

    def write(self, text: str) -> int:
        if self.getvalue():
            raise BrokenPipeError
        text.encode("latin-1")
        return super().write(text)


def test_what_cannot_be_shown_ends_no_command(
    shell: InteractiveShell, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither signs that the terminal does not know, nor a pipe that nobody reads."""
    program = commands.folder / "srun"
    program.write_text("#!/bin/sh\necho '→'; /bin/sleep 0.1; echo more\n")
    program.chmod(0o755)
    shown = NoMore()
    monkeypatch.setattr(sys, "stdout", shown)
    shell.run_cell("%srun --as kept ./a\nout = %srun ./a").raise_error()
    assert shown.getvalue() == "\\u2192\n"
    assert shell.user_ns["out"] == shell.user_ns["kept"] == "→\nmore\n"


def test_a_command_that_is_cut_in_a_character() -> None:
    """The rest of it follows, in its place."""
    live = Live()
    text = "é!\n".encode()
    live(text[:1], False)
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        _pass_on(_unshown(Done(-1, text, b""), live), live)
    assert shown.getvalue() == "é!\n"


@pytest.mark.slow
def test_a_notebook_that_nobody_watches(commands: Commands, tmp_path: Path) -> None:
    """nbconvert ends with an error at a refused job, and says why."""
    commands.answer("sbatch", stderr="sbatch: error: Invalid partition name specified\n", exit_code=1)
    cells = ["%load_ext slurm_magics", "%%sbatch -p nope\ntrue"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    path = tmp_path / "work.ipynb"
    nbformat.write(notebook, path)
    done = subprocess.run(
        (sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", str(path)),
        env={**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path / "ipython")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "SlurmError: Slurm refused the job: Invalid partition name specified." in done.stderr
