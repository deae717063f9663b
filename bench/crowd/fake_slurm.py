"""A scheduler that starts every job after the real one's time, and answers as Slurm 22.05 prints."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.crowd import figures

# A user whose name begins so waits in the queue until `release`.
WAITS = "waits"

_SEPARATOR = "\x1f"
_FOLDER = re.compile(r"/home/[^/\s']+/\.hpchub/servers/[0-9a-f]{32}")
_INVALID = "slurm_load_jobs error: Invalid job id specified\n"

_LIMIT_S = 3600

Answer = tuple[int, str, str]
Spawn = Callable[[Coroutine[Any, Any, None]], None]


@dataclass(slots=True)
class Job:
    """One job: `folder` names the server that it runs."""

    id: int
    user: str
    folder: str
    state: str = "PENDING"
    node: str = ""
    began: float = 0.0
    released: asyncio.Event = field(default_factory=asyncio.Event)


# squeue(1), --format.
_FIELDS: dict[str, Callable[[Job], str]] = {
    "%i": lambda job: str(job.id),
    "%T": lambda job: job.state,
    "%B": lambda job: job.node or "n/a",
    "%r": lambda job: "Resources" if job.state == "PENDING" else "None",
    "%S": lambda job: f"{job.began:.0f}" if job.began else "N/A",
    "%e": lambda job: f"{job.began + _LIMIT_S:.0f}" if job.began else "N/A",
    "%P": lambda _job: "cpu",
    "%Q": lambda _job: "1",
}


class FakeSlurm:
    """The jobs of one simulated cluster.

    `on_start` is called when a job begins to run, `on_end` when it is cancelled.
    """

    def __init__(self, spawn: Spawn, on_start: Callable[[Job], None], on_end: Callable[[Job], None]) -> None:
        self.jobs: dict[int, Job] = {}
        self._ids = itertools.count(1)
        self._spawn = spawn
        self._on_start = on_start
        self._on_end = on_end

    def answer(self, user: str, argv: Sequence[str], stdin: bytes) -> Answer | None:
        """What a command of Slurm's answers: exit code, stdout and stderr. None where it is none."""
        match argv[0]:
            case "sbatch":
                return self._sbatch(user, stdin.decode())
            case "squeue":
                return self._squeue(argv)
            case "sacct":
                return self._sacct(argv)
            case "scancel":
                return self._scancel(argv)
            case "sacctmgr":
                return 0, "project|project|\n", ""
        return None

    def release(self) -> None:
        """Let every waiting job run."""
        for job in self.jobs.values():
            job.released.set()

    def _sbatch(self, user: str, script: str) -> Answer:
        found = _FOLDER.search(script)
        if found is None:
            return 1, "", "sbatch: error: Batch job submission failed: the script names no server\n"
        job = Job(next(self._ids), user, found[0])
        self.jobs[job.id] = job
        if not user.startswith(WAITS):
            job.released.set()
        self._spawn(self._run(job))
        return 0, f"{job.id}\n", ""

    async def _run(self, job: Job) -> None:
        await asyncio.sleep(figures.QUEUE_S)
        await job.released.wait()
        if job.state == "PENDING":
            job.state, job.node, job.began = "RUNNING", f"c{job.id % 100}", time.time()
            self._on_start(job)

    def _squeue(self, argv: Sequence[str]) -> Answer:
        options = dict(word.partition("=")[::2] for word in argv[1:])
        if "--jobs" not in options and "--name" in options:  # no simulated bridge loses a job's id
            return 0, "", ""
        known = list(self.jobs.values())
        if "--jobs" in options:
            ids = _ids(argv)
            known = [self.jobs[one] for one in ids if one in self.jobs]
            if not known and len(ids) == 1:
                return 1, "", _INVALID
        elif options["--states"] == "PENDING":
            known = [job for job in known if job.state == "PENDING"]
        codes = options["--format"].split(_SEPARATOR)
        return 0, _table([_FIELDS[code](job) for code in codes] for job in known), ""

    def _sacct(self, argv: Sequence[str]) -> Answer:
        known = [self.jobs[one] for one in _ids(argv) if one in self.jobs]
        return 0, _table((str(job.id), job.state, job.node, "0:0") for job in known), ""

    def _scancel(self, argv: Sequence[str]) -> Answer:
        for text in (word for word in argv[1:] if not word.startswith("-")):
            job = self.jobs.get(int(text))
            if job is not None and job.state in {"PENDING", "RUNNING"}:
                job.state = "CANCELLED"
                job.released.set()
                self._on_end(job)
        return 0, "", ""


def _ids(argv: Sequence[str]) -> list[int]:
    (listed,) = [word.partition("=")[2] for word in argv if word.startswith("--jobs=")]
    return [int(one) for one in listed.split(",")]


def _table(rows: Any) -> str:
    return "".join(_SEPARATOR.join(row) + "\n" for row in rows)
