"""Slurm's words for times, sizes and counts."""

from __future__ import annotations

from collections.abc import Callable
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_magics import values

ABSENT = ["", "N/A", "UNLIMITED", "INVALID", "Partition_Limit", "Unknown", "NOT_SET", "infinite", "(null)"]


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (values.duration_ms, "0:00", 0),
        (values.duration_ms, "59:07", 3_547_000),
        (values.duration_ms, "100:00", 6_000_000),
        (values.duration_ms, "8:00:00", 28_800_000),
        (values.duration_ms, "1-02:03:04", 93_784_000),
        (values.duration_ms, "365-00:00:00", 31_536_000_000),
        (values.duration_ms, "00:01.234", 1_234),
        (values.duration_ms, "1-02:03:04.5", 93_784_500),
        (values.seconds_ms, "90", 90_000),
        (values.minutes_ms, "60", 3_600_000),
        (values.count, "128", 128),
        (values.count, "2K", 2048),
        (values.count, "16+", 16),
        (values.count, "-5", -5),
        (values.number, "0.99998", 0.99998),
        (values.size, "0", 0),
        (values.size, "1234K", 1_263_616),
        (values.size, "1.50G", 1_610_612_736),
        (values.megabytes, "?", None),
        (values.size, "16?", None),
        (values.megabytes, "16384", 17_179_869_184),
        (values.megabytes, "1G", 1_073_741_824),
        (values.moment(ZoneInfo("UTC")), "1795259155", 1_795_259_155),
        (values.moment(ZoneInfo("UTC")), "2026-11-21T11:05:55", 1_795_259_155),
        (values.moment(ZoneInfo("Europe/Berlin")), "2026-07-01T12:00:00", 1_782_900_000),
        (values.moment(ZoneInfo("UTC")), "0", None),
    ],
)
def test_each_form_that_slurm_writes(read: Callable[[str], object], text: str, value: object) -> None:
    """Durations in milliseconds, sizes in bytes, moments in Unix seconds."""
    assert read(text) == value


@pytest.mark.parametrize("text", ABSENT)
def test_words_for_no_value(text: str) -> None:
    """None, whatever the kind."""
    kinds = (
        values.duration_ms,
        values.seconds_ms,
        values.count,
        values.number,
        values.size,
        values.megabytes,
    )
    assert {read(text) for read in (*kinds, values.moment(ZoneInfo("UTC")))} == {None}


@pytest.mark.parametrize("read", [values.duration_ms, values.count, values.size, values.megabytes])
@pytest.mark.parametrize("text", ["x", "1:2", "4Gc", "4Gn", "1 2", "١٢", "1:00:0", "12:34x", "--1"])
def test_anything_else_is_an_error(read: Callable[[str], object], text: str) -> None:
    """A value that nobody understands is never guessed."""
    with pytest.raises(ValueError, match="is no"):
        read(text)


@given(st.integers(0, 10**9))
def test_durations_come_back(seconds: int) -> None:
    """Any number of seconds, written as squeue writes it."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    text = f"{minutes}:{rest:02d}"
    if days:
        text = f"{days}-{hours:02d}:{minutes:02d}:{rest:02d}"
    elif hours:
        text = f"{hours}:{minutes:02d}:{rest:02d}"
    assert values.duration_ms(text) == seconds * 1000
