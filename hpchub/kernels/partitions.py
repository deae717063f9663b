"""The cluster's partitions, for the form in JupyterLab: asked for by Slurm's command on this machine."""

from __future__ import annotations

import asyncio
import time

from hpchub.core.units import render_long_time
from hpchub.errors import SchedulerUnavailable
from hpchub.kernels.allocation import answer
from hpchub.schedulers.slurm_partitions import PartitionLimits, parse_partitions, partitions_command

# Who asks within this time after an answer gets the same one, also where it is that Slurm is away.
_FRESH_S = 5.0
_GIB = 1024**3


class Partitions:
    """Answers that many pages share."""

    def __init__(self) -> None:
        self._asking: asyncio.Task[list[PartitionLimits]] | None = None
        self._answered_at = 0.0

    async def get(self) -> list[PartitionLimits]:
        """Those that the person may use, in Slurm's order.

        Raises:
            SchedulerUnavailable: Slurm did not answer.
            UnexpectedOutput: Nobody can read what it answered.
            StartFailed: There is no sinfo here.
        """
        if self._asking is None or (self._asking.done() and time.monotonic() - self._answered_at > _FRESH_S):
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> list[PartitionLimits]:
        command = partitions_command()
        try:
            result = await asyncio.to_thread(answer, command)
        finally:
            self._answered_at = time.monotonic()
        if result.exit_code < 0:
            raise SchedulerUnavailable(f"Slurm did not answer sinfo within {command.timeout_s:g} s.")
        return parse_partitions(result)


def in_texts(one: PartitionLimits) -> dict[str, object]:
    """A partition in texts as the form takes them; empty where there is no limit."""
    return {
        "name": one.name,
        "is_default": one.is_default,
        "state": one.state,
        "max_time": render_long_time(one.max_time_s) if one.max_time_s else "",
        "default_time": render_long_time(one.default_time_s) if one.default_time_s else "",
        "cpus": one.cpus,
        "memory": _whole(one.memory_bytes),
        "gpus": [{"type": kind, "number": number} for kind, number in one.gpus.items()],
    }


def _whole(size: int) -> str:
    """What may be asked of that size in a short number: `251G`, `1900M`."""
    return f"{size // _GIB}G" if size >= 10 * _GIB or size % _GIB == 0 else f"{size // 1024**2}M"
