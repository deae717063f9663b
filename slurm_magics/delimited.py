"""Delimited text of Slurm's commands, cut into columns. No input or output.

Each query has a mark of its own that nobody could know when they named a job. So names may hold line
ends, pipes or last week's mark, and still no row is forged, lost or shifted. There are two layouts:

    marked      MARK, fields with one character between them, MARK. At most one field is text that users
                write: it is what is left between the fields before and after it. Quick to read.
    delimited   each field is followed by the mark. For any fields.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Protocol

from hpchub.errors import UnexpectedOutput
from slurm_magics.done import as_text

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


@dataclass(frozen=True, slots=True)
class Rows:
    """The whole rows that some bytes begin with: their fields, and what stands before each.

    `end`: where the rest begins.
    """

    fields: list[list[str]]
    outside: list[str]
    end: int


class Layout(Protocol):
    """How the rows of an answer are told apart."""

    @property
    def tool(self) -> str:
        """The command, for errors."""

    @property
    def mark(self) -> str:
        """From `new_mark`, fresh for this query."""

    @property
    def guards(self) -> int:
        """How many first fields are left out of the table."""

    def head(self, data: bytes) -> Rows:
        """The first row, which has the headings; none where the bytes end before it does."""

    def rows(self, data: bytes, width: int) -> Rows:
        """Rows of so many fields.

        Raises:
            UnexpectedOutput: One has another number of them.
        """


@dataclass(frozen=True, slots=True)
class Marked:
    """Rows between marks. `user_text` is the place of the one field that may hold anything, if any may."""

    tool: str
    mark: str = field(repr=False)
    user_text: int | None = None
    guards: int = 0

    def head(self, data: bytes) -> Rows:
        """The first row, which has the headings; none where the bytes end before it does."""
        return self._cut(data, data.split(self.mark.encode(), 2))

    def rows(self, data: bytes, width: int) -> Rows:
        """Rows of so many fields.

        Raises:
            UnexpectedOutput: One has another number of them.
        """
        rows = self._cut(data, data.split(self.mark.encode()))
        for row in rows.fields:
            extra = len(row) - width
            if extra > 0 and self.user_text is not None:
                last = self.user_text + extra + 1
                row[self.user_text : last] = [UNIT.join(row[self.user_text : last])]
            if len(row) != width:
                raise UnexpectedOutput(self.tool, UNIT.join(row))
        return rows

    def _cut(self, data: bytes, pieces: list[bytes]) -> Rows:
        """Of what stands between the marks, each second piece is a row, if there is one behind it."""
        last = (len(pieces) - 1) // 2 * 2
        return Rows(
            fields=[as_text(piece[1:-1]).split(UNIT) for piece in pieces[1:last:2]],
            outside=[as_text(piece) for piece in pieces[:last:2]],
            end=len(data) - len(self.mark.encode().join(pieces[last:])),
        )


@dataclass(frozen=True, slots=True)
class Delimited:
    """Rows whose every field, the last too, is followed by the mark, for any fields.

    Slurm itself writes the first field in any case, without a line end: lines before it are no part of the
    row. It may be only a guard.
    """

    tool: str
    mark: str = field(repr=False)
    guards: int = 1

    def head(self, data: bytes) -> Rows:
        """The first row, which has the headings; none where the bytes end before it does."""
        mark = self.mark.encode()
        row, found, _ = data.partition(mark + b"\n")
        width = row.count(mark) + 1 if found else 0
        return self._cut(data, data.split(mark, width), width) if width else Rows([], [], 0)

    def rows(self, data: bytes, width: int) -> Rows:
        """Rows of so many fields."""
        return self._cut(data, data.split(self.mark.encode()), width)

    def _cut(self, data: bytes, pieces: list[bytes], width: int) -> Rows:
        last = (len(pieces) - 1) // width * width
        texts = [as_text(piece) for piece in pieces[:last]]
        outside = []
        for first in range(0, last, width):
            before, _, texts[first] = texts[first].rpartition("\n")
            outside.append(before)
        fields = [texts[first : first + width] for first in range(0, last, width)]
        return Rows(fields, outside, len(data) - len(self.mark.encode().join(pieces[last:])))


def cluster_of(lines: list[str]) -> str:
    """The cluster that some lines before a row announce."""
    names = [line.removeprefix(CLUSTER).strip() for line in lines if line.startswith(CLUSTER)]
    return names[-1] if names else ""


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
