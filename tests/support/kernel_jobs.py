"""Kernels in jobs: a manager and client of one, and stand-ins for Slurm's commands that run its job here."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

# The job's state is in the folder: `pid` of what runs, `state` where something else is to be said.
_SBATCH = """#!/bin/bash
set -e
cat >{folder}/script
echo submitted >>{folder}/submitted
log=$(sed -n 's/^#SBATCH --output=//p' {folder}/script)
if [ ! -e {folder}/held ]; then
    SLURM_JOB_ID=4242 setsid bash {folder}/script >"$log" 2>&1 &
    echo $! >{folder}/pid
fi
echo 4242
"""
_SQUEUE = """#!/bin/bash
state=RUNNING reason=None
[ -e {folder}/held ] && state=PENDING reason=Resources
kill -0 "$(cat {folder}/pid)" 2>/dev/null || [ $state = PENDING ] || state=COMPLETED
[ -e {folder}/state ] && read -r state <{folder}/state
if [ $state = away ]; then
    echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2
    exit 1
fi
printf '4242\\x1f%s\\x1fnode1\\x1f%s\\n' "$state" "$reason"
"""
_SCANCEL = """#!/bin/bash
echo "$@" >>{folder}/cancelled
kill -TERM "$(cat {folder}/pid)" 2>/dev/null || true
"""
# sshd as root wants its folder and an account that is not locked; as anybody else, neither.
_SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do shift; done
echo began >>{folder}/steps
if [ -e {folder}/refuses ]; then
    echo 'srun: error: Unable to create step for job 4242: Requested nodes are busy' >&2
    exit 1
fi
[ "$(id -u)" = 0 ] || exec "$@"
exec unshare --mount sh -ec 'mount -t tmpfs tmpfs /run; mkdir /run/sshd
    echo "root:*:19000::::::" >/run/shadow; mount --bind /run/shadow /etc/shadow; exec "$@"' sh "$@"
"""


class OneJob:
    """The stand-ins' folder, to be put on PATH, and what they know."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in (("sbatch", _SBATCH), ("squeue", _SQUEUE), ("scancel", _SCANCEL), ("srun", _SRUN)):
            path = folder / name
            path.write_text(text.replace("{folder}", str(folder)))
            path.chmod(0o755)

    def say(self, state: str) -> None:
        """What squeue says from now on; `away` is no answer."""
        (self.folder / "state").write_text(f"{state}\n")

    def hold(self) -> None:
        """The next job stays in the queue."""
        (self.folder / "held").touch()

    @property
    def steps(self) -> int:
        """How many steps of it were to begin."""
        path = self.folder / "steps"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def refuse_steps(self) -> None:
        """No step begins from now on."""
        (self.folder / "refuses").touch()

    def allow_steps(self) -> None:
        """Steps begin again."""
        (self.folder / "refuses").unlink()

    @property
    def pid(self) -> int:
        """The job's process."""
        return int((self.folder / "pid").read_text())

    @property
    def script(self) -> str:
        """What was submitted."""
        return (self.folder / "script").read_text()

    @property
    def submitted(self) -> int:
        """How many jobs have been submitted."""
        return len((self.folder / "submitted").read_text().splitlines())

    @property
    def cancelled(self) -> list[str]:
        """What scancel was called with."""
        path = self.folder / "cancelled"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def runs(self) -> bool:
        """Whether the job's process is there."""
        path = Path(f"/proc/{self.pid}/stat")
        return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


class Notebook:
    """A kernel's manager and client."""

    def __init__(self) -> None:
        from jupyter_client.manager import AsyncKernelManager

        self.manager = AsyncKernelManager(kernel_name="node")
        self.client: Any = None
        self.said: list[str] = []

    async def start(self, path: str = "") -> None:
        """As Jupyter's server starts a kernel for a notebook."""
        await self.manager.start_kernel(env={**os.environ, **({"JPY_SESSION_NAME": path} if path else {})})
        self.client = self.manager.client()
        self.client.start_channels()
        await self.client.wait_for_ready(timeout=60)

    async def run(self, code: str) -> str:
        """What a cell prints, or the name of what it raises."""
        said = self.said = []

        def hear(message: dict[str, Any]) -> None:
            if text := message["content"].get("text") or message["content"].get("ename"):
                said.append(text)

        await self.client.execute_interactive(code, timeout=60, output_hook=hear)
        return "".join(said)


@asynccontextmanager
async def notebook(path: str = "") -> AsyncIterator[Notebook]:
    """A kernel that is shut down at the end."""
    one = Notebook()
    try:
        await one.start(path)
        yield one
    finally:
        if one.client is not None:
            one.client.stop_channels()
        await one.manager.shutdown_kernel(now=True)


async def until(what: Callable[[], bool]) -> None:
    """Wait for something that is about to happen."""
    async with asyncio.timeout(30):
        while not what():  # noqa: ASYNC110  other processes know no events of ours
            await asyncio.sleep(0.02)
