"""Delimited text of Slurm's commands, cut into columns. No input or output.

Each query has a mark of its own that nobody could know when they named a job. So names may hold line
ends, pipes or last week's mark, and still no row is forged, lost or shifted. There are two layouts:

    marked      MARK, fields with one character between them, MARK. At most one field is text that users
                write: it is what is left between the fields before and after it. Quick to read.
    delimited   each field is followed by the mark. For any fields.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from hpchub.errors import UnexpectedOutput

UNIT = "\x1f"
# With -M, before the headings of each cluster.
CLUSTER = "CLUSTER: "


def new_mark() -> str:
    """72 random bits. Begins with no digit: squeue's -O would take that for a width."""
    return f"\x1e{secrets.token_urlsafe(9)}"


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of text under the headings that Slurm gave them.

    `clusters` has a name for each row where the answer tells clusters apart (-M), else None.
    `notices` is what stood outside the rows: a site's wrapper talks, say.
    """

    headings: tuple[str, ...]
    columns: tuple[list[str], ...]
    rows: int
    clusters: list[str] | None = None
    notices: tuple[str, ...] = ()


def parse_marked(tool: str, text: str, mark: str, user_text: int | None = None) -> Table:
    """The table in an answer of rows between marks, headings included.

    Args:
        tool: The command, for errors.
        text: Its standard output; with -M there are headings for each cluster.
        mark: From `new_mark`, fresh for this query.
        user_text: The place of the one field that may hold anything; None where there is none.

    Raises:
        UnexpectedOutput: There are no headings, or the text is cut in the middle of a row, or a row has
            another number of fields than the headings.
    """
    pieces = text.split(mark)
    if len(pieces) < 2 or len(pieces) % 2 == 0 or not _is_whole(pieces[-1]):
        raise _cut(tool, text)
    rows = [piece[1:-1].split(UNIT) for piece in pieces[1::2]]
    width = len(rows[0])
    for row in rows:
        extra = len(row) - width
        if extra > 0 and user_text is not None:
            row[user_text : user_text + extra + 1] = [UNIT.join(row[user_text : user_text + extra + 1])]
        if len(row) != width:
            raise UnexpectedOutput(tool, UNIT.join(row))
    outside = {row: lines for row, text in enumerate(pieces[:-1:2]) if (lines := text.strip("\n"))}
    columns = [list(column) for column in zip(*rows, strict=True)]
    return _table(columns, {row: lines.split("\n") for row, lines in outside.items()}, pieces[-1])


def parse_delimited(tool: str, text: str, mark: str, *, guarded: bool) -> Table:
    """The table in an answer whose every field, the last too, is followed by the mark.

    Args:
        tool: The command, for errors.
        text: Its standard output, headings included; with -M there are some for each cluster.
        mark: From `new_mark`, fresh for this query.
        guarded: The first field is only a guard and left out of the table. Slurm itself writes the
            first field in any case, without a line end: lines before it are no part of the row.

    Raises:
        UnexpectedOutput: There are no headings, or the text is cut in the middle of a row.
    """
    width = text.partition(f"{mark}\n")[0].count(mark) + 1
    fields = text.split(mark)
    tail = fields.pop()
    if not fields or len(fields) % width or not _is_whole(tail):
        raise _cut(tool, text)
    columns = [fields[place::width] for place in range(width)]
    outside = {}
    for row, (before, _, field) in enumerate(first.rpartition("\n") for first in columns[0]):
        columns[0][row] = field
        if lines := before.strip("\n"):
            outside[row] = lines.split("\n")
    return _table(columns, outside, tail, skip=1 if guarded else 0)


def _is_whole(tail: str) -> bool:
    """Whether what stands behind the last row is no beginning of another."""
    return tail.startswith("\n") and tail.endswith("\n")


def _cut(tool: str, text: str) -> UnexpectedOutput:
    return UnexpectedOutput(tool, f"…{text[-80:]}" if text else "nothing at all")


def _table(columns: list[list[str]], outside: dict[int, list[str]], tail: str, skip: int = 0) -> Table:
    """From columns with their headings, and the lines before some of the rows; without the first columns."""
    headings = [column[0].strip() for column in columns]
    names = {row: name for row, lines in outside.items() if (name := _cluster(lines))}
    for row in sorted({0, *names}, reverse=True):  # each cluster has headings of its own
        for column in columns:
            del column[row]
    lines = [line for lines in (*outside.values(), tail.split("\n")) for line in lines if line.strip()]
    return Table(
        headings=unique(headings[skip:]),
        columns=tuple(columns[skip:]),
        rows=len(columns[0]),
        clusters=_spread(names, len(columns[0])) if names else None,
        notices=tuple(line for line in lines if not line.startswith(CLUSTER)),
    )


def _cluster(lines: list[str]) -> str:
    """The cluster that some lines before a row announce."""
    names = [line.removeprefix(CLUSTER).strip() for line in lines if line.startswith(CLUSTER)]
    return names[-1] if names else ""


def _spread(names: dict[int, str], rows: int) -> list[str]:
    """The cluster of each row, from the rows of headings, which are gone."""
    return spread_clusters(
        {row - before: name for before, (row, name) in enumerate(sorted(names.items()))}, rows
    )


def spread_clusters(names: dict[int, str], rows: int) -> list[str]:
    """The cluster of each row, from the numbers of the rows that each one's begin with.

    A cluster without rows has gone: the next one begins with the same row.
    """
    starts = sorted(names)
    ends = [*starts[1:], rows]
    return [names[start] for start, end in zip(starts, ends, strict=True) for _ in range(start, end)]


def unique(headings: list[str]) -> tuple[str, ...]:
    """squeue gives two fields the same heading (`%i` and `%A`, say): the second becomes `JOBID_2`."""
    unique: list[str] = []
    for heading in headings:
        count = 1
        name = heading
        while name in unique:
            count += 1
            name = f"{heading}_{count}"
        unique.append(name)
    return tuple(unique)
