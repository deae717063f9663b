"""Jobs that were submitted from a cell; Slurm's commands are stand-ins."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from hpchub.schedulers.slurm import Slurm
from slurm_magics import SlurmError
from slurm_magics.jobs import Jobs
from slurm_magics.machine import Local
from slurm_magics.session import Session
from slurm_magics.settings import Settings
from support.slurm_commands import Commands

STATUS = "{id}\x1f{state}\x1fc1\x1fNone\x1f1795259154\x1f1795262754\n"


@pytest.fixture
def slurm(commands: Commands, tmp_path: Path) -> Commands:
    """A Slurm that takes each job as number 42, whose output goes to a file."""
    commands.answer("sbatch", "42\n")
    commands.answer("scancel")
    commands.answer("sacct")
    record = "JobId=42 JobName=x\n   StdOut=/forged\n   Comment=y\n   StdOut={}\n   Power=\n"
    commands.answer("scontrol", record.format(tmp_path / "out.txt"))
    commands.answer("squeue", STATUS.format(id=42, state="RUNNING"))
    return commands


def test_the_cell_is_the_script(shell: InteractiveShell, slurm: Commands) -> None:
    """Variables are filled in, the shell's own braces stay, options go to sbatch, a shell is named."""
    shell.user_ns |= {"rate": 0.125, "paths": ["a b.txt"]}
    cell = "#SBATCH -c 2\necho {rate:.2f} {paths[0]} ${rate} {nobody} ${{x}} {a,b}\n"
    shell.run_cell(f"%%sbatch --time 10 --as job\n{cell}").raise_error()
    (call,) = slurm.calls("sbatch")
    assert call["argv"] == ["sbatch", "--parsable", "--time", "10"]
    assert call["stdin"] == "#!/bin/bash\n#SBATCH -c 2\necho 0.12 a b.txt ${rate} {nobody} ${{x}} {a,b}\n"
    assert shell.user_ns["job"].id == "42"


def test_a_dry_run_submits_nothing(shell: InteractiveShell, slurm: Commands) -> None:
    """It shows the command and the script."""
    shown = shell.run_cell("%%sbatch --dry-run -p cpu --no-fill\n#!/bin/sh\necho {x}").result
    assert shown == "sbatch -p cpu\n\n#!/bin/sh\necho {x}\n"
    assert slurm.calls() == []


def test_a_template_takes_the_cell(shell: InteractiveShell, slurm: Commands, tmp_path: Path) -> None:
    """jinja2, with the notebook's variables; what is missing is said."""
    (tmp_path / "mpi.sh.j2").write_text("#!/bin/bash\nexport WHO={{ who | sh }}\n{{ body }}")
    shell.user_ns["who"] = "a b"
    shell.run_cell(f"%slurm templates {tmp_path}").raise_error()
    shell.run_cell("%%sbatch --template mpi\nsrun ./a.out\n").raise_error()
    assert slurm.calls("sbatch")[0]["stdin"] == "#!/bin/bash\nexport WHO='a b'\nsrun ./a.out\n"
    del shell.user_ns["who"]
    for name, words in {"mpi": "'who' is undefined", "nope": "Known: mpi"}.items():
        error = shell.run_cell(f"%%sbatch --template {name}\ntrue").error_in_exec
        assert isinstance(error, SlurmError)
        assert words in str(error)


def test_a_refused_job_is_an_exception(shell: InteractiveShell, slurm: Commands) -> None:
    """sbatch's words and what to do; so is an answer without an id."""
    words = "sbatch: error: invalid partition specified: nope\n"
    slurm.answer("sbatch", stderr=words, exit_code=1)
    error = shell.run_cell("%%sbatch -p nope\ntrue").error_in_exec
    assert isinstance(error, SlurmError)
    assert "invalid partition specified: nope" in error.message
    assert "%sinfo" in error.hint
    slurm.answer("sbatch", "hello\n")
    assert "no job id" in str(shell.run_cell("%%sbatch\ntrue").error_in_exec)
    assert "no script" in str(shell.run_cell("%%sbatch\n\n").error_in_exec)


def test_all_jobs_share_one_query(shell: InteractiveShell, slurm: Commands) -> None:
    """Fifty looks at three jobs within a moment cost one squeue."""
    slurm.answer("squeue", "".join(STATUS.format(id=job, state="RUNNING") for job in (42, 43, 44)))
    for job in (42, 43, 44):
        slurm.answer("sbatch", f"{job}\n")
        shell.run_cell(f"%%sbatch --as job{job}\ntrue").raise_error()
    states = {shell.user_ns[f"job{job}"].state for job in (42, 43, 44) for _ in range(17)}
    assert states == {"RUNNING"}
    (call,) = slurm.calls("squeue")
    assert "--jobs=42,43,44" in call["argv"]


def test_a_job_that_has_left_the_queue_is_looked_up(shell: InteractiveShell, slurm: Commands) -> None:
    """In the accounting, once; an ended job is never asked about again."""
    slurm.answer("squeue", stderr="slurm_load_jobs error: Invalid job id specified\n", exit_code=1)
    slurm.answer("sacct", "42\x1fFAILED\x1fc1\x1f7:0\n")
    shell.run_cell("%%sbatch --as job\ntrue").raise_error()
    job = shell.user_ns["job"]
    assert job.wait(progress=False) == "FAILED"
    assert (job.is_over, job.status.exit_code) == (True, "7:0")
    assert "exit code 7" in job.explanation
    assert len(slurm.calls("sacct")) == 1


def test_an_array_is_its_tasks(shell: InteractiveShell, slurm: Commands) -> None:
    """Where slurmdbd does not know yet which task the last one is, its row counts neither as one more task
    nor as the whole array.
    """
    ended = {"42_0": "FAILED", "42_1": "COMPLETED", "42_[2-3]": "CANCELLED"}
    slurm.answer("squeue", "".join(STATUS.format(id=task, state=state) for task, state in ended.items()))
    slurm.answer("sacct", "42\x1fCOMPLETED\x1fc1\x1f0:0\n")
    shell.run_cell("%%sbatch --array=0-3 --as job\ntrue").raise_error()
    job = shell.user_ns["job"]
    assert job.wait(progress=False) == "FAILED"
    look = job._jobs.last_look(job)
    assert (look.ended, look.tasks) == (4, 4)


@pytest.mark.parametrize("line", ["many.state", "%sacct -j 42"])
def test_all_tasks_of_a_long_array_are_asked_for(shell: InteractiveShell, slurm: Commands, line: str) -> None:
    """Slurm would write the first ones and dots, which stand for no tasks that anybody could name."""
    slurm.answer("squeue", stderr="slurm_load_jobs error: Invalid job id specified\n", exit_code=1)
    shell.run_cell("%%sbatch --array=1,3,5 --as many\ntrue").raise_error()
    shell.run_cell(line)
    calls = [call for call in slurm.calls() if call["argv"][0] in {"squeue", "sacct"}]
    assert {call["environ"].get("SLURM_BITSTR_LEN") for call in calls} == {"0"}


def test_doubt_is_no_end(
    shell: InteractiveShell, slurm: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job that nobody knows is unknown, and a wait for it ends only by its own limit, which is one line."""
    slurm.answer("squeue")
    shell.run_cell("%%sbatch --as job\ntrue").raise_error()
    job = shell.user_ns["job"]
    assert (job.state, job.is_over) == ("UNKNOWN", False)
    with pytest.raises(TimeoutError, match="it goes on"):
        job.wait(0.01, progress=False)
    capsys.readouterr()
    shell.run_cell("job.wait(0.01, progress=False)")
    assert capsys.readouterr().out == "NotEnded: Job 42 has not ended within 0.01 s; it goes on.\n"
    slurm.answer("squeue", stderr="squeue: error: Unable to contact slurm controller\n", exit_code=1)
    with pytest.raises(SlurmError, match="did not answer"):
        job._jobs.status(job, 0)


def test_ctrl_c_ends_the_wait_and_not_the_job(
    shell: InteractiveShell, slurm: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No scancel, and no traceback."""

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    shell.run_cell("%%sbatch --as job\ntrue").raise_error()
    monkeypatch.setattr("slurm_magics.job.sleep", interrupt)
    assert shell.user_ns["job"].wait(progress=False) == "RUNNING"
    assert slurm.calls("scancel") == []


def test_array_tasks_are_jobs(shell: InteractiveShell, slurm: Commands, tmp_path: Path) -> None:
    """Each has a state and an output of its own; the array is what its tasks together are."""
    path = tmp_path / "out-42_4294967294.txt"
    record = f"JobId={{}} ArrayJobId=42 ArrayTaskId={{}} JobName=x\n   StdOut={path}\n\n"
    slurm.answer("scontrol", record.format(42, "2-9%2") + record.format(43, 1))
    rows = {"42_1": "COMPLETED", "42_[2-9%2]": "PENDING"}
    slurm.answer("squeue", "".join(STATUS.format(id=task, state=state) for task, state in rows.items()))
    shell.run_cell("%%sbatch --array=1-9%2 --as job\ntrue").raise_error()
    job = shell.user_ns["job"]
    (tmp_path / "out-42_3.txt").write_text("three\n")
    assert (job.array[1].state, job.array[7].state, job.state) == ("COMPLETED", "PENDING", "PENDING")
    assert (job.array[3].output, job.array[4].output) == ("three\n", "")
    with pytest.raises(SlurmError, match="does not say where"):
        _ = job.output
    assert (len(job.array), [task.id for task in job.array][::4]) == (9, ["42_1", "42_5", "42_9"])
    for wrong in ("job.array[99]", "job.array[-1]", "job.array[1].array[2]"):
        error = shell.run_cell(wrong).error_in_exec
        assert isinstance(error, IndexError)
        assert "has no array task" in str(error)
    assert list(job.array[1].array) == []


def test_a_plain_job_has_no_tasks(shell: InteractiveShell, slurm: Commands) -> None:
    """Nobody waits for one that never was; where Slurm did not say which there are, each may be."""
    shell.run_cell("%%sbatch --as job\ntrue").raise_error()
    job = shell.user_ns["job"]
    assert list(job.array) == []
    with pytest.raises(SlurmError, match="Job 42 has no array task 3"):
        _ = job.array[3]
    slurm.answer("scontrol", stderr="slurm_load_jobs error: Unable to contact slurm controller", exit_code=1)
    shell.run_cell("%%sbatch --as job --array=1-3\ntrue").raise_error()
    job = shell.user_ns["job"]
    assert job.array[3].id == "42_3"
    with pytest.raises(SlurmError, match="did not answer"):
        list(job.array)


def test_output_is_read_from_where_slurm_says(
    shell: InteractiveShell, slurm: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From Slurm's own line of the record, not one that a user wrote; bytes outside of UTF-8 are shown."""
    shell.run_cell("%%sbatch --as job\ntrue").raise_error()
    job = shell.user_ns["job"]
    assert job.output == ""
    job.tail()
    assert capsys.readouterr().err.startswith("Job 42 has written nothing. ")
    (tmp_path / "out.txt").write_bytes(b"one\ntwo\n\xff\n")
    assert job.output == "one\ntwo\n\\xff\n"
    job.tail(2)
    assert capsys.readouterr().out == "two\n\\xff\n"
    slurm.answer("squeue", STATUS.format(id=42, state="COMPLETED"))
    slurm.answer("sacct", "42\x1fCOMPLETED\x1fc1\x1f0:0\n")
    job._jobs.changed()
    job.tail(follow=True)
    assert capsys.readouterr().out == "one\ntwo\n\\xff\n"
    (tmp_path / "out.txt").unlink()
    assert job.output == ""
    words = f"there is no {tmp_path}/out.txt on this machine. Ended (COMPLETED)."
    assert words in capsys.readouterr().err
    job.tail()
    assert words in capsys.readouterr().err


def test_cancel_and_resubmit(
    shell: InteractiveShell, slurm: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same options and script from the same folder; an array's task alone cannot be resubmitted."""
    monkeypatch.chdir(tmp_path)
    slurm.answer("scontrol", "JobId=42 ArrayJobId=42 ArrayTaskId=1-3 JobName=x\n   StdOut=/x\n\n")
    shell.run_cell("%%sbatch --array=1-3 --as job\necho hi").raise_error()
    job = shell.user_ns["job"]
    job.array[2].cancel()
    assert slurm.calls("scancel")[0]["argv"] == ["scancel", "42_2"]
    monkeypatch.chdir(os.sep)
    assert job.resubmit().submission == job.submission
    first, second = slurm.calls("sbatch")
    assert (first["argv"], first["stdin"], first["cwd"]) == (second["argv"], second["stdin"], str(tmp_path))
    assert second["cwd"] == str(tmp_path)
    with pytest.raises(SlurmError, match="one task"):
        job.array[2].resubmit()


async def test_a_job_can_be_awaited(shell: InteractiveShell, slurm: Commands) -> None:
    """The result is its last state."""
    slurm.answer("squeue", STATUS.format(id=42, state="COMPLETED"))
    slurm.answer("sacct", "42\x1fCOMPLETED\x1fc1\x1f0:0\n")
    shell.run_cell("%%sbatch --as job\ntrue").raise_error()
    assert await shell.user_ns["job"] == "COMPLETED"


async def test_a_job_that_is_awaited_no_more_goes_on(shell: InteractiveShell, slurm: Commands) -> None:
    """The stop button cancels the cell: one line says so, in the place of a traceback."""
    slurm.answer("squeue", STATUS.format(id=42, state="RUNNING"))
    shell.run_cell("%%sbatch --as job\ntrue").raise_error()

    async def cell() -> str:
        state: str = await shell.user_ns["job"]
        return state

    running = asyncio.create_task(cell())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError) as stopped:
        await running
    shown: Any = stopped.value
    assert shown._render_traceback_() == ["Not waiting any more. Job 42 goes on."]
    assert not slurm.calls("scancel")


def test_the_output_of_a_heterogeneous_job(shell: InteractiveShell, slurm: Commands, tmp_path: Path) -> None:
    """Is its first component's: no other one has any."""
    record = "JobId={} HetJobId=42 HetJobOffset={} JobName=x\n   HetJobIdSet=42-43\n   StdOut={}/{}\n\n"
    slurm.answer("scontrol", "".join(record.format(42 + n, n, tmp_path, 42 + n) for n in (0, 1)))
    shell.run_cell("%%sbatch --as job\ntrue").raise_error()
    assert shell.user_ns["job"].output_path == tmp_path / "42"


@pytest.mark.parametrize("name", ["3x", "a.b", "class", "a b"])
def test_a_job_is_kept_under_a_name_that_can_be_written(
    shell: InteractiveShell, slurm: Commands, name: str
) -> None:
    """Else it is not submitted."""
    shell.user_ns["name"] = name
    error = shell.run_cell("%%sbatch --as {name}\ntrue").error_in_exec
    assert isinstance(error, SlurmError)
    assert error.message == f"{name!r} is no name of a variable."
    assert slurm.calls() == []


def test_an_output_that_comes_in_pieces(
    shell: InteractiveShell,
    slurm: Commands,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Cut inside of a character or a line end: both are shown as they were written, whatever is the last."""
    whole = "größer ✓\r\nend".encode() + b"\xc3"
    pieces = iter([whole[:3], whole[3:9], whole[9:13], whole[13:]])
    with (tmp_path / "out.txt").open("wb") as file:

        def write(_seconds: float) -> None:
            file.write(next(pieces))
            file.flush()
            if file.tell() == len(whole):
                slurm.answer("squeue", STATUS.format(id=42, state="COMPLETED"))
                slurm.answer("sacct", "42\x1fCOMPLETED\x1fc1\x1f0:0\n")
                shell.user_ns["job"]._jobs.changed()

        shell.run_cell("%%sbatch --as job\ntrue").raise_error()
        monkeypatch.setattr("slurm_magics.job.sleep", write)
        shell.user_ns["job"].tail(follow=True)
    assert capsys.readouterr().out == "größer ✓\nend\\xc3"


def test_the_last_lines_are_lines(
    shell: InteractiveShell, slurm: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a progress bar writes over itself is one of them."""
    (tmp_path / "out.txt").write_text("one\n10%\r20%\r30%\ntwo\x0cthree\nfour")
    shell.run_cell("%%sbatch --as job\ntrue").raise_error()
    job = shell.user_ns["job"]
    for count, shown in {
        1: "four",
        2: "two\x0cthree\nfour",
        3: "10%\r20%\r30%\ntwo\x0cthree\nfour",
        0: "",
    }.items():
        job.tail(count)
        assert capsys.readouterr().out == shown


def test_an_output_of_gigabytes(
    shell: InteractiveShell, slurm: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Is not read at once, but its end is shown."""
    with (tmp_path / "out.txt").open("wb") as file:
        file.seek(5 << 30)
        file.write(b"\nlast\n")
    shell.run_cell("%%sbatch --as job\ntrue").raise_error()
    error = shell.run_cell("job.output").error_in_exec
    assert isinstance(error, SlurmError)
    assert error.message.endswith("out.txt is too long to be read at once: 5120 MB.")
    capsys.readouterr()
    shell.user_ns["job"].tail(1)
    assert capsys.readouterr().out == "last\n"


def test_a_scripts_own_options_go_to_the_script(shell: InteractiveShell, slurm: Commands) -> None:
    """Though the magic has some of the same names; and a program's to the program."""
    shell.run_cell("%sbatch --as job -t 5 run.sh --wait --as x --python -h {missing}").raise_error()
    (call,) = slurm.calls("sbatch")
    assert call["argv"][2:] == ["-t", "5", "run.sh", "--wait", "--as", "x", "--python", "-h", "{missing}"]
    assert shell.user_ns["job"].id == "42"
    slurm.answer("srun", "done\n")
    shell.run_cell("%srun --as said -n 1 ./program --as x").raise_error()
    assert slurm.calls("srun")[0]["argv"] == ["srun", "-n", "1", "./program", "--as", "x"]
    assert shell.user_ns["said"] == "done\n"


def test_filters_of_ones_own_hide_no_job(
    shell: InteractiveShell, slurm: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are for %squeue: a job's state, and the record of one, are asked for without them."""
    for name in ("PARTITION", "STATES", "USERS"):
        monkeypatch.setenv(f"SQUEUE_{name}", "nothing")
    program = slurm.folder / "squeue"
    check = "import os\nif 'nothing' in os.environ.values():\n    raise SystemExit\nimport json"
    program.write_text(program.read_text().replace("import json", check, 1))
    shell.run_cell("%%sbatch --as job\ntrue").raise_error()
    assert shell.user_ns["job"].state == "RUNNING"
    program.write_text(program.read_text().replace("sys.stdout.write", "print(42); "))
    record = "JobId=42 JobName=x\n   UserId=a(1) GroupId=a(1)\n   Command=(null)\n   StdOut=/x\n\n"
    slurm.answer("scontrol", record)
    assert shell.run_cell("%scontrol show job 42").result["JobName"] == "x"


@pytest.mark.parametrize("text", [b"{{ 1 / 0 }}", b"\xff", b"{{ body.nothing.more }}", b"{% if %}"])
def test_a_template_that_fails(
    shell: InteractiveShell, slurm: Commands, tmp_path: Path, text: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Says so in a line, and submits nothing."""
    (tmp_path / "bad.sh.j2").write_bytes(text)
    shell.run_cell(f"%slurm templates {tmp_path}")
    capsys.readouterr()
    error = shell.run_cell("%%sbatch --template bad\ntrue").error_in_exec
    assert isinstance(error, SlurmError)
    assert "The template 'bad' cannot be used" in error.message
    assert "Traceback" not in capsys.readouterr().out
    assert slurm.calls() == []


def test_a_cluster_has_one_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when a cell and a card ask for the first time at the same moment."""

    def slow(cluster: str) -> Slurm:
        time.sleep(0.05)
        return Slurm(cluster)

    monkeypatch.setattr("slurm_magics.jobs.Slurm", slow)
    jobs = Jobs(Session(Local(), Settings()))
    with ThreadPoolExecutor(8) as pool:
        assert len(set(map(id, pool.map(jobs.watch, ["there"] * 8)))) == 1
