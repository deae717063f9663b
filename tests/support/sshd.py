"""Debian's sshd on a loopback port, with whatever settings a test wants."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import asyncssh

from support.ports import free_ports

SSHD = "/usr/sbin/sshd"


def new_host_key(folder: Path) -> asyncssh.SSHKey:
    """Made, and put into `host_key` and `host_key.pub` of the folder."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    (folder / "host_key").touch(0o600)
    (folder / "host_key").write_bytes(key.export_private_key())
    (folder / "host_key.pub").write_bytes(key.export_public_key())
    return key


@contextmanager
def an_sshd(folder: Path, prefix: Sequence[str], *lines: str) -> Iterator[int]:
    """Its port.

    Args:
        folder: Has `host_key`, and gets sshd's settings and its `log`.
        prefix: What comes before sshd's own argv, such as a namespace.
        lines: More settings: the authorities, for example.
    """
    (port,) = free_ports(1)
    usual = ("ListenAddress 127.0.0.1", f"HostKey {folder}/host_key", "PidFile none", "UsePAM no")
    settings = (f"Port {port}", *usual, *lines, "")
    (folder / "sshd_config").write_text("\n".join(settings))
    log = folder / "log"
    log.unlink(missing_ok=True)
    argv = [*prefix, SSHD, "-D", "-f", str(folder / "sshd_config"), "-E", str(log)]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not log.exists() or b"Server listening" not in log.read_bytes():
            assert process.poll() is None, log.read_text() if log.exists() else "sshd did not start"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
