"""An IPython shell with the magics, and Slurm's commands that answer as they are told."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest
from IPython.core.interactiveshell import InteractiveShell
from ssh.conftest import RealNode, start_sshd, stop_sshd
from traitlets.config import Config

import slurm_magics
from slurm_magics.remote import Remote
from support.laptop import Laptop
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
def shell() -> Iterator[InteractiveShell]:
    """A fresh shell that has loaded the extension, and keeps no history."""
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    slurm_magics.load_ipython_extension(shell)
    yield shell
    # It would be kept until the end, and then have the whole process's memory looked through, for each shell.
    atexit.unregister(shell.atexit_operations)


@pytest.fixture(scope="module")
def ca() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")


@pytest.fixture(scope="module")
def host_key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")


@pytest.fixture(scope="module")
def node(ca: asyncssh.SSHKey, host_key: asyncssh.SSHKey) -> Iterator[RealNode]:
    if os.geteuid() != 0:
        pytest.skip("needs root, for a mount namespace")
    node = start_sshd(ca, host_key, "/bin/bash", "SetEnv PATH=/usr/bin:/bin\n")
    yield node
    stop_sshd(node)


@pytest.fixture
def laptop(
    tmp_path: Path,
    node: RealNode,
    ca: asyncssh.SSHKey,
    host_key: asyncssh.SSHKey,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Laptop]:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    laptop = Laptop(tmp_path, node, ca, host_key)
    laptop.know()
    laptop.key()
    yield laptop
    for name in (".bashrc", ".profile"):
        (node.home / name).unlink(missing_ok=True)


@pytest.fixture
def cluster(laptop: Laptop) -> Iterator[Remote]:
    machine = laptop.connect()
    yield machine
    machine.close()
