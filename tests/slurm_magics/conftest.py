"""An IPython shell with the magics, and Slurm's commands that answer as they are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

import slurm_magics
from support.slurm_commands import Commands


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Slurm's commands; nothing else of Slurm's is on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in ("SQUEUE_FORMAT", "SQUEUE_FORMAT2", "SINFO_FORMAT", "SACCT_FORMAT"):
        monkeypatch.delenv(name, raising=False)
    return Commands(folder)


@pytest.fixture
def shell() -> InteractiveShell:
    """A fresh shell that has loaded the extension."""
    shell = InteractiveShell()
    shell.history_manager.enabled = False
    slurm_magics.load_ipython_extension(shell)
    return shell
