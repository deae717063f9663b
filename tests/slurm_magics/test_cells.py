"""Cells by their places in an answer's bytes mean what the same cells mean as strings."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_magics import values
from slurm_magics.cells import DURATION, WHOLE, Cells, Spelling, Texts, cut
from slurm_magics.delimited import UNIT
from slurm_magics.frames import durations_ms, moments_s
from slurm_magics.gathered import Digits

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
_NUMBERS = ["0", "7", "0012", "9" * 8, "9" * 12, "9" * 13, "-1", "4_2", "", "٣", "42+1", "1.5", ":", "/"]
_NOTHING = -(2**63)


def column(texts: list[str]) -> Cells:
    """The texts as a column of an answer."""
    answer = "".join("\n" + UNIT.join((MARK, text, MARK)) for text in texts)
    found = cut(f"{answer}\n".encode("utf-8", "surrogateescape"), MARK, 1)
    assert found is not None
    (cells,), end = found
    assert end == len(answer.encode("utf-8", "surrogateescape"))
    return cells


def gathered(texts: list[str], spelling: Spelling, ways: int = 2) -> Digits:
    """The same texts as cells and as strings, in two pieces."""
    found = Digits(spelling)
    for one in (column(texts), Texts(texts))[:ways]:
        found.add(one)
    return found


@given(st.lists(st.sampled_from(_DURATIONS), min_size=1, max_size=30))
def test_durations(texts: list[str]) -> None:
    """In milliseconds, however they are written; and they can be written again."""
    found = gathered(texts, DURATION)
    expected = [_NOTHING if (one := values.duration_ms(text)) is None else one for text in texts]
    assert list(found.values(durations_ms, values.duration_ms)) == expected * 2
    assert list(found.texts()) == texts * 2


@given(st.text("0123456789:-.", max_size=18))
def test_anything_like_a_duration(text: str) -> None:
    """Read from its digits it is what it is as a string, or an error for both, and is still known."""
    found = gathered([text], DURATION, ways=1)
    assert list(found.texts()) == [text]
    try:
        expected = values.duration_ms(text)
    except ValueError as error:
        with pytest.raises(ValueError) as raised:
            found.values(durations_ms, values.duration_ms)
        assert str(raised.value) == str(error)
    else:
        assert list(found.values(durations_ms, values.duration_ms)) == [
            _NOTHING if expected is None else expected
        ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("9:08", 548), ("59:59", 3599), ("1:00:01", 3601), ("23:59:59", 86399), ("365-00:00:10", 31536010)],
)
def test_durations_of_each_length(text: str, seconds: int) -> None:
    """Each place counts what it says."""
    found = gathered([text], DURATION)
    assert list(found.values(durations_ms, values.duration_ms)) == [seconds * 1000] * 2
    assert column([text]).numbers(DURATION).fits.all()


@given(st.lists(st.sampled_from(_MOMENTS), min_size=1, max_size=30))
def test_moments(texts: list[str]) -> None:
    """In Unix seconds; a zero is none."""
    read = values.moment(ZoneInfo("UTC"))
    expected = [_NOTHING if (one := read(text)) is None else one for text in texts]
    assert list(gathered(texts, WHOLE).values(moments_s, read)) == expected * 2


@given(st.lists(st.sampled_from(_NUMBERS) | st.text("0123456789:/", max_size=18), min_size=1, max_size=30))
def test_whole_numbers(texts: list[str]) -> None:
    """Only what is nothing but digits, and no more than fit; the rest is kept as it is."""
    plain = [text.isascii() and text.isdecimal() and len(text) <= 12 for text in texts]
    for one in (column(texts), Texts(texts)):
        digits, lengths, fits = one.numbers(WHOLE)
        assert list(fits) == plain
        assert list(digits[fits]) == [
            int(text) for text in texts if text.isdecimal() and len(text) <= 12 and text.isascii()
        ]
        assert list(lengths[fits]) == [len(text) for text, fits in zip(texts, plain, strict=True) if fits]
    assert list(gathered(texts, WHOLE).texts()) == texts * 2


WORDS = st.text(st.sampled_from("ab\xe9"), max_size=3).map(lambda end: f"{'x' * (7 * len(end))}{end}")


@given(st.lists(WORDS, min_size=1, max_size=30))
def test_words_of_any_length(texts: list[str]) -> None:
    """Equal ones have one code, others have others, also where they differ late."""
    words, codes = column(texts).coded()
    assert [words[code] for code in codes] == texts
    assert len(set(words)) == len(words)
    assert list(column(texts).texts()) == texts


def test_what_nobody_understands_is_an_error() -> None:
    """As for strings: no value is guessed."""
    odd = ["0:01", "soon", "1"]
    with pytest.raises(ValueError, match="'soon' is no duration"):
        gathered(odd, DURATION).values(durations_ms, values.duration_ms)
    with pytest.raises(ValueError, match="does not match format"):
        gathered(odd, WHOLE).values(moments_s, values.moment(ZoneInfo("UTC")))


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "\n",
        "NAME\n",
        "\nNAME\n",
        f"\n{MARK}{UNIT}a{UNIT}{MARK}",
        f"{MARK}{UNIT}a{UNIT}{MARK}\n",
        f"\n{MARK}{UNIT}a\n",
        f"\n{MARK}{UNIT}a{UNIT}{MARK}\n\n",
        f"\n{MARK[:-1]}x{UNIT}a{UNIT}{MARK}\n",
        f"\n{MARK}{UNIT}a{UNIT}{MARK}x\n",
        f"\n{MARK}{UNIT}a{UNIT}{MARK}\nBye\n",
        f"\n{MARK}{UNIT}a{UNIT}b{UNIT}{MARK}\n",
    ],
)
def test_anything_irregular_is_left_alone(answer: str) -> None:
    """No row, half a row, a row without its mark, a line that is none of ours."""
    assert cut(answer.encode(), MARK, 1) is None
