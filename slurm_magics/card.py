"""What a job's card says, as HTML and as text. No input or output."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, tzinfo
from html import escape

from hpchub.core.job import JobState, JobStatus
from hpchub.core.units import render_time
from hpchub.schedulers.slurm_states import explain
from slurm_magics.done import as_text
from slurm_magics.watch import Look

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]")
# Of middle lightness: they can be told apart on white and on black.
_COLOURS = {
    JobState.QUEUED: "#b7791f",
    JobState.RUNNING: "#2f80c2",
    JobState.FINISHED: "#2f9e5b",
    JobState.FAILED: "#d64545",
    JobState.CANCELLED: "#808080",
    JobState.UNKNOWN: "#808080",
}
# JupyterLab's own colours where there are some; elsewhere the page's, thinned.
TEXT = (
    "max-width: 46em; color: var(--jp-ui-font-color1, inherit); "
    "font: 13px/1.5 var(--jp-ui-font-family, sans-serif)"
)
_BOX = (
    "border: 1px solid var(--jp-border-color1, rgba(128, 128, 128, .5)); border-radius: 4px; "
    f"padding: 8px 12px; {TEXT}"
)
_OUTPUT = (
    "margin: 6px 0 0; padding: 6px 8px; background: rgba(128, 128, 128, .12); color: inherit; "
    "border-radius: 3px; font: 12px/1.4 var(--jp-code-font-family, monospace); white-space: pre-wrap; "
    "overflow-wrap: anywhere"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One job at one moment. `lines` are the last ones of its output; `trouble` is why it is out of date."""

    title: str
    look: Look
    lines: str = ""
    trouble: str = ""

    @property
    def state(self) -> JobStatus:
        """State, reason, node and exit code."""
        return self.look.status

    @property
    def fraction(self) -> float | None:
        """How much of an array has ended, 0 to 1; None where it is none."""
        return self.look.ended / self.look.tasks if self.look.tasks else None

    def sentences(self, now: float, zone: tzinfo) -> list[str]:
        """What is to be said in words: why, when, how long."""
        told = [explain(self.state)]
        if self.look.tasks:
            told.append(array_words(self.look))
        else:
            told += time_words(self.look, now, zone)
        return told + ([f"Not up to date: {self.trouble}"] if self.trouble else [])

    def html(self, now: float, zone: tzinfo) -> str:
        """As a page shows it, in a light and in a dark theme."""
        colour = _COLOURS[self.state.state]
        first, *others = map(escape, self.sentences(now, zone))
        mark = f'<span style="color: {colour}" aria-hidden="true">●</span>'
        parts = [f"<div>{mark} <b>{escape(self.title)}</b> &nbsp; {first}</div>"]
        parts += [f'<div style="opacity: .85">{other}</div>' for other in others]
        if self.fraction is not None:
            parts.append(bar_html(self.fraction, colour))
        if self.lines:
            parts.append(f'<pre style="{_OUTPUT}">{escape(self.lines)}</pre>')
        return f'<div class="slurm-magics-card" style="{_BOX}">{"".join(parts)}</div>'

    def text(self, now: float, zone: tzinfo) -> str:
        """As a terminal shows it."""
        first, *others = self.sentences(now, zone)
        lines = [f"{self.title}: {first}", *(f"  {other}" for other in others)]
        return "\n".join((*lines, *(f"  | {line}" for line in self.lines.splitlines())))


def bar_html(fraction: float, colour: str) -> str:
    """A bar that is filled so far."""
    shown = f"width: {fraction:.1%}; height: 6px; background: {colour}; border-radius: 3px"
    return (
        '<div style="margin: 6px 0 2px; background: rgba(128, 128, 128, .25); border-radius: 3px">'
        f'<div style="{shown}" role="progressbar" aria-valuenow="{fraction:.0%}"></div></div>'
    )


def colour_of(state: JobState) -> str:
    """The state's colour, for bars."""
    return _COLOURS[state]


def array_words(look: Look) -> str:
    """How far an array is, and whether all went well: its own state is that of the task that says most."""
    failed = f", {look.failed} of them failed" if look.failed else ""
    return f"{look.ended} of {look.tasks} tasks have ended{failed}."


def time_words(look: Look, now: float, zone: tzinfo) -> list[str]:
    """The expected start, or the time that is left."""
    starts_at, ends_at = look.times.starts_at, look.times.ends_at
    if look.status.state is JobState.QUEUED:
        if starts_at is None or starts_at <= now:
            return ["Slurm does not expect a start yet."]
        return [f"Expected to start at {_clock(starts_at, now, zone)}, in {_length(starts_at - now)}."]
    if look.status.state is JobState.RUNNING and ends_at is not None:
        if ends_at <= now:
            return ["Its time is up."]
        return [f"Time left: {_length(ends_at - now)}, until {_clock(ends_at, now, zone)}."]
    return []


def readable_tail(content: bytes, count: int) -> str:
    """The last lines of an output as a person should see them: no colours, of a rewritten line the last."""
    text = _ESCAPES.sub("", as_text(content)).replace("\r\n", "\n")
    lines = [line.rstrip().rpartition("\r")[2] for line in text.split("\n")]
    shown = "\n".join(lines).rstrip("\n").split("\n")[-count:]
    return "\n".join("".join(char for char in line if char.isprintable() or char == "\t") for line in shown)


def _clock(moment: int, now: float, zone: tzinfo) -> str:
    then, today = (datetime.fromtimestamp(one, zone) for one in (moment, now))
    return f"{then:%H:%M}" if then.date() == today.date() else f"{then:%Y-%m-%d %H:%M}"


def _length(seconds: float) -> str:
    return render_time(int(seconds)).removeprefix("00:")
