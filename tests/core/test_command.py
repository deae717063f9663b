"""hpchub.core.command: what a command is called in messages"""

from __future__ import annotations

import pytest

from hpchub.core.command import Command


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (("squeue", "--me"), "squeue"),
        (("/usr/bin/squeue",), "squeue"),
        (("env", "SLURM_TIME_FORMAT=%s", "squeue", "--me"), "squeue"),
        (("env",), "env"),
        (("env", "A=b"), "env"),
    ],
)
def test_a_command_is_called_as_its_program(argv: tuple[str, ...], name: str) -> None:
    """Without its folder, and without what `env` sets for it."""
    assert Command(argv=argv).name == name
