"""Plots of tables: drawn from what Slurm might answer, also from nothing."""

from __future__ import annotations

import io
import random
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib import image

from slurm_magics import SlurmError
from slurm_magics.job import Job
from slurm_magics.jobs import Jobs
from slurm_magics.machine import Local
from slurm_magics.plots import plot_history, plot_nodes, plot_queue, plot_samples
from slurm_magics.session import Session
from slurm_magics.settings import Settings
from slurm_magics.submission import Outputs, Submission
from slurm_magics.usage import parse_sstat
from support.slurm_commands import Commands

ZONE = "Europe/Berlin"


def history(count: int) -> pd.DataFrame:
    """That many jobs as %sacct --plot asks for them; some wait, some run, some have ended."""
    chance = random.Random(3)  # noqa: S311  not for secrets
    submit = pd.Timestamp("2026-11-21T12:00", tz=ZONE) + pd.to_timedelta(range(count), unit="min")
    start, run = submit + pd.to_timedelta(90, unit="s"), pd.to_timedelta([600.0] * count, unit="s")
    cpus = [chance.choice([1, 4, 64]) for _ in range(count)]
    states = ["COMPLETED", "FAILED", "CANCELLED by 1001", "RUNNING", "PENDING"]
    return pd.DataFrame(
        {
            "JobID": [str(place) for place in range(count)],
            "JobName": ["a $b_{c}$ $\n"] * count,
            "State": pd.Categorical([states[place % 5] for place in range(count)]),
            "AllocCPUS": pd.array(cpus, dtype="Int64"),
            "ReqCPUS": pd.array(cpus, dtype="Int64"),
            "Submit": submit,
            "Start": pd.Series(start).where([place % 5 != 4 for place in range(count)]),
            "End": pd.Series(start + run).where([place % 5 < 3 for place in range(count)]),
            "Elapsed": run,
            "TotalCPU": run / 2,
            "CPUTimeRAW": run * cpus if count else run,
        }
    )


def queue(*rows: tuple[str, str, str, int]) -> pd.DataFrame:
    columns = {name: [row[at] for row in rows] for at, name in enumerate(("JOBID", "USER", "STATE", "CPUS"))}
    return pd.DataFrame(columns).astype({"USER": "category", "STATE": "category", "CPUS": "Int64"})


def widths(plot: Any) -> list[float]:
    """Of the bars, those of nothing left out."""
    return [patch.get_width() for patch in plot.axes[0].patches if patch.get_width()]


def test_who_uses_what() -> None:
    """CPUs that run and wait, of an array's waiting tasks each; the largest first, many as one bar."""
    frame = queue(
        ("1", "bob", "RUNNING", 4), ("2", "alice", "RUNNING", 16), ("3_[1-9%2]", "bob", "PENDING", 2)
    )
    plot = plot_queue(frame)
    assert [label.get_text() for label in plot.axes[0].get_yticklabels()] == ["bob", "alice"]
    assert widths(plot) == [4, 16, 18]
    many = queue(*((str(n), f"user{n:02d}", "RUNNING", 100 - n) for n in range(40)))
    labels = [label.get_text() for label in plot_queue(many).axes[0].get_yticklabels()]
    assert (len(labels), labels[-1]) == (15, "26 others")


def test_a_users_name_is_no_formula() -> None:
    """Whatever signs a site allows in it."""
    assert plot_queue(queue(("1", r"a$\b$", "RUNNING", 4)))._repr_png_().startswith(b"\x89PNG")


@pytest.mark.slow
def test_many_partitions_have_room() -> None:
    """Each name can be read: none is written over the next one."""
    names = [f"partition{number:02d}" for number in range(40)]
    plot = plot_nodes(pd.DataFrame({"PARTITION": names, "CPUS_A": 1, "CPUS_I": 2, "CPUS_O": 0}))
    plot._repr_png_()
    boxes = [label.get_window_extent() for label in plot.axes[0].get_yticklabels()]
    assert len(boxes) == 40
    assert all(below.y1 <= above.y0 for above, below in pairwise(boxes))


@pytest.mark.parametrize("count", [0, 1, 5, 60])
@pytest.mark.slow
def test_a_history_of_any_length_is_drawn(count: int) -> None:
    """Names are text, not formulas; what has not begun or ended is no failure."""
    picture = plot_history(history(count))._repr_png_()
    assert picture.startswith(b"\x89PNG")


def test_a_history_is_of_jobs() -> None:
    """Their steps, which come along for the CPUs' time, are no jobs."""
    jobs = history(3)
    steps = jobs.assign(JobID=[f"{job}.batch" for job in jobs["JobID"]])
    timeline, _, used = plot_history(pd.concat([jobs, steps])).axes
    assert len(timeline.get_yticklabels()) == 3
    assert sum(bar.get_height() for bar in used.patches) == 3


def test_a_picture_takes_the_pages_background() -> None:
    """It is transparent but for ink that can be read on white and on black."""
    pixels = image.imread(io.BytesIO(plot_queue(queue(("1", "bob", "RUNNING", 4)))._repr_png_()))
    assert pixels[0, 0, 3] == 0
    ink = pixels[pixels[:, :, 3] == 1][:, :3].mean(axis=1)
    assert ((ink > 0.2) & (ink < 0.8)).all()


def test_nothing_is_drawn_as_nothing() -> None:
    """An empty queue; no partitions; one look at a job."""
    empty = pd.DataFrame({"PARTITION": [], "CPUS_A": [], "CPUS_I": [], "CPUS_O": []})
    for plot in (plot_queue(queue()), plot_nodes(empty), plot_samples("Job 1", [(0.0, None, 0)])):
        assert plot._repr_png_().startswith(b"\x89PNG")


def test_what_lacks_columns_is_said(shell: InteractiveShell, commands: Commands) -> None:
    """And text cannot be drawn."""
    commands.answer("squeue", "MARK\x1fJOBID\x1fMARK\nMARK\x1f42\x1fMARK\n")
    for line, words in {"-o %i": "needs the columns USER, STATE, CPUS", "--help": "nothing to draw"}.items():
        error = shell.run_cell(f"%squeue --plot {line}").error_in_exec
        assert isinstance(error, SlurmError)
        assert words in error.message


def test_sstat_is_read() -> None:
    """All steps together; a step of several tasks counts each of them."""
    text = "42.extern|1|00:00:00|0\n42.batch|1|00:00:05|4568K\n42.0|4|00:01:00|1G\n"
    sample = parse_sstat(text, 7.0)
    assert (sample.at, sample.cpu_s, sample.memory_bytes) == (7.0, 245.0, 4568 * 1024 + 4 * (1 << 30))


@pytest.mark.parametrize(
    "line", ["A notice of the site", "42.0|1|soon|1K", "42.0|many|00:01|1K", "a|b|c|d|e"]
)
def test_what_sstat_may_say_besides(line: str) -> None:
    """Is an error in a line, not a sample."""
    with pytest.raises(SlurmError, match="sstat answered with something unexpected"):
        parse_sstat(f"42.batch|1|00:01|1K\n{line}\n", 7.0)


@pytest.mark.parametrize(("every_s", "slept_s"), [(0, 1.0), (-3, 1.0), (2.5, 2.5)])
def test_slurm_has_a_pause_between_two_looks(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, every_s: float, slept_s: float
) -> None:
    """A second at the least, whatever was asked for: each look is a question to every node of the job."""
    slept = list[float]()
    monkeypatch.setattr(
        "slurm_magics.usage.time", SimpleNamespace(sleep=slept.append, monotonic=time.monotonic)
    )
    commands.answer("squeue", "42\x1fRUNNING\x1fc1\x1fNone\x1f1795259154\x1f1795262754\n")
    commands.answer("sstat", "42.batch|1|00:00:05|4568K\n")
    jobs = Jobs(Session(Local(), Settings()))
    job = Job(jobs, "42", Submission(words=(), folder=Path.cwd()), "", Outputs())
    assert job.plot(every_s) is not None
    assert slept == [slept_s]
