"""`%squeue` of a long queue, beside that of slurm-magic 0.1.0: `python -m bench --only magics`.

Both are the real line magics in an IPython shell, and start a squeue that prints a file: the same jobs
for both. Each measurement is a fresh process, and the ways take turns.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import pins

SIZES = (1_000, 10_000, 100_000)
ROUNDS = 7
MARK = "\x1eBENCH-0123ab"  # as long as a real one
# squeue's own default: the columns that slurm-magic reads.
PLAIN_FORMAT = "%.18i %.9P %.8j %.8u %.2t %.10M %.6D %R"
WAYS = {
    "all": "%squeue, its 17 columns",
    "same": "%squeue, the same 8 columns",
    "theirs": "slurm-magic 0.1.0, 8 columns",
}
_PLAIN = "%18s %9s %8s %8s %2s %10s %6s %s"
_PLAIN_HEADINGS = ("JOBID", "PARTITION", "NAME", "USER", "ST", "TIME", "NODES", "NODELIST(REASON)")
_HEADINGS = (
    *("JOBID", "PARTITION", "NAME", "USER", "STATE", "TIME", "TIME_LIMIT", "NODES", "CPUS", "MIN_MEMORY"),
    *("SUBMIT_TIME", "START_TIME", "NODELIST", "REASON"),
)
_STATES = {"R": "RUNNING", "PD": "PENDING"}
_REASONS = ("Priority", "Resources", "Dependency", "QOSMaxJobsPerUserLimit", "JobHeldUser")
_LONG_REASONS = (
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
    "ReqNodeNotAvail, UnavailableNodes:nid[00001-00012]",
    "launch failed requeued held",
)


@dataclass(frozen=True, slots=True)
class Job:
    """One job of the queue, in squeue's words."""

    job_id: str
    partition: str
    name: str
    user: str
    state: str
    elapsed: str
    nodes: int
    nodelist: str
    reason: str

    def plain(self) -> tuple[object, ...]:
        """squeue's default columns."""
        first = (self.job_id, self.partition, self.name, self.user, self.state, self.elapsed, self.nodes)
        return (*first, self.nodelist or f"({self.reason})")

    def full(self, pick: random.Random) -> tuple[object, ...]:
        """What our %squeue asks for; what is not in squeue's default is made up."""
        limit = pick.choice(("30:00", "1:00:00", "8:00:00", "1-00:00:00", "3-00:00:00", "UNLIMITED"))
        cpus, memory = self.nodes * pick.choice((1, 8, 64)), pick.choice(("0", "500M", "1G", "4G", "64G"))
        submitted = 1_700_000_000 + pick.randint(0, 259_200)
        known = self.nodelist or pick.random() < 0.1
        start = submitted + pick.randint(0, 90_000) if known else "N/A"
        return (
            *(self.job_id, self.partition, self.name, self.user, _STATES[self.state], self.elapsed, limit),
            *(self.nodes, cpus, memory, submitted, start, self.nodelist, self.reason),
        )


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
        has_blanks, is_long = pick.random() < 0.05, pick.random() < 0.1
        if has_blanks:
            name = pick.choice(("my job", "a b c", "fit v 2"))
        nodes = pick.choice((1, 1, 1, 2, 4, 16, 128))
        if running:
            state, elapsed, first = "R", _written(pick.randint(1, 259_200)), pick.randint(1, 9000)
            nodelist = f"nid{first:05d}" if nodes == 1 else f"nid[{first:05d}-{first + nodes - 1:05d}]"
            reason = "None"
        else:
            state, elapsed, nodelist, reason = "PD", "0:00", "", pick.choice(_REASONS)
            if is_long:
                reason = pick.choice(_LONG_REASONS)
        partition = pick.choice(("batch", "debug", "gpu", "bigmem", "long"))
        user = f"user{pick.randint(0, 400):03d}"
        yield Job(job_id, partition, name, user, state, elapsed, nodes, nodelist, reason)


def _written(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}-{hours:02d}:{minutes:02d}:{seconds:02d}"
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def plain_text(count: int) -> str:
    """What squeue prints by itself."""
    return "".join(
        f"{_PLAIN % row}\n" for row in (_PLAIN_HEADINGS, *(job.plain() for job in messy_jobs(count)))
    )


def marked_text(way: str, count: int) -> str:
    """What squeue prints for %squeue."""
    if way == "same":
        rows = [_PLAIN_HEADINGS, *(job.plain() for job in messy_jobs(count))]
    else:
        pick = random.Random(5)  # noqa: S311  nothing secret about it
        rows = [_HEADINGS, *(job.full(pick) for job in messy_jobs(count))]
    return "".join("\x1f".join((MARK, *map(str, row), MARK)) + "\n" for row in rows)


@dataclass(slots=True)
class Rounds:
    """Each round's measures of one way and size, by name: seconds, cpu_s, held_mb, lost, typed, columns."""

    rounds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, measures: Mapping[str, float]) -> None:
        """One more round."""
        for name, value in measures.items():
            self.rounds.setdefault(name, []).append(value)


@dataclass(frozen=True, slots=True)
class Found:
    """The rounds by number of jobs and way, and where the milliseconds of ours go with the most jobs."""

    by_size: dict[int, dict[str, Rounds]]
    where_ms: dict[str, float]


def measure(say: Callable[[str], None], rounds: int = ROUNDS) -> Found:
    """Both magics, in turn."""
    rival = pins.install("bench-magics")
    found: dict[int, dict[str, Rounds]] = {count: {way: Rounds() for way in WAYS} for count in SIZES}
    with tempfile.TemporaryDirectory(prefix="hpchub-bench-") as name:
        folder = Path(name)
        squeue = folder / "bin" / "squeue"
        squeue.parent.mkdir()
        squeue.write_text('#!/bin/sh\nexec cat "$BENCH_ANSWER"\n')
        squeue.chmod(0o755)
        for count in (10, *SIZES):
            for way in WAYS:
                text = plain_text(count) if way == "theirs" else marked_text(way, count)
                (folder / f"{way}-{count}").write_text(text)
        for count in SIZES:
            say(f"%squeue of {count:,} jobs, against slurm-magic")
            for _ in range(rounds):
                for way in WAYS:
                    once = _fresh(("magics_once", way, str(count), str(folder)), folder, rival)
                    found[count][way].add(once)
        where_ms = _fresh(("magics_where", str(SIZES[-1]), str(folder)), folder, rival)
    return Found(found, where_ms)


def _fresh(words: Sequence[str], folder: Path, rival: Path) -> dict[str, float]:
    """What a module of the bench says in a process of its own."""
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "PYTHONPATH": str(rival), "IPYTHONDIR": str(folder / "ipython")}
    argv = (sys.executable, "-m", f"bench.{words[0]}", *words[1:])
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed:\n{done.stderr[-3000:]}")
    measures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measures
