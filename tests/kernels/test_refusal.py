"""What Slurm would say to a kernel's job."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from golden.reader import golden

from hpchub.core.command import CommandResult
from hpchub.kernels.job_settings import JobSettings
from hpchub.kernels.refusal import refusal

_AWAY = "allocation failure: Unable to contact slurm controller (connect failure)\n"
_PARTITION = (
    "sbatch: error: invalid partition specified: nope\nallocation failure: Invalid partition name specified\n"
)
_MEMORY = "sbatch: error: Invalid --mem specification\n"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (CommandResult(exit_code=1, stderr=_PARTITION), "Invalid partition name specified"),
        (golden("sbatch_refused_option"), "unrecognized option '--nope'."),
        (golden("sbatch_refused_time_word"), "Invalid --time specification."),
        (CommandResult(exit_code=255, stderr=_MEMORY), "Invalid --mem specification."),
        (CommandResult(exit_code=1, stderr=_AWAY), ""),
        (golden("sbatch_controller_hangs"), ""),
        (golden("sbatch_munge_down"), ""),
    ],
    ids=["partition", "option", "time", "memory", "away", "hangs", "munge"],
)
def test_a_refusal_is_told_and_an_outage_is_none(
    answer: CommandResult, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the controller refuses the job, or sbatch before it; without an answer nothing is known."""
    program = tmp_path / "sbatch"
    program.write_text(f"#!/bin/sh\nprintf %s {shlex.quote(answer.stderr)} >&2\nexit {answer.exit_code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert refusal(JobSettings()) == words
