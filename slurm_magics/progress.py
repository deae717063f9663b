"""The bar of a wait: on a page, in a terminal, or as lines where the output goes to a file."""

from __future__ import annotations

import shutil
import sys
import time
from datetime import tzinfo
from html import escape

from hpchub.core.job import JobState
from hpchub.schedulers.slurm_states import explain
from slurm_magics.card import TEXT, array_words, bar_html, colour_of, time_words
from slurm_magics.shown import Shown, in_kernel
from slurm_magics.watch import Look

_CELLS = 20


def fraction(look: Look, now: float) -> float:
    """How far a job is, 0 to 1: the ended part of an array, else the used part of its time."""
    if look.status.state.is_final:
        return 1.0
    if look.tasks:
        return look.ended / look.tasks
    start, end = look.times.starts_at, look.times.ends_at
    if look.status.state is not JobState.RUNNING or start is None or end is None or end <= start:
        return 0.0
    return min(1.0, max(0.0, (now - start) / (end - start)))


def sentence(look: Look, now: float, zone: tzinfo) -> str:
    """State, reason and times; of an array how many tasks have ended. In an outage what is the trouble."""
    if look.trouble:
        return _short_sentence(look)
    if look.tasks:
        return f"{array_words(look)} {explain(look.status)}"
    return " ".join((explain(look.status), *time_words(look, now, zone)))


def line(title: str, look: Look, now: float, zone: tzinfo, columns: int) -> str:
    """One line that fits."""
    done = fraction(look, now)
    cells = min(_CELLS, max(0, columns - len(title) - 8))
    bar = f"[{'#' * round(done * cells):<{cells}}]" if cells >= 4 else ""
    text = " ".join(filter(None, (title, bar, f"{done:.0%}", sentence(look, now, zone))))
    return text if len(text) < columns else f"{text[: max(1, columns - 2)]}…"


def _short_sentence(look: Look) -> str:
    """Without what changes each second."""
    return explain(look.status) + (f" Not up to date: {look.trouble.message}" if look.trouble else "")


class Progress:
    """One wait's."""

    def __init__(self, title: str, zone: tzinfo) -> None:
        self._title = title
        self._zone = zone
        self._told = ""
        self._shown: Shown | None = None
        self._is_terminal = sys.stdout.isatty()

    def update(self, look: Look) -> None:
        """Show how far it is."""
        now = time.time()
        if in_kernel():
            html = (
                f'<div style="{TEXT}"><b>{escape(self._title)}</b> &nbsp; '
                f"{escape(sentence(look, now, self._zone))}"
                f"{bar_html(fraction(look, now), colour_of(look.status.state))}</div>"
            )
            text = line(self._title, look, now, self._zone, 200)
            if self._shown is None:
                self._shown = Shown(html, text)
            self._shown.update(html, text)
        elif self._is_terminal:
            text = line(self._title, look, now, self._zone, shutil.get_terminal_size().columns)
            print(f"\r{text:<{len(self._told)}}", end="", flush=True)
            self._told = text
        elif (text := _short_sentence(look)) != self._told:
            print(f"{self._title}: {text}")
            self._told = text

    def end(self) -> None:
        """No more updates: what follows begins on a line of its own."""
        if self._is_terminal and self._told:
            print()
