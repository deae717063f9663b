"""Commands on this machine end with their answer, or at their limit."""

from __future__ import annotations

import os
import time

import pytest

from slurm_magics.done import Said
from slurm_magics.errors import SlurmError
from slurm_magics.machine import Local

SILENT = ("sh", "-c", "exec >&- 2>&- <&-; exec sleep 60")


@pytest.fixture(params=["pidfd", "no pidfd"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Local:
    """This machine, as Linux is, or as macOS is."""
    if request.param == "no pidfd":
        monkeypatch.delattr(os, "pidfd_open")
    return Local()


def test_what_a_command_leaves(machine: Local) -> None:
    """Its exit code and both streams, with a limit and without."""
    for limit_s in (30.0, None):
        done = machine.run(("sh", "-c", "cat; echo no >&2; exit 3"), stdin=b"yes", limit_s=limit_s)
        assert (done.exit_code, done.stdout, done.stderr) == (3, b"yes", b"no\n")


def test_a_command_that_says_nothing_more_ends_at_its_limit(machine: Local) -> None:
    """Closed pipes are not its end."""
    began = time.monotonic()
    with pytest.raises(SlurmError, match=r"sh has not answered within 0\.2 s"):
        machine.run(SILENT, limit_s=0.2)
    assert time.monotonic() - began < 30


def test_a_killed_command_is_told_by_its_signal(machine: Local) -> None:
    """As `subprocess` tells it."""
    assert machine.run(("sh", "-c", "kill -9 $$"), limit_s=30.0).exit_code == -9


def test_what_is_taken_as_it_comes_is_not_kept(machine: Local) -> None:
    """But for its beginning: that may say why the command fails."""
    pieces: list[bytes] = []
    script = "head -c 300000 /dev/zero; echo oops >&2; exit 3"
    done = machine.run(("sh", "-c", script), limit_s=30.0, take=pieces.append)
    assert b"".join(pieces) == bytes(300_000)
    assert (done.stdout, done.stderr, done.exit_code) == (bytes(4096), b"oops\n", 3)


def test_what_is_too_much_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor while the command is being ended, which may take a while."""
    monkeypatch.setattr("slurm_magics.done.MOST_BYTES", 1000)
    said = Said("srun")
    said.add(b"x" * 1000)
    for _ in range(5):
        with pytest.raises(SlurmError, match="srun printed more than 0 MB, and was ended"):
            said.add(b"x" * 500)
    assert said.done(0).stdout == b"x" * 1000
