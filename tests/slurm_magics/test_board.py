"""Many cards at once; the page and Slurm's commands are stand-ins."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from slurm_magics.job import Job
from slurm_magics.jobs import Jobs
from slurm_magics.machine import Local
from slurm_magics.session import Session
from slurm_magics.settings import Settings
from slurm_magics.submission import Outputs, Submission
from support.slurm_commands import Commands

ROW = "{id}\x1f{state}\x1fc1\x1fNone\x1f1795259154\x1f4102444800\n"
MANY = range(100, 150)


class Page:
    """What is shown, in place of a notebook's page."""

    shown: list[Page]

    def __init__(self, html: str, text: str) -> None:
        self.texts = [text]
        self.buttons: Mapping[str, Callable[[], None]] = {}
        self.afterwards: Callable[[], None] = lambda: None
        self.shown.append(self)

    def update(self, html: str, text: str) -> None:
        self.texts.append(text)

    def add_buttons(self, actions: Mapping[str, Callable[[], None]], afterwards: Callable[[], None]) -> None:
        self.buttons, self.afterwards = actions, afterwards

    def end(self) -> None:
        self.buttons = {}


@pytest.fixture
def jobs(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Fifty running jobs."""
    Page.shown = []
    monkeypatch.setattr("slurm_magics.board.Shown", Page)
    commands.answer("scancel")
    commands.answer("squeue", "".join(ROW.format(id=job, state="RUNNING") for job in MANY))
    jobs = Jobs(Session(Local(), Settings()))
    submission = Submission(words=(), folder=Path.cwd())
    return [Job(jobs, str(job), submission, "", Outputs()) for job in MANY]


def until(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_fifty_cards_ask_once(jobs: list[Job], commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round of all cards costs one query; each hears of its own job's end, and then nobody asks."""
    monkeypatch.setattr("slurm_magics.board._PACE", ((float("inf"), 0.1),))
    monkeypatch.setattr("slurm_magics.board._FRESH_S", 0.05)
    board = jobs[0]._jobs.board
    for job in jobs:
        board.show(job)
    before = len(commands.calls("squeue"))
    rounds = len(Page.shown[0].texts)
    until(lambda: all(len(page.texts) >= rounds + 2 for page in Page.shown))
    assert len(commands.calls("squeue")) - before <= len(Page.shown[0].texts) - rounds + 1
    assert all(
        f"Job {job}: Running on c1" in page.texts[-1] for job, page in zip(MANY, Page.shown, strict=True)
    )
    commands.answer("squeue", "".join(ROW.format(id=job, state="COMPLETED") for job in MANY))
    commands.answer("sacct", "".join(f"{job}\x1fCOMPLETED\x1fc1\x1f0:0\n" for job in MANY))
    until(lambda: board._thread is None)
    assert all("Ended (COMPLETED)" in page.texts[-1] and not page.buttons for page in Page.shown)


def test_a_button_ends_the_job_and_looks_at_once(jobs: list[Job], commands: Commands) -> None:
    """It does not wait for the next round."""
    board = jobs[0]._jobs.board
    board.show(jobs[7])
    (page,) = Page.shown
    commands.answer("squeue", ROW.format(id=107, state="CANCELLED"))
    commands.answer("sacct", "107\x1fCANCELLED by 1001\x1fc1\x1f0:15\n")
    page.buttons["Cancel"]()
    page.afterwards()
    until(lambda: "Cancelled" in page.texts[-1])
    assert [call["argv"] for call in commands.calls("scancel")] == [["scancel", "107"]]
    until(lambda: board._thread is None)
