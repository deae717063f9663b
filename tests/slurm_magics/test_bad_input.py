"""What can go wrong around a magic: each gives a clear message, and what can answer still does."""

from __future__ import annotations

import contextlib
import io
import os
import time
from pathlib import Path

import pytest
from golden import capture_magics, reader
from IPython.core.interactiveshell import InteractiveShell

from hpchub.errors import UnexpectedOutput
from slurm_magics import SlurmError
from slurm_magics.help import COMMANDS, TABLES
from slurm_magics.job import Job
from slurm_magics.queries import plan
from support.answers import frame_of
from support.slurm_commands import Commands

_HEAD = "MARK\x1fJOBID\x1fSUBMIT_TIME\x1fTIME\x1fMARK\n"
_ROW = "MARK\x1f42\x1f1795259154\x1f1:00\x1fMARK\n"


def failure(shell: InteractiveShell, cell: str, capsys: pytest.CaptureFixture[str]) -> SlurmError:
    """The error of a cell, which a person saw in a line or two."""
    error = shell.run_cell(cell).error_in_exec
    assert isinstance(error, SlurmError)
    shown = capsys.readouterr().out
    assert "Traceback" not in shown
    assert 1 <= len(shown.strip().splitlines()) <= 2
    return error


@pytest.mark.parametrize("tool", [*TABLES, *COMMANDS, "sbatch"])
def test_a_command_that_is_missing(
    shell: InteractiveShell, commands: Commands, capsys: pytest.CaptureFixture[str], tool: str
) -> None:
    """Is named, with what to do about it."""
    error = failure(shell, f"%{tool} x", capsys)
    assert error.message == f"There is no {tool} on this machine's PATH."
    assert "%slurm connect" in error.hint


def test_the_controller_is_down(
    shell: InteractiveShell, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    """%squeue says so; %sacct still answers, and a job keeps what was known of it."""
    words = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n"
    commands.answer("squeue", stderr=words, exit_code=1)
    error = failure(shell, "%squeue", capsys)
    assert "did not answer squeue" in error.message
    assert "%sacct answers without the controller" in error.hint
    down = reader.golden("sbatch_controller_down")
    commands.answer("sbatch", stderr=down.stderr, exit_code=down.exit_code)
    assert "did not answer sbatch" in failure(shell, "%%sbatch\ntrue", capsys).message


def test_the_database_is_down(
    shell: InteractiveShell, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    """%sacct says so; %squeue still answers."""
    down = reader.golden("sacct_database_down")
    commands.answer("sacct", down.stdout, stderr=down.stderr, exit_code=down.exit_code)
    commands.answer("squeue", f"{_HEAD}{_ROW}")
    assert "did not answer sacct" in failure(shell, "%sacct", capsys).message
    assert len(shell.run_cell("%squeue -o '%i %V %M'").result) == 1


@pytest.mark.parametrize("cut", [len(_HEAD) - 3, len(_HEAD) + 5, len(_HEAD) + len(_ROW) - 6])
def test_an_answer_is_cut_in_the_middle(
    shell: InteractiveShell, commands: Commands, capsys: pytest.CaptureFixture[str], cut: int
) -> None:
    """Half a table is none: no frame with fewer rows."""
    commands.answer("squeue", f"{_HEAD}{_ROW}{_ROW}"[:cut])
    assert "answered with something unexpected" in failure(shell, "%squeue -o '%i %V %M'", capsys).message


@pytest.mark.parametrize(
    ("line", "capture"),
    [
        ("show job", "magics_scontrol_jobs"),
        ("show node", "magics_scontrol_nodes"),
        ("show partition", "magics_scontrol_partitions"),
    ],
)
def test_a_record_is_cut_in_the_middle(
    shell: InteractiveShell, commands: Commands, capsys: pytest.CaptureFixture[str], line: str, capture: str
) -> None:
    """Half a record is not shown as one that has fewer fields."""
    commands.answer("squeue", reader.golden("magics_squeue_numbers").stdout)
    text = reader.golden(capture).stdout
    commands.answer("scontrol", text)
    assert len(shell.run_cell(f"%scontrol {line}").result) > 1
    commands.answer("scontrol", text[:-20])
    capsys.readouterr()
    assert (
        "scontrol answered with something unexpected" in failure(shell, f"%scontrol {line}", capsys).message
    )


@pytest.mark.parametrize("tool", ["sinfo", "sacct"])
def test_a_listing_is_cut_in_the_middle(tool: str) -> None:
    """Wherever that is: no frame with fewer rows. Only between two rows it cannot be told."""
    query = plan(tool, (), {}, capture_magics.MARK)
    assert query is not None
    whole = reader.golden(f"magics_{tool}").stdout.encode("utf-8", "surrogateescape")
    rows = len(frame_of(query, whole))
    for cut in range(len(whole) - 200, len(whole) - 1):
        if b"\n" not in whole[cut - 1 : cut + 1]:
            with pytest.raises(UnexpectedOutput):
                frame_of(query, whole[:cut])
    assert rows >= 3


def test_a_locale_changes_nothing(
    shell: InteractiveShell, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does SLURM_TIME_FORMAT: times are asked for in seconds, whatever the person has set."""
    for name, value in {"LC_ALL": "de_DE.UTF-8", "SLURM_TIME_FORMAT": "relative", "TZ": "UTC"}.items():
        monkeypatch.setenv(name, value)
    commands.answer("squeue", f"{_HEAD}{_ROW}")
    frame = shell.run_cell("%squeue -o '%i %V %M'").result
    assert commands.calls()[0]["environ"]["SLURM_TIME_FORMAT"] == "%s"
    assert frame["SUBMIT_TIME"][0].isoformat() == "2026-11-21T11:05:54+00:00"
    assert frame["TIME"].dt.total_seconds().tolist() == [60]


def test_a_terminal_of_20_columns(
    shell: InteractiveShell, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cuts no value."""
    monkeypatch.setenv("COLUMNS", "20")
    name = "n" * 1000
    commands.answer("squeue", f"MARK\x1fJOBID\x1fNAME\x1fMARK\nMARK\x1f42\x1f{name}\x1fMARK\n")
    assert shell.run_cell("%squeue -o '%i %j'").result["NAME"].tolist() == [name]


def test_a_terminal_has_no_card(
    shell: InteractiveShell, commands: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """But the text of one; with the controller down what was known, and why it is not new."""
    commands.answer("sbatch", "42\n")
    commands.answer("scontrol", f"JobId=42 JobName=x\n   StdOut={tmp_path}/out.txt\n")
    end = int(time.time()) + 3000
    commands.answer("squeue", f"42\x1fRUNNING\x1fc1\x1fNone\x1f1795259154\x1f{end}\n")
    (tmp_path / "out.txt").write_text("one\ntwo\n")
    shell.run_cell("%%sbatch\ntrue").raise_error()
    shown = capsys.readouterr().out
    assert "Job 42: Running on c1 (RUNNING)." in shown
    assert "Time left: 49:" in shown
    assert "  | two" in shown
    commands.answer(
        "squeue", stderr="slurm_load_jobs error: Unable to contact slurm controller\n", exit_code=1
    )
    shell.run_cell("%scancel 42")
    shell.run_cell("%%sbatch --as job\ntrue").raise_error()
    job = shell.user_ns["job"]
    assert isinstance(job, Job)
    job._ipython_display_()
    assert "Not up to date: Slurm's controller (slurmctld) did not answer squeue" in capsys.readouterr().out


def test_a_folder_that_is_gone(
    shell: InteractiveShell, commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job is resubmitted from where it came, or not at all."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    commands.answer("sbatch", "42\n")
    commands.answer("scontrol")
    shell.run_cell("%%sbatch --as job\ntrue").raise_error()
    monkeypatch.chdir(os.sep)
    folder.rmdir()
    with pytest.raises(SlurmError, match="is gone"):
        shell.user_ns["job"].resubmit()


def test_a_script_with_half_a_character(
    shell: InteractiveShell, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody can write it into a file: it says which line, and nothing is submitted."""
    commands.answer("sbatch", "42\n")
    error = failure(shell, "%%sbatch\ntrue\necho '\ud83d'", capsys)
    assert error.message.startswith("Line 3 of the script has half a character")
    assert commands.calls() == []


def test_the_notebooks_folder_is_gone(
    shell: InteractiveShell,
    commands: Commands,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing can be submitted from there, and that is said."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    try:
        assert "folder that the notebook works in is gone" in failure(shell, "%%sbatch\ntrue", capsys).message
    finally:
        monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("tool", ["srun", "salloc", "sattach"])
def test_a_program_that_fails(
    shell: InteractiveShell, commands: Commands, capsys: pytest.CaptureFixture[str], tool: str
) -> None:
    """All that it printed is shown, once; the error is the command's own, whatever the program has said."""
    said = f"Traceback of mine\nConnection refused\n{tool}: error: c1: task 0: Exited with 3\n"
    commands.answer(tool, "result\n", stderr=said, exit_code=3)
    for line in (f"%{tool} ./program", f"%{tool} --as kept ./program"):
        error = shell.run_cell(line).error_in_exec
        assert isinstance(error, SlurmError)
        assert (error.message, error.retryable) == (f"{tool}: c1: task 0: Exited with 3", False)
        assert error.stderr == said
        shown = capsys.readouterr()
        assert shown.out == f"result\nSlurmError: {tool} ended with exit code 3.\n"
        assert shown.err == said
    commands.answer(tool, "result\n", exit_code=3)
    error = shell.run_cell(f"%{tool} ./program").error_in_exec
    assert str(error).startswith(f"{tool}: it ended with exit code 3")


def test_an_outage_is_said_beside_the_words_of_srun(
    shell: InteractiveShell, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which part of Slurm is away, they do not say. They are no part of what a closed stream has shown."""
    away = "srun: error: Unable to allocate resources: Unable to contact slurm controller (connect failure)\n"
    commands.answer("srun", stderr=away, exit_code=1)
    shell.run_cell("%srun ./program")
    assert "Slurm's controller (slurmctld) did not answer srun" in capsys.readouterr().out
    commands.answer("srun", stderr="srun: error: Invalid partition name\n", exit_code=1)
    with contextlib.redirect_stderr(io.StringIO()) as closed:
        closed.close()
        shell.run_cell("%srun ./program")
    assert capsys.readouterr().out.startswith("SlurmError: srun: Invalid partition name")
    commands.answer(
        "srun",
        stderr="srun: error: Unable to allocate: Requested node configuration is not available\n",
        exit_code=1,
    )
    shell.run_cell("%srun ./program")
    assert capsys.readouterr().out.endswith("choose a partition with larger nodes.\n")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("Unrecognized option: |", "What a shell makes of |"),
        ("slurm_reconfigure error: Invalid user id", "It belongs to somebody else"),
        ("Invalid time specification (pos=0): bogus", "Write now-1hour"),
        ("option requires an argument -- 'p'", "%squeue --help"),
    ],
)
def test_a_refusal_has_a_hint(
    shell: InteractiveShell,
    commands: Commands,
    capsys: pytest.CaptureFixture[str],
    words: str,
    hint: str,
) -> None:
    """Beside Slurm's own words."""
    commands.answer("squeue", stderr=f"squeue: error: {words}\n", exit_code=1)
    assert failure(shell, "%squeue -x", capsys).hint.startswith(hint)


def test_more_than_a_command_can_be_given(
    shell: InteractiveShell, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line too long for the system is said, with what helps; so is a command that nobody may run."""
    commands.answer("squeue")
    shell.user_ns["ids"] = ",".join(map(str, range(100_000)))
    error = failure(shell, "%squeue -j {ids}", capsys)
    assert error.message == "squeue cannot be started: Argument list too long."
    assert "fewer" in error.hint
    (commands.folder / "squeue").write_text("no program")
    assert "squeue cannot be started: Exec format error" in failure(shell, "%squeue", capsys).message
    if os.geteuid():  # root may, if anybody may
        (commands.folder / "squeue").chmod(0)
        assert "squeue cannot be started: Permission denied" in failure(shell, "%squeue", capsys).message


def test_a_command_that_never_stops_printing(
    shell: InteractiveShell,
    commands: Commands,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Is ended before it fills the memory, on either stream, with all that it has started."""
    monkeypatch.setattr("slurm_magics.done.MOST_BYTES", 1 << 20)
    for line, stream in {"srun --as out": 1, "squeue": 1, "sdiag": 2}.items():
        name = line.split()[0]
        program = commands.folder / name
        program.write_text(f"#!/bin/sh\nexec >&{stream}\n/usr/bin/yes {commands.folder}\n")
        program.chmod(0o755)
        assert "printed more than 1 MB, and was ended" in failure(shell, f"%{line}", capsys).message
    is_gone(f"yes {commands.folder}")


def test_a_wrapper_that_hangs(
    shell: InteractiveShell, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    """Is given up with what it has started."""
    program = commands.folder / "squeue"
    program.write_text(f"#!/bin/sh\n/usr/bin/tail -f {program}\n")
    program.chmod(0o755)
    shell.run_cell("%slurm timeout 0.2")
    capsys.readouterr()
    assert "has not answered within 0.2 s" in failure(shell, "%squeue", capsys).message
    is_gone(f"tail -f {program}")


def is_gone(command: str) -> None:
    """Wait until no process runs that."""
    deadline = time.monotonic() + 10
    while any(command in line for line in processes()):
        assert time.monotonic() < deadline, f"{command} still runs"
        time.sleep(0.02)


def processes() -> list[str]:
    """The command lines of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.mark.parametrize("tool", ["squeue", "sacct", "sprio"])
def test_lists_of_tasks_are_whole(shell: InteractiveShell, commands: Commands, tool: str) -> None:
    """`42_[1,3,7,...]` could not be written out: Slurm is told not to shorten them."""
    program = commands.folder / tool
    program.write_text(f'#!/bin/sh\necho "$SLURM_BITSTR_LEN" >{commands.folder}/length\nexit 1\n')
    program.chmod(0o755)
    shell.run_cell(f"%{tool}")
    assert (commands.folder / "length").read_text() == "0\n"
