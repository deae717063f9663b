"""How long a table takes and what it holds, beside the way of slurm-magic 0.1.0: `python -m bench.magics`.

The same jobs for both, as squeue prints them. slurm-magic hands the whole text to pandas, cut at blanks;
that call alone is timed here, which is less than its magic does. Each measurement is a fresh process.
"""

from __future__ import annotations

import gc
import io
import json
import random
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

SIZES = (1_000, 10_000, 100_000)
ROUNDS = 7
_MARK = "\x1eBENCH-0123ab"
_HEADINGS = ("JOBID", "PARTITION", "NAME", "USER", "STATE", "TIME", "NODES", "NODELIST", "REASON")
_PLAIN = "%18s %9s %8s %8s %2s %10s %6s %s"
_LONG_REASONS = (
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
    "ReqNodeNotAvail, UnavailableNodes:nid[00001-00012]",
    "launch failed requeued held",
)


@dataclass(frozen=True, slots=True)
class Job:
    """One job of the queue, as squeue would print it."""

    job_id: str
    partition: str
    name: str
    user: str
    state: str
    elapsed: str
    nodes: int
    nodelist: str
    reason: str


def messy_jobs(count: int) -> Iterator[Job]:
    """Jobs of a busy center, the same each time: arrays, components, names with blanks, long reasons."""
    pick = random.Random(1234)  # noqa: S311  nothing secret about it
    for number in range(1_000_000, 1_000_000 + count):
        kind, running = pick.random(), pick.random() < 0.6
        job_id = str(number)
        if kind < 0.1:
            job_id += f"_{pick.randint(0, 999)}"
        elif kind < 0.15 and not running:
            job_id += f"_[{pick.randint(1, 9)}-{pick.randint(10, 99)}%5]"
        elif kind < 0.17:
            job_id += f"+{pick.randint(0, 3)}"
        name = pick.choice(("sim_run", "train", "wrf", "lammps", "vasp_std", "md-eq", "post"))
        if pick.random() < 0.05:
            name = pick.choice(("my job", "a b c", "fit v 2"))
        nodes, first = pick.choice((1, 1, 1, 2, 4, 16, 128)), pick.randint(1, 9000)
        where = f"nid{first:05d}" if nodes == 1 else f"nid[{first:05d}-{first + nodes - 1:05d}]"
        reason = pick.choice(("Priority", "Resources", "Dependency", "QOSMaxJobsPerUserLimit", "JobHeldUser"))
        if pick.random() < 0.1:
            reason = pick.choice(_LONG_REASONS)
        elapsed = _written(pick.randint(1, 259_200)) if running else "0:00"
        partition = pick.choice(("batch", "debug", "gpu", "bigmem", "long"))
        user = f"user{pick.randint(0, 400):03d}"
        state, nodelist, reason = ("R", where, "None") if running else ("PD", "", reason)
        yield Job(job_id, partition, name, user, state, elapsed, nodes, nodelist, reason)


def _written(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}-{hours:02d}:{minutes:02d}:{seconds:02d}"
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def plain_text(jobs: Iterator[Job]) -> str:
    """What squeue prints by itself."""
    lines = [_PLAIN % ("JOBID", "PARTITION", "NAME", "USER", "ST", "TIME", "NODES", "NODELIST(REASON)")]
    for job in jobs:
        fields = (job.job_id, job.partition, job.name, job.user, job.state, job.elapsed, job.nodes)
        lines.append(_PLAIN % (*fields, job.nodelist or f"({job.reason})"))
    return "\n".join(lines) + "\n"


def marked_text(jobs: Iterator[Job]) -> bytes:
    """What squeue prints for %squeue."""
    rows = [_HEADINGS, *(tuple(map(str, _fields(job))) for job in jobs)]
    return "".join("\x1f".join((_MARK, *row, _MARK)) + "\n" for row in rows).encode()


def _fields(job: Job) -> tuple[object, ...]:
    first = (job.job_id, job.partition, job.name, job.user, job.state)
    return (*first, job.elapsed, job.nodes, job.nodelist, job.reason)


def measure(way: str, count: int) -> dict[str, float]:
    """Seconds (the median), megabytes held and rows lost."""
    make = {"ours": _ours, "theirs": _theirs}[way]
    make(10)()  # what is imported late is no part of the frame
    read = make(count)
    gc.collect()
    before = _resident()
    frame = read()
    gc.collect()
    held = (_resident() - before) / 1e6
    lost = count - len(frame)
    del frame
    times = []
    for _ in range(ROUNDS):
        gc.collect()
        began = time.perf_counter()
        frame = read()
        times.append(time.perf_counter() - began)
        del frame
    return {"seconds": statistics.median(times), "held_mb": held, "lost": lost}


def _ours(count: int) -> Callable[[], Any]:
    from slurm_magics import columns
    from slurm_magics.frames import marked_to_frame

    text, zone, parts = marked_text(messy_jobs(count)), ZoneInfo("UTC"), ("JOB", "TASK", "HET")
    return lambda: marked_to_frame(text, _MARK, columns.SQUEUE, zone=zone, parts=parts)


def _theirs(count: int) -> Callable[[], Any]:
    import pandas as pd

    warnings.simplefilter("ignore")
    text = plain_text(messy_jobs(count))
    return lambda: pd.read_csv(io.StringIO(text), sep=r"\s+", on_bad_lines="warn")


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main() -> None:
    """A table of both ways."""
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
        return
    print("| jobs | s | slurm-magic's s | ratio | held MB | its MB | rows lost | its rows lost |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for count in SIZES:
        ours, theirs = (_fresh(way, count) for way in ("ours", "theirs"))
        ratio = ours["seconds"] / theirs["seconds"]
        cells = [f"{count:,}", f"{ours['seconds']:.3f}", f"{theirs['seconds']:.3f}", f"{ratio:.2f}"]
        cells += [f"{one['held_mb']:.1f}" for one in (ours, theirs)]
        cells += [f"{one['lost']:,.0f}" for one in (ours, theirs)]
        print(f"| {' | '.join(cells)} |")


def _fresh(way: str, count: int) -> dict[str, float]:
    argv = (sys.executable, "-m", "bench.magics", way, str(count))
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
