"""Cells by their places in an answer's bytes mean what the same cells mean as strings."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_magics import values
from slurm_magics.cells import Cells, Texts, cut
from slurm_magics.delimited import UNIT

MARK = "\x1eRANDOM-12ab"
_DURATIONS = [
    "0:00",
    "59:07",
    "100:00",
    "8:00:00",
    "1-02:03:04",
    "00:01.234",
    "UNLIMITED",
    "N/A",
    "",
    "INVALID",
]
_MOMENTS = ["1795259155", "0", "N/A", "2026-11-21T11:05:55", ""]
_NUMBERS = ["0", "7", "0012", "9" * 18, "9" * 19, "-1", "4_2", "", "٣", "42+1", "1.5"]


def column(texts: list[str]) -> Cells:
    """The texts as a column of an answer."""
    rows = ["NAME", *texts]
    answer = "".join(UNIT.join((MARK, row, MARK)) + "\n" for row in rows).encode("utf-8", "surrogateescape")
    columns = cut(answer, MARK)
    assert columns is not None
    return columns["NAME"]


@given(st.lists(st.sampled_from(_DURATIONS), max_size=30))
def test_durations(texts: list[str]) -> None:
    """In milliseconds, however they are written."""
    assert list(column(texts).durations_ms()) == list(Texts(texts).durations_ms())


@given(st.text("0123456789:-.", max_size=12))
def test_anything_like_a_duration(text: str) -> None:
    """Read from bytes it is what it is as a string, or an error for both."""
    outcomes = []
    for one in (column([text]), Texts([text])):
        try:
            outcomes.append(list(one.durations_ms()))
        except ValueError as error:
            outcomes.append([str(error)])
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("9:08", 548), ("59:59", 3599), ("1:00:01", 3601), ("23:59:59", 86399), ("365-00:00:10", 31536010)],
)
def test_durations_of_each_length(text: str, seconds: int) -> None:
    """Each place counts what it says."""
    assert list(column([text]).durations_ms()) == [seconds * 1000]


@given(st.lists(st.sampled_from(_MOMENTS), max_size=30))
def test_moments(texts: list[str]) -> None:
    """In Unix seconds; a zero is none."""
    read = values.moment(ZoneInfo("UTC"))
    assert list(column(texts).moments_s(read)) == list(Texts(texts).moments_s(read))


@given(st.lists(st.sampled_from(_NUMBERS), max_size=30))
def test_whole_numbers(texts: list[str]) -> None:
    """Only what is nothing but digits, and no more than fit."""
    (numbers, plain), (expected, expected_plain) = column(texts).whole_numbers(), Texts(texts).whole_numbers()
    assert list(plain) == list(expected_plain)
    assert list(numbers[plain]) == list(expected[expected_plain])


WORDS = st.text(st.sampled_from("ab\xe9"), max_size=3).map(lambda end: f"{'x' * (7 * len(end))}{end}")


@given(st.lists(WORDS, max_size=30))
def test_words_of_any_length(texts: list[str]) -> None:
    """Equal ones have one code, others have others, also where they differ late."""
    words, codes = column(texts).coded()
    assert [words[code] for code in codes] == texts
    assert len(set(words)) == len(words)
    assert list(column(texts).texts()) == texts


def test_what_nobody_understands_is_an_error() -> None:
    """As for strings: no value is guessed."""
    odd = column(["0:01", "soon", "1"])
    with pytest.raises(ValueError, match="'soon' is no duration"):
        odd.durations_ms()
    with pytest.raises(ValueError, match="does not match format"):
        odd.moments_s(values.moment(ZoneInfo("UTC")))


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "NAME\n",
        f"{MARK}{UNIT}NAME{UNIT}{MARK}",
        f"{MARK}{UNIT}NAME{UNIT}{MARK}\n{MARK}{UNIT}a{UNIT}{MARK}",
        f"{MARK}{UNIT}NAME{UNIT}{MARK}\n{MARK}{UNIT}a\n",
        f"{MARK}{UNIT}NAME{UNIT}{MARK}\n\n",
        f"{MARK}{UNIT}NAME{UNIT}{MARK}\n{MARK[:-1]}x{UNIT}a{UNIT}{MARK}\n",
        f"{MARK}{UNIT}NAME{UNIT}{MARK}\n{MARK}{UNIT}a{UNIT}{MARK}x\n",
        f"{MARK}{UNIT}NAME{UNIT}{MARK}\nBye\n",
    ],
)
def test_anything_irregular_is_left_alone(answer: str) -> None:
    """No row, half a row, a row without its mark, a line that is none of ours."""
    assert cut(answer.encode(), MARK) is None
