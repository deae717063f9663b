from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell

from slurm_magics.delimited import UNIT
from slurm_magics.memory import give_back
from support.slurm_commands import Commands


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the C library sees to it")
def test_what_was_freed_goes_back_to_the_system() -> None:
    """Also where it lies between what is still in use: the C library keeps that otherwise."""
    blocks = [np.ones(100_000, dtype="uint8") for _ in range(400)]
    kept = blocks[::2]
    blocks.clear()
    before = _resident()
    give_back()
    assert _resident() < before - 10_000_000
    assert len(kept) == 200


def test_a_long_table_gives_back_what_it_needed(
    commands: Commands, shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short one needs next to nothing, and does not spend the time."""
    given_back = []
    monkeypatch.setattr("slurm_magics.session.give_back", lambda: given_back.append(True))
    for rows, times in ((10, 0), (6_000, 1)):
        listed = "".join(f"MARK{UNIT}{number}{UNIT}MARK\n" for number in ("JOBID", *range(rows)))
        commands.answer("squeue", listed)
        shell.run_cell("%slurm fresh 0\nframe = %squeue -o %i").raise_error()
        assert (len(shell.user_ns["frame"]), len(given_back)) == (rows, times)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
