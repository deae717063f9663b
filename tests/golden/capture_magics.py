"""Captures again what Slurm answers to the tables' queries: `capture_magics.py DEMO_DIR`.

Boot a cluster for it (`hpchub demo up --cluster-only --dir DIR`), with nothing in its queue. Takes a
quarter of a minute. `capture_magics.py --tree TREE` asks the Slurm of another Debian release: see
README.md beside this file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).parents[1]))

from golden import reader
from golden.other_slurm import OtherSlurm

from hpchub.core.command import CommandResult
from slurm_magics.queries import plan

# In a real query it is random: here it is one that tests can compare.
MARK = "\x1eCAPTURED-abc"
QUIET = ("--output=/dev/null", "--wrap", "sleep 300")
NAMES = {
    "blanks": "my job  2",
    "pipe_and_quotes": "a|b\"c'd",
    "newline": "line\n99999",
    "na": "NA",
    "number": "007",
    "unit_separator": "x\x1fRUNNING\x1fc1",
    "not_utf8": "\udcff\udcfe",
    "long": "n" * 1000,
}
QUERIES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "squeue": ("squeue", ()),
    "squeue_long": ("squeue", ("-l",)),
    "squeue_start": ("squeue", ("--start",)),
    "squeue_steps": ("squeue", ("-s",)),
    "squeue_clusters": ("squeue", ("-M", "demo")),
    "squeue_format": ("squeue", ("-h", "-o", "%.7i %j %k %Z")),
    "squeue_long_format": ("squeue", ("-O", "name:8,jobid,starttime")),
    "squeue_bob": ("squeue", ("--user=bob",)),
    "sinfo": ("sinfo", ()),
    "sinfo_nodes": ("sinfo", ("-N", "-l")),
    "sinfo_summary": ("sinfo", ("-s",)),
    "sinfo_reasons": ("sinfo", ("-R",)),
    "sinfo_long_format": ("sinfo", ("-O", "partition,nodes,memory,gres")),
    "sacct": ("sacct", ()),
    "sacct_long": ("sacct", ("-l",)),
    "sacct_brief": ("sacct", ("-b",)),
    "sacct_format": ("sacct", ("-X", "--format=JobName%5,JobID,TimelimitRaw,ReqMem,CPUTimeRAW")),
}
# What `%scontrol show` asks; the jobs' numbers come from the last.
SHOWS: Mapping[str, tuple[tuple[str, ...], Mapping[str, str]]] = {
    "scontrol_jobs": (("scontrol", "show", "job"), {"SLURM_TIME_FORMAT": "standard"}),
    "scontrol_nodes": (("scontrol", "--oneliner", "show", "node"), {"SLURM_TIME_FORMAT": "%s"}),
    "scontrol_partitions": (("scontrol", "--oneliner", "show", "partition"), {"SLURM_TIME_FORMAT": "%s"}),
    "squeue_numbers": (("squeue", "--noheader", "--states=all", "--format=%A"), {}),
}


class Run(Protocol):
    """One command as one person; None in `environ` takes a name out of the environment."""

    def __call__(
        self, argv: Sequence[str], *, user: str = "alice", environ: Mapping[str, str | None] | None = None
    ) -> CommandResult: ...


def run(
    folder: Path, argv: Sequence[str], *, user: str = "alice", environ: Mapping[str, str | None] | None = None
) -> CommandResult:
    """One command as one person on a login node of a demo."""
    demo = (sys.executable, "-m", "hpchub.cli", "demo", "exec", "--dir", str(folder), "login1")
    words = []
    for name, value in (environ or {}).items():
        words += [f"--unset={name}"] if value is None else [f"{name}={value}"]
    words.sort(key=lambda word: not word.startswith("--unset"))
    done = subprocess.run(
        (*demo, "--user", user, "--", "env", *words, *argv), capture_output=True, check=False
    )
    stdout, stderr = (text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
    return CommandResult(exit_code=done.returncode, stdout=stdout, stderr=stderr)


def version_folder(run: Run) -> Path:
    """Where the answers of this version are kept."""
    version = run(("sbatch", "--version")).stdout.split()[1]
    folder = reader.FOLDER / f"slurm-{'.'.join(version.split('.')[:2])}"
    folder.mkdir(exist_ok=True)
    return folder


def capture(run: Run, folder: Path, captured: str, *, before: Callable[[], object] = lambda: None) -> None:
    """Fill the queue, call `before`, and keep the answer to every question in a folder."""
    jobs = {
        kind: run(("sbatch", "--parsable", f"--job-name={name}", *QUIET)).stdout.strip()
        for kind, name in NAMES.items()
    }
    for kind, options in {
        "array": ("--array=1-9%2", "--time=00:20:00"),
        "held_array": ("--array=1-9:2%3", "--hold"),
        "held": ("--hold", "--comment=two words"),
        "short": ("--partition=short", "--nodes=2", "--time=1"),
    }.items():
        jobs[kind] = run(("sbatch", "--parsable", *options, *QUIET)).stdout.strip()
    het = ("sbatch", "--parsable", "--output=/dev/null", "-n1", ":", "-n1", "--wrap", "sleep 300")
    jobs["het"] = run(het).stdout.strip()
    before()
    time.sleep(4)
    facts = {"slurm": run(("sbatch", "--version")).stdout.split()[1], "captured": captured, "jobs": jobs}
    for name, (tool, words) in QUERIES.items():
        query = plan(tool, words, {}, MARK)
        if query is None:
            raise AssertionError(name)
        result = run(query.argv, environ=query.environ)
        reader.write(
            f"magics_{name}", result, folder=folder, argv=query.argv, environ=query.environ,
            asked=[tool, *words], **facts,
        )  # fmt: skip
        print(f"{name}: exit {result.exit_code}, {len(result.stdout)} + {len(result.stderr)} characters")
    for name, (argv, environ) in SHOWS.items():
        result = run(argv, environ=environ)
        reader.write(
            f"magics_{name}", result, folder=folder, argv=argv, environ=dict(environ), **facts
        )  # fmt: skip
    run(("scancel", "--user=alice"))


def capture_other(tree: Path) -> None:
    """From the Slurm of an unpacked Debian release: also ended jobs, and a node that is drained."""
    with OtherSlurm(tree) as slurm:
        for body in ("true", "exit 7", "kill -SEGV $$"):
            slurm.run(("sbatch", "--job-name=ended", "--output=/dev/null", f"--wrap={body}"))
        drain = ("scontrol", "update", "NodeName=c2", "State=DRAIN", "Reason=two words")
        time.sleep(4)
        capture(
            slurm.run,
            version_folder(slurm.run),
            "tests/golden/other_slurm.py, as alice",
            before=partial(slurm.run, drain, user="root"),
        )


def main() -> None:
    """Ask the one or the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("demo", type=Path, nargs="?", help="the folder of a running demo cluster")
    parser.add_argument("--tree", type=Path, help="another Debian release, unpacked")
    options = parser.parse_args()
    if options.tree:
        capture_other(options.tree)
    else:
        captured = "hpchub demo exec login1 --user alice -- env ENVIRON ARGV"
        capture(partial(run, options.demo), reader.SLURM, captured)


if __name__ == "__main__":
    main()
