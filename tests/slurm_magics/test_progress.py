"""What a wait shows: bars, lines, and what fits into a narrow terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC

import pytest

from hpchub.core.job import JobState, JobStatus, JobTimes
from slurm_magics.card import Card, readable_tail
from slurm_magics.progress import Progress, fraction, line
from slurm_magics.watch import Look

NOW = 1_795_259_154
RUNNING = Look(
    status=JobStatus(state=JobState.RUNNING, native="RUNNING", node="c1"),
    times=JobTimes(native="RUNNING", starts_at=NOW - 60, ends_at=NOW + 180),
)
PENDING = Look(
    status=JobStatus(state=JobState.QUEUED, native="PENDING", reason="Resources"),
    times=JobTimes(native="PENDING", starts_at=NOW + 90_000),
)
ARRAY = Look(status=RUNNING.status, tasks=8, ended=2)
OVER = Look(status=JobStatus(state=JobState.FAILED, native="FAILED", exit_code="7:0"))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("look", "part"), [(RUNNING, 0.25), (PENDING, 0), (ARRAY, 0.25), (OVER, 1)])
def test_how_far_a_job_is(look: Look, part: float) -> None:
    """The used part of its time, or the ended part of an array."""
    assert fraction(look, NOW) == part


def test_a_wide_terminal_has_all_of_it() -> None:
    """Title, bar, state, times."""
    assert line("Job 42", RUNNING, NOW, UTC, 200) == (
        "Job 42 [#####               ] 25% Running on c1 (RUNNING). Time left: 03:00, until 11:08."
    )
    assert "2 of 8 tasks have ended." in line("Job 42", ARRAY, NOW, UTC, 200)
    some = replace(ARRAY, failed=1)
    assert "2 of 8 tasks have ended, 1 of them failed." in line("Job 42", some, NOW, UTC, 200)


@pytest.mark.parametrize("columns", [1, 8, 20, 40])
def test_a_narrow_terminal_is_not_overrun(columns: int) -> None:
    """Not even one of 20 columns."""
    for look in (RUNNING, PENDING, ARRAY, OVER):
        assert len(line("Job 42", look, NOW, UTC, columns)) <= max(columns - 1, 2)


def test_a_terminal_has_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each update overwrites the one before it."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", "60")
    bar = Progress("Job 42", UTC)
    for look in (PENDING, OVER):
        bar.update(look)
    bar.end()
    first, second = terminal.getvalue().removeprefix("\r").split("\r")
    assert len(second.rstrip("\n")) == len(first)
    assert second.endswith("\n")


def test_a_file_has_a_line_for_each_state(capsys: pytest.CaptureFixture[str]) -> None:
    """Not one for each look."""
    bar = Progress("Job 42", UTC)
    for look in (PENDING, PENDING, RUNNING, OVER):
        bar.update(look)
    bar.end()
    lines = capsys.readouterr().out.splitlines()
    assert [text.split(": ")[0] for text in lines] == ["Job 42"] * 3


def test_a_card_tells_why_and_when() -> None:
    """In plain words, the day where it is another one; what a user wrote is text, not HTML."""
    pending = Card(title="Job <1>", look=PENDING)
    assert pending.sentences(NOW, UTC)[1] == "Expected to start at 2026-11-22 12:05, in 25:00:00."
    assert "waiting for resources" in pending.text(NOW, UTC)
    assert "Job &lt;1&gt;" in pending.html(NOW, UTC)
    assert 'aria-valuenow="25%"' in Card(title="Job 1", look=ARRAY).html(NOW, UTC)
    late = Card(title="Job 1", look=OVER, trouble="Slurm did not answer.")
    assert "Not up to date: Slurm did not answer." in late.text(NOW, UTC)


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"", ""),
        (b"one\ntwo\nthree\n", "two\nthree"),
        (b"\x1b[31mred\x1b[0m\x1b]0;title\x07\n", "red"),
        (b"10%\r20%\r\n\xff\x00\n", "20%\n\\xff"),
    ],
)
def test_the_last_lines_are_for_people(content: bytes, shown: str) -> None:
    """Without colours, and of a line that was written again the last state."""
    assert readable_tail(content, 2) == shown
