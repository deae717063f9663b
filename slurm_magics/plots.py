"""Pictures of tables: who uses what, when jobs ran, how long they waited, what they used. Imports matplotlib.

The background is the page's, and every colour of middle lightness: they can be read in light and in dark.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hpchub.core.job import JobState
from hpchub.schedulers.slurm_states import state_of
from slurm_magics.card import colour_of
from slurm_magics.errors import SlurmError
from slurm_magics.job_ids import expand_job_id

try:
    from matplotlib import dates as _dates
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
except ImportError as error:
    raise SlurmError(
        "--plot needs matplotlib.", "Install it beside slurm_magics: pip install matplotlib"
    ) from error

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

dates: Any = _dates  # it has no types
_INK = "#808080"
_BLUE, _AMBER, _GREEN, _RED = "#2f80c2", "#c98a1b", "#2f9e5b", "#d64545"
_MOST_BARS = 15
_MOST_JOBS = 25
_WIDTH = 8.0
_WAITS = ((1, "1 s"), (10, "10 s"), (60, "1 min"), (600, "10 min"), (3600, "1 h"), (36_000, "10 h"),
          (86_400, "1 d"), (864_000, "10 d"))  # fmt: skip
_SPANS = ((7200, "h"), (120, "min"), (1, "s"))
_UNITS = ((1 << 40, "TB"), (1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB"))
_ENDS = (("ended well", JobState.FINISHED), ("failed", JobState.FAILED), ("cancelled", JobState.CANCELLED),
         ("running", JobState.RUNNING))  # fmt: skip
# What `%sacct --plot` asks for.
SACCT_FIELDS = "JobID,JobName,State,AllocCPUS,ReqCPUS,Submit,Start,End,Elapsed,TotalCPU,CPUTimeRAW"


class Plot(Figure):
    """A figure that notebooks show by themselves, whatever their backend."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=110, transparent=True, bbox_inches="tight")
        return file.getvalue()


def plot_queue(frame: pd.DataFrame) -> Plot:
    """CPUs of each user, those that run and those that wait.

    Raises:
        SlurmError: The columns that it needs are not there.
    """
    _need("squeue", frame, ("JOBID", "USER", "STATE", "CPUS"))
    plot, (axes,) = _figure(1, min(_MOST_BARS, max(1, frame["USER"].nunique())))
    # A row of an array's waiting tasks has the CPUs of one.
    tasks = [len(expand_job_id(job)) for job in frame["JOBID"]]
    cpus = frame["CPUS"].fillna(0).astype("int64") * tasks
    waits = frame["STATE"].astype(str) == "PENDING"
    both = cpus.groupby([frame["USER"].astype(str), waits]).sum().unstack(fill_value=0)
    both = both.reindex(columns=[False, True], fill_value=0)
    both = both.loc[both.sum(axis=1).sort_values(ascending=False).index]
    rows = _with_others(both)
    _bars(axes, list(rows.index), [("run", _BLUE, list(rows[False])), ("wait", _AMBER, list(rows[True]))])
    axes.set_xlabel("CPUs of jobs that run and that wait")
    return _empty(axes, plot) if frame.empty else plot


def plot_nodes(frame: pd.DataFrame) -> Plot:
    """CPUs of each partition: in use, free, and neither (down, drained, being started).

    Raises:
        SlurmError: The columns that it needs are not there.
    """
    _need("sinfo", frame, ("PARTITION", "CPUS_A", "CPUS_I", "CPUS_O"))
    plot, (axes,) = _figure(1, max(1, frame["PARTITION"].nunique()))
    counts = frame.groupby(frame["PARTITION"].astype(str), sort=False)[["CPUS_A", "CPUS_I", "CPUS_O"]].sum()
    rows = counts.astype("int64")
    series = [("in use", _BLUE, "CPUS_A"), ("free", _GREEN, "CPUS_I"), ("not available", _RED, "CPUS_O")]
    _bars(axes, list(rows.index), [(name, colour, list(rows[column])) for name, colour, column in series])
    axes.set_xlabel("CPUs (a node may be in several partitions)")
    return _empty(axes, plot) if frame.empty else plot


def plot_history(frame: pd.DataFrame) -> Plot:
    """When the newest jobs waited and ran; waits against sizes; and how much of their CPUs' time jobs used.

    Raises:
        SlurmError: The columns that it needs are not there.
    """
    import pandas as pd

    _need("sacct", frame, tuple(SACCT_FIELDS.split(",")))
    frame = frame[~frame["JobID"].astype(str).str.contains(".", regex=False)]
    jobs = frame.sort_values("Submit").tail(_MOST_JOBS)
    plot, (line, waits, used) = _figure(3, len(jobs))
    if frame.empty:
        return _empty(line, plot)
    now = pd.Timestamp.now(tz=frame["Submit"].dt.tz)
    _timeline(line, jobs, now)
    begun = frame[frame["Start"].notna()]
    seconds = (begun["Start"] - begun["Submit"]).dt.total_seconds().clip(lower=1)
    colours = [_colour(state) for state in begun["State"]]
    waits.scatter(begun["ReqCPUS"].astype("float64"), seconds, c=colours, s=18, alpha=0.8, linewidths=0)
    waits.set(xlabel="CPUs asked for", ylabel="wait")
    waits.set_xscale("log", base=2)
    waits.set_yscale("log")
    waits.set_yticks([size for size, _ in _WAITS], [name for _, name in _WAITS], minor=False)
    waits.yaxis.set_minor_locator(NullLocator())
    waits.set_ylim(0.7, 2 * max(10.0, seconds.max() if len(seconds) else 0.0))
    waits.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ended = frame[frame["End"].notna() & (frame["CPUTimeRAW"].dt.total_seconds() > 0)]
    share = 100 * ended["TotalCPU"].dt.total_seconds() / ended["CPUTimeRAW"].dt.total_seconds()
    used.hist(share.clip(0, 100), bins=range(0, 101, 10), color=_BLUE, rwidth=0.9)
    used.set(xlim=(0, 100), xlabel="% of the CPUs' time used", ylabel="jobs")
    used.yaxis.set_major_locator(MaxNLocator(integer=True))
    return plot


def plot_samples(title: str, samples: Sequence[tuple[float, float | None, int]]) -> Plot:
    """CPUs in use and memory of a running job over the time.

    Args:
        title: Of the plot.
        samples: Seconds since the first one, CPUs in use (None: not known yet), bytes of memory.
    """
    plot, (cpus, memory) = _figure(2, 0)
    span, span_name = next((size, name) for size, name in _SPANS if samples[-1][0] >= size or size == 1)
    most = max(size for _, _, size in samples)
    unit, unit_name = next((size, name) for size, name in _UNITS if most >= size or size == 1024)
    known = [(at / span, used) for at, used, _ in samples if used is not None]
    cpus.plot([at for at, _ in known], [used for _, used in known], color=_BLUE, marker="o", markersize=3)
    cpus.set(ylim=(0, max([1, *(used for _, used in known)]) * 1.1), ylabel="CPUs in use", title=title)
    sizes = [size / unit for _, _, size in samples]
    memory.plot([at / span for at, _, _ in samples], sizes, color=_GREEN, marker="o", markersize=3)
    memory.set(ylim=(0, max([0.1, *sizes]) * 1.1), ylabel=f"memory, {unit_name}")
    for axes in (cpus, memory):
        axes.set_xlabel(f"since the first look, {span_name}")
    return plot


# How each table is drawn, and the options that choose the columns for it.
PLOTS: dict[str, tuple[Callable[[pd.DataFrame], Plot], tuple[str, ...]]] = {
    "squeue": (plot_queue, ()),
    "sinfo": (plot_nodes, ("--format=%P %C",)),
    # With the steps: slurmdbd has the CPUs' time of these, and with --allocations sacct adds none up.
    "sacct": (plot_history, (f"--format={SACCT_FIELDS}",)),
}


def _figure(parts: int, rows: int) -> tuple[Plot, list[Axes]]:
    """A figure of one, two or three parts, of which the first has that many rows."""
    height = 1.0 + 0.28 * rows
    plot: Any
    if parts == 3:
        plot = Plot(figsize=(_WIDTH, max(2.0, height) + 2.8), layout="constrained")
        grid = plot.add_gridspec(2, 2, height_ratios=[max(2.0, height), 2.8])
        axes = [plot.add_subplot(grid[0, :]), plot.add_subplot(grid[1, 0]), plot.add_subplot(grid[1, 1])]
    else:
        plot = Plot(figsize=(_WIDTH, 2.8 if parts == 2 else max(1.8, height)), layout="constrained")
        axes = [plot.add_subplot(1, parts, place + 1) for place in range(parts)]
    plot.patch.set_alpha(0)
    for one in axes:
        one.patch.set_alpha(0)
        one.tick_params(colors=_INK, which="both")
        one.spines[["top", "right"]].set_visible(False)
        one.spines[["bottom", "left"]].set_color(_INK)
        for text in (one.xaxis.label, one.yaxis.label, one.title):
            text.set_color(_INK)
        one.grid(axis="x", color=_INK, alpha=0.25, linewidth=0.6)
        one.set_axisbelow(True)
    return plot, axes


def _bars(axes: Axes, names: list[str], series: list[tuple[str, str, list[int]]]) -> None:
    left = [0] * len(names)
    for _, colour, values in series:
        axes.barh(names, values, left=left, color=colour, height=0.7)
        left = [sum(pair) for pair in zip(left, values, strict=True)]
    spare = max(0.0, 1 - len(names) / 2)  # a single bar is no thicker than one of two
    axes.set_ylim(len(names) - 0.5 + spare, -0.5 - spare)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _names_are_text(axes)
    _legend(axes, [Patch(color=colour, label=label) for label, colour, _ in series])


def _legend(axes: Axes, patches: list[Patch]) -> None:
    axes.legend(
        handles=patches, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(patches), frameon=False,
        labelcolor=_INK, fontsize=9,
    )  # fmt: skip


def _timeline(axes: Axes, jobs: pd.DataFrame, now: pd.Timestamp) -> None:
    start, end = jobs["Start"].fillna(now), jobs["End"].fillna(now)
    submit, start, end = (
        dates.date2num(list(column.dt.tz_convert("UTC").dt.tz_localize(None)))
        for column in (jobs["Submit"], start, end)
    )
    rows = [f"{_plain(name)}  {job}" for job, name in zip(jobs["JobID"], jobs["JobName"], strict=True)]
    places = range(len(rows))
    axes.barh(places, start - submit, left=submit, height=0.25, color=_AMBER)
    colours = [_colour(state) for state in jobs["State"]]
    least = 0.006 * max(1e-6, end.max() - submit.min())  # a job of a second is seen, too
    lengths = (end - start).clip(least) * jobs["Start"].notna().to_numpy()
    axes.barh(places, lengths, left=start, height=0.7, color=colours)
    axes.set_yticks(places, rows)
    _names_are_text(axes)
    locator = dates.AutoDateLocator(tz=jobs["Submit"].dt.tz)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=jobs["Submit"].dt.tz))
    axes.xaxis.get_offset_text().set_color(_INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    patches = [Patch(color=colour_of(state), label=name) for name, state in _ENDS]
    _legend(axes, [Patch(color=_AMBER, label="waited"), *patches])


def _names_are_text(axes: Axes) -> None:
    """Else a name with two dollar signs is a formula, and most are none."""
    for label in axes.get_yticklabels():
        label.set_parse_math(False)


def _plain(name: str) -> str:
    """A job's name as a label: short and on one line."""
    return "".join(char if char.isprintable() else " " for char in name[:24])


def _with_others(rows: pd.DataFrame) -> pd.DataFrame:
    """The first ones, and the sum of the rest."""
    import pandas as pd

    if len(rows) <= _MOST_BARS:
        return rows
    rest = rows.iloc[_MOST_BARS - 1 :]
    others = rest.sum().to_frame(f"{len(rest)} others").T
    return pd.concat([rows.iloc[: _MOST_BARS - 1], others])


def _empty(axes: Axes, plot: Plot) -> Plot:
    axes.text(0.5, 0.5, "nothing to show", color=_INK, ha="center", va="center", transform=axes.transAxes)
    for other in plot.axes:
        other.set_axis_off()
    return plot


def _need(tool: str, frame: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in frame]
    if missing:
        raise SlurmError(
            f"%{tool} --plot needs the columns {', '.join(missing)}.",
            "Leave out options that choose columns.",
        )


def _colour(state: object) -> str:
    return colour_of(state_of(str(state)))
