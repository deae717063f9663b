"""A real ssh-agent that holds an authority's key."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh

from support import require
from support.ports import listens


@contextmanager
def a_ca_agent(folder: Path) -> Iterator[Path]:
    """Its socket; it holds no key yet. `folder` gets SoftHSM's settings, and its tokens."""
    require.programs("ssh-agent", "ssh-add")
    path = folder / "ca-agent.sock"
    # Where a token's library finds its tokens is in the agent's environment: it is its child that loads it.
    softhsm = folder / "softhsm2.conf"
    softhsm.write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\n")
    env = {"PATH": "/usr/bin:/bin", "SOFTHSM2_CONF": str(softhsm)}
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL, env=env) as process:
        try:
            deadline = time.monotonic() + 10
            while not listens(path):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
            yield path
        finally:
            process.terminate()


def add_key(agent: Path, key: asyncssh.SSHKey) -> None:
    """As staff do it: ssh-add."""
    subprocess.run(
        ["ssh-add", "-q", "-"],
        input=key.export_private_key("openssh"),
        env={"SSH_AUTH_SOCK": str(agent), "PATH": "/usr/bin:/bin"},
        check=True,
    )
