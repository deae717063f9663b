"""Debian's sshd on a loopback port, with whatever settings a test wants."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from support.ports import free_ports

SSHD = "/usr/sbin/sshd"


@asynccontextmanager
async def an_sshd(folder: Path, namespace: Sequence[str], *lines: str) -> AsyncIterator[int]:
    """Its port. `folder` gets its settings and its log; `lines` name host key and authorities."""
    (port,) = free_ports(1)
    (folder / "sshd_config").write_text(
        "\n".join(
            (
                f"Port {port}",
                "ListenAddress 127.0.0.1",
                "PidFile none",
                "UsePAM no",
                "AuthenticationMethods publickey",
                *lines,
                "",
            )
        )
    )
    log = folder / "log"
    log.unlink(missing_ok=True)
    argv = [*namespace, SSHD, "-D", "-f", str(folder / "sshd_config"), "-E", str(log)]
    process = await asyncio.create_subprocess_exec(*argv, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not log.exists() or b"Server listening" not in log.read_bytes():
            assert process.returncode is None, log.read_text() if log.exists() else "sshd did not start"
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        yield port
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()
