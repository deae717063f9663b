"""Rows out of text: none lost, none forged, none shifted, whatever people call their jobs."""

from __future__ import annotations

from itertools import pairwise
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpchub.errors import UnexpectedOutput
from slurm_magics.delimited import UNIT, Delimited, Layout, Marked, new_mark
from slurm_magics.reading import Reading

MARK = "\x1eRANDOM-12ab"
# Everything that a C string can hold and that nobody can know: no NUL, and not the mark.
ANYTHING = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])).map(
    lambda text: text.replace(MARK, "")
)
HOSTILE = st.one_of(
    ANYTHING,
    st.sampled_from(
        [
            "a b",
            "a|b",
            "'",
            '"',
            "NA",
            "007",
            "x" * 1000,
            "\n",
            UNIT,
            f"x{UNIT}1{UNIT}y",
            "\nCLUSTER: evil\n",
            "\x1e",
        ]
    ),
)
WRITTEN_BY_SLURM = st.text(st.sampled_from("abc0123456789_[]-:,+%. "))


JOBS = Marked("squeue", MARK, user_text=1)


def read(layout: Layout, text: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Columns of text, and the lines that are no part of them."""
    reading = Reading(layout, {}, ZoneInfo("UTC"))
    reading.feed(text.encode())
    return reading.frame()


def rows_of(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """Its rows."""
    return list(frame.itertuples(index=False, name=None))


@given(st.lists(st.tuples(WRITTEN_BY_SLURM, HOSTILE, WRITTEN_BY_SLURM)))
def test_no_name_loses_or_forges_a_row_between_marks(rows: list[tuple[str, str, str]]) -> None:
    """What squeue would print of any names comes back as it was, row by row."""
    printed = [UNIT.join((MARK, *row, MARK)) + "\n" for row in [("JOBID", "NAME", "STATE"), *rows]]
    found, notices = read(JOBS, "".join(printed))
    assert rows_of(found) == rows
    assert notices == ()


@given(st.lists(st.tuples(WRITTEN_BY_SLURM, HOSTILE, HOSTILE)))
def test_no_name_loses_or_forges_a_row_before_marks(rows: list[tuple[str, str, str]]) -> None:
    """The same where a mark follows each field, and two fields are the users' own."""
    printed = [
        "".join(f"{field}{MARK}" for field in row) + "\n" for row in [("ID", "NAME", "COMMENT"), *rows]
    ]
    found, _ = read(Delimited("sacct", MARK, guards=0), "".join(printed))
    assert rows_of(found) == rows


ROWS = st.lists(st.tuples(WRITTEN_BY_SLURM, HOSTILE, WRITTEN_BY_SLURM), max_size=6)


@pytest.mark.parametrize("layout", [JOBS, Delimited("sacct", MARK, guards=0)])
@given(
    clusters=st.lists(ROWS, min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 600)),
    enough=st.integers(1, 99),
)
def test_pieces_make_the_table_of_the_whole(
    layout: Layout, clusters: list[list[tuple[str, ...]]], cuts: list[int], enough: int
) -> None:
    """Wherever they end: in a mark, a name, a letter, before a cluster's headings."""
    before, between, behind = (MARK + UNIT, UNIT, UNIT + MARK) if layout is JOBS else ("", MARK, MARK)
    text = "Hello\n" + "".join(
        f"CLUSTER: c{number}\n"
        + "".join(f"{before}{between.join(row)}{behind}\n" for row in [("ID", "NAME", "STATE"), *rows])
        for number, rows in enumerate(clusters)
    )
    whole, reading = text.encode(), Reading(layout, {}, ZoneInfo("UTC"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("slurm_magics.reading._ENOUGH_BYTES", enough)
        for start, end in pairwise([0, *sorted(cuts), None]):
            reading.feed(whole[start:end])
        found, notices = reading.frame()
    assert rows_of(found) == [(f"c{number}", *row) for number, rows in enumerate(clusters) for row in rows]
    assert notices == ("Hello",)


@given(st.data())
def test_an_answer_cut_in_the_middle_of_a_row_is_an_error(data: st.DataObject) -> None:
    """Half a row is never taken for a row: the answer stops being one."""
    whole = "".join(
        UNIT.join((MARK, *row, MARK)) + "\n" for row in [("JOBID", "NAME"), ("1", "a"), ("2", "b")]
    )
    kept = data.draw(st.integers(0, len(whole) - 1))
    if whole[:kept].endswith("\n"):
        return  # a cut between two rows cannot be seen; the command's exit code tells
    with pytest.raises(UnexpectedOutput):
        read(JOBS, whole[:kept])


def test_nothing_at_all_is_an_error() -> None:
    """An empty queue has headings; an empty answer is none."""
    for text in ("", "\n", "slurm_load_jobs error\n"):
        with pytest.raises(UnexpectedOutput):
            read(JOBS, text)
        with pytest.raises(UnexpectedOutput):
            read(Delimited("sacct", MARK), text)


def test_a_row_with_fewer_fields_than_headings_is_an_error() -> None:
    """No field slides into another's column."""
    text = f"{MARK}{UNIT}A{UNIT}B{UNIT}{MARK}\n{MARK}{UNIT}1{UNIT}{MARK}\n"
    with pytest.raises(UnexpectedOutput):
        read(JOBS, text)


def test_headings_of_each_cluster_are_no_rows_and_name_it() -> None:
    """With -M there are headings for each cluster; a cluster without rows has none."""
    head = UNIT.join((MARK, "JOBID", "NAME", MARK))
    rows = [UNIT.join((MARK, job, "x\nCLUSTER: evil", MARK)) for job in "123"]
    text = f"CLUSTER: a\n{head}\n{rows[0]}\nCLUSTER: none\n{head}\nCLUSTER: b\n{head}\n{rows[1]}\n{rows[2]}\n"
    found, _ = read(JOBS, text)
    assert rows_of(found[["CLUSTER", "JOBID"]]) == [("a", "1"), ("b", "2"), ("b", "3")]


def test_what_a_wrapper_prints_is_a_notice() -> None:
    """A site's greeting before and after the rows costs none of them."""
    head, row = (UNIT.join((MARK, *fields, MARK)) for fields in (("JOBID", "NAME"), ("1", "a")))
    found, notices = read(JOBS, f"Welcome!\n{head}\n{row}\nBye.\n")
    assert (rows_of(found), notices) == ([("1", "a")], ("Welcome!", "Bye."))


def test_equal_headings_are_told_apart() -> None:
    """squeue heads %i and %A alike."""
    text = f"{MARK}{UNIT}JOBID{UNIT}JOBID{UNIT}{MARK}\n"
    assert list(read(Marked("squeue", MARK), text)[0]) == ["JOBID", "JOBID_2"]


def test_marks_are_new_each_time_and_fit_into_a_format() -> None:
    """Nothing that Slurm's formats give a meaning: no percent sign, comma or blank, no digit in front."""
    marks = {new_mark() for _ in range(100)}
    assert len(marks) == 100
    assert all(not set(mark) & set("%, :\n") and not mark[0].isdigit() for mark in marks)
