"""hpchub.core.units"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpchub.core.units import (
    parse_count,
    parse_memory,
    parse_time,
    render_long_time,
    render_memory,
    render_time,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:01:00", 60), ("1:30:00", 5400), ("100:00:00", 360000), ("2-00:00:01", 172801), ("00:00:00", 0)],
)
def test_time_is_hours_minutes_seconds(text: str, seconds: int) -> None:
    """A time is HH:MM:SS, with days before a dash if there are any."""
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "90", "1:30", "00:60:00", "00:00:60", "-1:00:00", "\u0661:00:00", "01:00:00\n", " 01:00:00", "1e3"],
)
def test_other_times_are_refused(text: str) -> None:
    """Anything else is refused: Slurm itself would read 90 as minutes and 1:30 as minutes:seconds."""
    with pytest.raises(ValueError, match="HH:MM:SS"):
        parse_time(text)


@given(st.integers(0, 10**7))
def test_time_round_trips(seconds: int) -> None:
    """What is rendered reads back as the same time."""
    assert parse_time(render_time(seconds)) == seconds
    assert parse_time(render_long_time(seconds)) == seconds


def test_a_long_time_has_days() -> None:
    """From a day on."""
    assert [render_long_time(seconds) for seconds in (86399, 86400)] == ["23:59:59", "1-00:00:00"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1K", 1024),
        ("500M", 500 * 1024**2),
        ("1.5G", 3 * 1024**3 // 2),
        ("2GiB", 2 * 1024**3),
        ("2 gb", 2 * 1024**3),
    ],
)
def test_memory_counts_in_1024(text: str, size: int) -> None:
    """Sizes are powers of 1024, as Slurm's are."""
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    "text", ["", "4", "4P", "-4G", "1e9K", "4G\n", "٤G", "4,5G", "1.G", ".5G", "9999999999G"]
)
def test_other_sizes_are_refused(text: str) -> None:
    """A size without a unit, a sign or another script's digits is refused."""
    with pytest.raises(ValueError, match="not a size"):
        parse_memory(text)


@given(st.integers(1, 2**40))
def test_memory_round_trips(kibibytes: int) -> None:
    """Every whole number of K reads back as itself."""
    size = kibibytes * 1024
    rendered = render_memory(size)
    if len(rendered) <= 10:
        assert parse_memory(rendered) == size


@given(st.integers(0, 2**50))
def test_rendered_memory_is_never_less(size: int) -> None:
    """Rounding goes up: a job never gets less than it asked for."""
    number, unit = render_memory(size)[:-1], render_memory(size)[-1]
    assert int(number) * {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}[unit] >= size


@given(st.text())
def test_a_count_is_ascii_digits(text: str) -> None:
    """A count is read only from ASCII digits; everything else is a ValueError."""
    try:
        value = parse_count(text)
    except ValueError:
        return
    assert text.isascii()
    assert text.isdigit()
    assert value == int(text)
