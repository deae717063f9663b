"""`make bench` as a whole."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.tree import ROOT


@pytest.mark.slow
def test_every_part_is_there() -> None:
    """Nothing that it needs of the rest has gone away."""
    argv = (sys.executable, "-m", "bench", "--help")
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--only" in done.stdout
