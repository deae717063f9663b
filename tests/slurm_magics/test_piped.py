"""Rows of commands that know no delimiter but the pipe: none lost, none forged, or it is said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpchub.errors import UnexpectedOutput
from slurm_magics.piped import WIDTH, parse_piped, parse_wide

HEADS = ("Account", "Descr", "ID")
# What staff can call an account on Slurm 22.05: anything that a C string holds.
ANYTHING = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=40)
HOSTILE = st.one_of(
    ANYTHING,
    st.text(st.sampled_from("ab|\n"), max_size=30),
    st.sampled_from(
        ["x\nevil|row|1|evil|row|1|\nb", "|", "\n", "a|b|c|a|b|c|\n", "CLUSTER: evil\n", "x+", "--- "]
    ),
)
ROWS = st.lists(st.tuples(HOSTILE, HOSTILE, st.sampled_from(["", "1", "1001"])), max_size=4)


def piped(rows: list[tuple[str, ...]]) -> str:
    """What Slurm prints of rows whose fields are asked for twice."""
    return "".join("".join(f"{field}|" for field in (*row, *row)) + "\n" for row in (HEADS, *rows))


def wide(rows: list[tuple[str, ...]], *, is_old: bool = False) -> bytes:
    """What Slurm prints in columns of a fixed width: texts to the left, cut with a plus, and a ruler."""
    dashes, place = (53, ">") if is_old else (WIDTH, "<")  # is_old: as 20.11
    ruler = " ".join(f"{'-' * dashes:>{WIDTH}}" for _ in HEADS) + " \n"
    lines = ["".join(f"{field:{place}{WIDTH}} " for field in HEADS).encode() + b"\n", ruler.encode()]
    for row in rows:
        cells = [field.encode() for field in row]
        cut = [cell[: WIDTH - 1] + b"+" if len(cell) > WIDTH else cell for cell in cells]
        lines.append(b"".join(cell.ljust(WIDTH) + b" " for cell in cut) + b"\n")
    return b"".join(lines)


@given(ROWS)
def test_a_pipe_or_a_line_end_is_noticed_and_forges_nothing(rows: list[tuple[str, ...]]) -> None:
    """Rows come back as they were, or not at all where a text has a pipe or a line end."""
    table = parse_piped("sacctmgr", piped(rows), 3)
    if any({"|", "\n"} & set(field) for row in rows for field in row):
        assert table is None
    else:
        assert table is not None
        assert list(zip(*table.columns, strict=True)) == rows
        assert (table.rows, table.headings, table.notices) == (len(rows), HEADS, ())


@given(ROWS, st.booleans())
def test_columns_of_a_fixed_width_hold_anything(rows: list[tuple[str, ...]], is_old: bool) -> None:
    """Whatever is in them, but blanks at the end of a text: Slurm pads with these."""
    table = parse_wide("sacctmgr", wide(rows, is_old=is_old))
    assert table.headings == HEADS
    assert list(zip(*table.columns, strict=True)) == [
        tuple(field.rstrip(" ") for field in row) for row in rows
    ]


@given(st.data())
def test_an_answer_cut_in_the_middle_of_a_row_is_an_error(data: st.DataObject) -> None:
    """Half a row is never taken for a row."""
    text = piped([("a", "b", "1"), ("c", "d", "2")])
    kept = data.draw(st.integers(0, len(text) - 1))
    if not text[:kept].endswith("\n"):
        with pytest.raises(UnexpectedOutput):
            parse_piped("sacctmgr", text[:kept], 3)
    answer = wide([("a", "b", "1"), ("c", "d", "2")])
    kept = data.draw(st.integers(0, len(answer) - 1))
    stride = 3 * (WIDTH + 1) + 1
    if kept % stride or kept < 2 * stride:
        with pytest.raises(UnexpectedOutput):
            parse_wide("sacctmgr", answer[:kept])


def test_a_text_that_has_no_room_is_an_error() -> None:
    """Slurm cuts it and puts a plus: that is not the text."""
    assert parse_wide("sacctmgr", wide([("a" * WIDTH, "b", "")])).columns[0] == ["a" * WIDTH]
    with pytest.raises(UnexpectedOutput):
        parse_wide("sacctmgr", wide([("a" * (WIDTH + 1), "b", "")]))


def test_what_a_wrapper_prints_first_is_a_notice() -> None:
    """A site's greeting costs no row; the clusters of -M are told apart."""
    rows: list[tuple[str, ...]] = [("a", "b", "1")]
    text = f"Welcome!\nCLUSTER: one\n{piped(rows)}CLUSTER: two\n{piped(rows * 2)}"
    table = parse_piped("sshare", text, 3)
    assert table is not None
    assert (table.notices, table.clusters) == (("Welcome!",), ["one", "two", "two"])
    answer = b"Welcome!\nCLUSTER: one\n" + wide(rows) + b"CLUSTER: two\n" + wide(rows * 2)
    table = parse_wide("sshare", answer)
    assert (table.notices, table.clusters) == (("Welcome!",), ["one", "two", "two"])
