"""The sections about notebooks: tables of the magics, submitting, live cards, kernels on compute nodes."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from bench import jobs, kernels, magics
from bench.private_demo import Demo
from bench.report import Report, spread
from bench.starts import ratios

_HEAD = ("", "median", "min", "max")
# Of the cards' questions to Slurm: seconds between two, from which second of their life on.
_LATER = "every 2 s in a card's first minute, then every 5 s, 15 s after ten minutes, 60 s after an hour"


def tables(report: Report, say: Callable[[str], None]) -> None:
    """`%squeue` against slurm-magic's. Needs no cluster."""
    found = magics.measure(say)
    rows = []
    for count, ways in found.by_size.items():
        theirs = ways["theirs"].rounds
        for way, name in magics.WAYS.items():
            rounds = ways[way].rounds
            median = {measure: statistics.median(values) for measure, values in rounds.items()}
            both = ratios(rounds["seconds"], theirs["seconds"])
            on_processor = ratios(rounds["cpu_s"], theirs["cpu_s"])
            cpu_ratio = statistics.median(on_processor)
            rows.append([
                f"{count:,} jobs: {name}", f"{median['seconds']:.3f}", f"{statistics.median(both):.2f}",
                f"{median['cpu_s']:.3f}", f"{cpu_ratio:.2f}", f"{median['held_mb']:.1f}",
                f"{median['peak_mb']:.1f}",
                f"{median['lost']:,.0f}", f"{median['typed']:.0f} of {median['columns']:.0f}",
            ])  # fmt: skip
    report.add(
        "%squeue of a long queue",
        "Each row: the median of fresh processes, in turn; a ratio is to slurm-magic in the same round. The "
        "time is that of a cell `frame = %squeue` in IPython, with the start of a squeue that prints a file "
        "and the reading of its pipe; s on a processor count squeue's, too. Held is the process's memory "
        "after the cell less that before; at most: the greatest meanwhile. Columns that are text by nature "
        "(ids, names, node lists) count as having no type.",
        (
            "",
            "s",
            "ratio",
            "s on a processor",
            "ratio",
            "held MB",
            "at most",
            "rows lost",
            "columns with a type",
        ),
        rows,
    )
    whole = sum(found.where_ms.values())
    report.add(
        f"Where the time of %squeue goes, {magics.SIZES[-1]:,} jobs and all columns",
        "The second time and later ones in a process, medians.",
        ("", "ms", "%"),
        [[part, f"{took:.0f}", f"{100 * took / whole:.0f}"] for part, took in found.where_ms.items()],
    )
    report.numbers["magics"] = {
        "where_ms": found.where_ms,
        **{
            str(count): {way: one.rounds for way, one in ways.items()}
            for count, ways in found.by_size.items()
        },
    }


def submitting(demo: Demo, report: Report) -> None:
    """`%%sbatch` against sbatch."""
    found = jobs.measure(demo, "sbatch")
    in_ms = {way: [1000 * one for one in values] for way, values in found.items()}
    more = [ours - theirs for ours, theirs in zip(in_ms["magic"], in_ms["plain"], strict=True)]
    report.add(
        "%%sbatch",
        "A held job from an IPython on a login node, against `sbatch` started by the same process, in turn. "
        "The magic asks `scontrol show job` once, for the path of the output.",
        _HEAD,
        [
            ["%%sbatch (ms)", *spread(in_ms["magic"], 1)],
            ["sbatch (ms)", *spread(in_ms["plain"], 1)],
            ["**difference, pair by pair** (ms)", *spread(more, 1)],
            ["**ratio, pair by pair**", *spread(ratios(in_ms["magic"], in_ms["plain"]), 2)],
        ],
    )
    report.numbers["sbatch_ms"] = in_ms


def cards(demo: Demo, report: Report) -> None:
    """Fifty live cards."""
    found = jobs.measure(demo, "cards")
    count, rounds = found["cards"], 30
    head = ("a minute", "our cards", "a squeue for each, every 2 s")
    rows = [
        ["squeue", f"{found['squeue a minute']:.0f}", f"{count * rounds:.0f}"],
        ["sacct", f"{found['sacct a minute']:.0f}", ""],
        ["scontrol", f"{found['scontrol a minute']:.0f}", ""],
        ["s on a processor: the kernel", f"{found['kernel_cpu_s']:.2f}", ""],
        ["s on a processor: Slurm's commands", f"{found['commands_cpu_s']:.2f}",
         f"{found['naive_round_cpu_s'] * rounds:.1f}"],
        ["s that one round takes", "", f"{found['naive_round_s']:.2f}"],
    ]  # fmt: skip
    report.add(
        f"{count} live cards of {count} jobs, in their first minute",
        "Jobs that run, with output each second, and jobs that wait, in one kernel; commands are counted by "
        "a wrapper in PATH. The right column is computed from rounds of one `squeue -j` for each job. Slurm "
        f"is asked {_LATER}.",
        head,
        rows,
    )
    report.numbers["cards"] = found


def compute_kernels(demo: Demo, pairs: int, report: Report) -> None:
    """A kernel through hpchub-slurm against one through srun."""
    found = kernels.measure(demo, pairs)
    rows = []
    for what, digits in (("first reply, s", 2), ("round trip, ms", 1)):
        rows += [[f"{way}: {what}", *spread(values[what], digits)] for way, values in found.items()]
        both = ratios(found["ours"][what], found["srun"][what])
        rows.append([f"**ratio, pair by pair**: {what}", *spread(both, 2)])
    report.add(
        "A kernel on a compute node",
        "Through hpchub-slurm, and by hand with srun and the same Python on the same node, in turn.",
        _HEAD,
        rows,
    )
    report.numbers["kernels"] = found
