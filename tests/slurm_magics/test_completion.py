"""Tab completion in a real IPython; Slurm's commands are stand-ins."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

from support.slurm_commands import Commands

HELP = """Usage: squeue [OPTIONS]
  -A, --account=account(s)        comma separated list of accounts
      --array-unique              display one unique pending job array
  -p, --partition=partition(s)    comma separated list of partitions
"""


@pytest.fixture
def slurm(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Two partitions, two accounts, three jobs."""
    monkeypatch.setenv("USER", "alice")
    for tool in ("squeue", "sbatch", "scancel"):
        commands.answer(tool, HELP)
    commands.answer("sinfo", "cpu\ngpu\ngpu\n")
    commands.answer("sacctmgr", "physics\nchemistry\nphysics\n")
    return commands


def complete(shell: InteractiveShell, line: str) -> list[str]:
    with provisionalcompleter():
        return sorted({one.text for one in shell.Completer.completions(line, len(line))})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("%squeue --a", ["--account", "--array-unique", "--as"]),
        ("df = %squeue -", ["--account", "--array-unique", "--as", "--partition", "--plot", "-A", "-p"]),
        ("%squeue -p ", ["cpu", "gpu"]),
        ("%squeue --partition=g", ["gpu"]),
        ("%squeue -p cpu,g", ["gpu"]),
        ("%%sbatch --dr", ["--dry-run"]),
        ("%%sbatch -A ph", ["physics"]),
        ("%squeue -t PEN", ["PENDING"]),
        ("%scontrol sho", ["show"]),
        ("%scontrol show no", ["node"]),
        ("%scontrol show partition c", ["cpu"]),
        ("%slurm disp", ["display"]),
        ("%slurm display ", ["frames", "text"]),
    ],
)
def test_words_are_completed(shell: InteractiveShell, slurm: Commands, line: str, words: list[str]) -> None:
    """Options as --help names them, values as Slurm knows them."""
    assert complete(shell, line) == words


@pytest.mark.parametrize("line", ["%scancel 4", "%scancel 41 4", "%sacct -j 4", "%scontrol show job 4"])
def test_own_jobs_are_completed(shell: InteractiveShell, slurm: Commands, line: str) -> None:
    """Each task of an array, too."""
    slurm.answer("squeue", "42\n43_1\n43_2\n7\n")
    assert complete(shell, line) == ["42", "43_1", "43_2"]
    (call,) = slurm.calls("squeue")
    assert {"--me", "--array"} <= set(call["argv"])


def test_a_slow_slurm_holds_up_nobody(
    shell: InteractiveShell, slurm: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked once and not given up: what it says is there for a later Tab."""
    shell.Completer.use_jedi = False  # seconds of imports
    monkeypatch.setattr("slurm_magics.completion._PATIENCE_S", 0.05)
    asked, answers = tmp_path / "asked", tmp_path / "answers"
    wait = f"echo >>{asked}; until [ -e {answers} ]; do /bin/sleep 0.02; done"
    (slurm.folder / "sinfo").write_text(f"#!/bin/sh\n{wait}\necho cpu\n")
    for _ in range(2):
        assert "cpu" not in complete(shell, "%sinfo -p ")
    answers.touch()
    deadline = time.monotonic() + 30
    while "cpu" not in complete(shell, "%sinfo -p "):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert asked.read_text() == "\n"


def test_slurm_is_asked_once(shell: InteractiveShell, slurm: Commands) -> None:
    """Not with each key that is pressed; and other lines are left alone."""
    for _ in range(3):
        complete(shell, "%squeue -p c")
    assert len(slurm.calls()) == 1
    shell.user_ns["partition_of_mine"] = 1
    shell.Completer.use_jedi = False
    assert complete(shell, "partition_of") == ["partition_of_mine"]
    assert len(slurm.calls()) == 1


def test_no_slurm_no_completion(shell: InteractiveShell, commands: Commands) -> None:
    """And no failure."""
    shell.Completer.use_jedi = False
    commands.answer("sinfo", "cpu\n", exit_code=1)
    assert "cpu" not in complete(shell, "%squeue -p c")
    assert complete(shell, "%squeue --part") == []
