"""The live cards of one kernel: a thread asks for all of them at once and updates what has changed."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hpchub.core.job import JobState
from slurm_magics.card import Card, readable_tail
from slurm_magics.errors import SlurmError
from slurm_magics.job_ids import parse_job_id
from slurm_magics.pace import rest_s, step_s
from slurm_magics.shown import Shown
from slurm_magics.watch import Look

if TYPE_CHECKING:
    from slurm_magics.job import Job
    from slurm_magics.jobs import Jobs

_log = logging.getLogger(__name__)

# Seconds since the card was shown, and how often it then looks.
_PACE = ((60.0, 2.0), (600.0, 5.0), (3600.0, 15.0), (float("inf"), 60.0))
# Less than the shortest pause, so that each round asks.
_FRESH_S = 1.5
# How long a cell that shows a card may wait for Slurm. What comes later is put on the page by the thread.
_PATIENCE_S = 1.5
_LINES = 5
_MORE_LINES = 30
_TAIL_BYTES = 8192


@dataclass(slots=True)
class _Live:
    """One card on a page."""

    job: Job
    shown: Shown
    began: float = field(default_factory=time.monotonic)
    looked: float = float("-inf")
    lines: int = _LINES

    def pause_s(self, now: float) -> float:
        """How long it may go without a look."""
        return step_s(_PACE, now - self.began)


class Board:
    """All live cards of one kernel and cluster. The thread ends with the last job's end."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._live: list[_Live] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._failures = 0
        self._rests_until = float("-inf")

    def card(self, job: Job, max_age_s: float, lines: int = _LINES) -> Card:
        """The job's card now. Where Slurm does not answer, it says so."""
        look = self._jobs.look(job, max_age_s)
        trouble = look.trouble.message if look.trouble else ""
        try:
            return Card(title=str(job), look=look, lines=self._lines(job, look, lines), trouble=trouble)
        except SlurmError as error:
            return Card(title=str(job), look=look, trouble=trouble or error.message)

    def show(self, job: Job) -> None:
        """Put the job's card on the page, and keep it up to date until the job ends."""
        machine = self._jobs.session.machine
        card = self._first_card(job)
        shown = Shown(card.html(time.time(), machine.zone), card.text(time.time(), machine.zone))
        if card.state.state.is_final:
            return
        live = _Live(job, shown)
        shown.add_buttons(
            {"Cancel": job.cancel, "Refresh": lambda: None, "More lines": lambda: _more(live)}, self._now
        )
        with self._lock:
            self._live.append(live)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="slurm-magics-cards", daemon=True)
                self._thread.start()

    def _first_card(self, job: Job) -> Card:
        """What can be said within a moment: the cell does not wait for a Slurm that is silent."""
        found: list[Card] = []
        asking = threading.Thread(target=lambda: found.append(self.card(job, _FRESH_S)), daemon=True)
        asking.start()
        asking.join(_PATIENCE_S)
        if found:
            return found[0]
        return Card(title=str(job), look=self._jobs.last_look(job), trouble="Slurm has not answered yet.")

    def _now(self) -> None:
        """Look at once: a button was pressed."""
        self._jobs.changed()
        with self._lock:
            self._rests_until = float("-inf")
            for live in self._live:
                live.looked = float("-inf")
        self._wake.set()

    def _run(self) -> None:
        while True:
            with self._lock:
                live = list(self._live)
                if not live:
                    self._thread = None
                    return
            now = time.monotonic()
            if now >= self._rests_until and any(now - one.looked >= one.pause_s(now) for one in live):
                is_well = self._update_all(live)
                with self._lock:
                    self._failures = 0 if is_well else self._failures + 1
                    self._rests_until = time.monotonic() + rest_s(self._failures)
            with self._lock:
                pause_s = min((one.pause_s(now) for one in self._live), default=0.0)
                pause_s = max(pause_s, self._rests_until - time.monotonic())
            self._wake.wait(pause_s)
            self._wake.clear()

    def _update_all(self, live: list[_Live]) -> bool:
        """Whether all could be told. The first look at each cluster asks about all its jobs."""
        asked: set[str] = set()
        is_well = True
        for one in live:
            is_well &= self._update(one, float("inf") if one.job.cluster in asked else _FRESH_S)
            asked.add(one.job.cluster)
        return is_well

    def _update(self, live: _Live, max_age_s: float) -> bool:
        live.looked = time.monotonic()
        zone = self._jobs.session.machine.zone
        card = self.card(live.job, max_age_s, live.lines)
        live.shown.update(card.html(time.time(), zone), card.text(time.time(), zone))
        if card.state.state.is_final:
            live.shown.end()
            with self._lock:
                self._live.remove(live)
        return not card.trouble

    def _lines(self, job: Job, look: Look, count: int) -> str:
        """The end of the output, where it is known which file it is and the job has begun."""
        path = job.outputs.path(parse_job_id(job.id).task)
        if not path or look.status.state is JobState.QUEUED:
            return ""
        machine = self._jobs.session.machine
        found = machine.read(machine.path(path), -_TAIL_BYTES)
        return readable_tail(found[0], count) if found else ""


def _more(live: _Live) -> None:
    live.lines = _MORE_LINES if live.lines == _LINES else _LINES
