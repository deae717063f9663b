"""The agent's kernels, without a notebook server."""

from __future__ import annotations

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hpchub.remote.kernel_agent import Kernel


async def test_each_kernels_end_is_seen_however_many_there_are(tmp_path: Path) -> None:
    """On a job with one CPU the loop's own pool has five threads, and kernels of one word share a job."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    kernels = [Kernel(f"kernel-{number}", tmp_path / str(number), b"key") for number in range(3)]
    try:
        for one in kernels:
            await one.start({"argv": ["sleep", "60"]})
        await asyncio.wait_for(kernels[-1].stop(), 10)
        assert [one.exit_code for one in kernels] == [None, None, -signal.SIGTERM]
    finally:
        for one in kernels:
            one.send_signal(signal.SIGKILL)
        for one in kernels:
            await one.stop()
