"""A table that is read while its command still prints it. No input or output.

Whole rows become columns of a frame as they come, half a megabyte at a time. So a long listing is never
held as text, and is read while Slurm writes the rest of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import TYPE_CHECKING

from hpchub.errors import UnexpectedOutput
from slurm_magics.delimited import CLUSTER, Layout, Marked, Rows, cluster_of, spread_clusters, unique
from slurm_magics.done import as_text
from slurm_magics.values import Kind

if TYPE_CHECKING:
    import pandas as pd

    from slurm_magics.frames import Columns

# So many bytes are worth the calls of numpy that each column costs.
_ENOUGH_BYTES = 1 << 19


class Reading:
    """One answer.

    Args:
        layout: How its rows are told apart.
        kinds: What its columns hold, by heading.
        zone: The cluster's time zone.
        parts: As `Columns` has it.
        names: Headings of ours, in the place of those that come.
        none_found: With these words the command says that there are no rows, and prints no headings.
    """

    def __init__(
        self,
        layout: Layout,
        kinds: Mapping[str, Kind],
        zone: tzinfo,
        *,
        parts: Sequence[str] = (),
        names: Sequence[str] = (),
        none_found: str = "",
    ) -> None:
        self._layout = layout
        self._kinds = kinds
        self._zone = zone
        self._parts = parts
        self._names = names
        self._none_found = none_found
        self._pieces: list[bytes] = []
        self._bytes, self._enough = 0, _ENOUGH_BYTES
        self._columns: Columns | None = None
        self._width = 0
        self._rows = 0
        self._clusters: dict[int, str] = {}
        self._notices: list[str] = []
        self._trouble: UnexpectedOutput | None = None

    def feed(self, piece: bytes) -> None:
        """The next bytes. Whatever is wrong with them is raised by `frame`: the command may say why."""
        if self._trouble:
            return
        self._pieces.append(piece)
        self._bytes += len(piece)
        if self._bytes >= self._enough:
            self._read()

    def frame(self) -> tuple[pd.DataFrame, tuple[str, ...]]:
        """The frame of all rows, and the lines that were no part of any.

        Raises:
            UnexpectedOutput: There are no headings, or the answer was cut in the middle of a row, or a row
                has another number of fields than the headings.
        """
        rest = self._read()
        if self._trouble:
            raise self._trouble
        text = as_text(rest)
        if self._columns is None and self._none_found and text.startswith(self._none_found):
            return self._begun(self._names).frame(), (text.split("\n")[0],)
        if (
            self._columns is None
            or self._layout.mark in text
            or not text.startswith("\n")
            or text[-1] != "\n"
        ):
            raise UnexpectedOutput(self._layout.tool, f"…{text[-80:]}" if text else "nothing at all")
        self._note(text)
        clusters = spread_clusters({0: ""} | self._clusters, self._rows) if self._clusters else None
        return self._columns.frame(clusters), tuple(self._notices)

    def _read(self) -> bytes:
        """Read what whole rows there are; the bytes that are left."""
        data = b"".join(self._pieces)
        try:
            rest = data[self._whole_rows(data) :]
        except UnexpectedOutput as error:
            self._trouble, rest = error, b""
        self._pieces = [rest]
        self._bytes = len(rest)
        # What is no row yet may be long, and would be looked through again and again.
        self._enough = max(_ENOUGH_BYTES, 2 * len(rest))
        return rest

    def _whole_rows(self, data: bytes) -> int:
        """Read the rows that the bytes begin with; where the rest begins."""
        begin = 0
        if self._columns is None:
            head = self._layout.head(data)
            if not head.fields:
                return 0
            self._head(head)
            begin, data = head.end, data[head.end :]
        assert self._columns  # noqa: S101  made by `_head`
        if isinstance(self._layout, Marked):
            from slurm_magics.cells import cut

            if found := cut(data, self._layout.mark, self._width):
                columns, end = found
                self._columns.add(columns)
                self._rows += len(columns[0])
                return begin + end
        rows = self._layout.rows(data, self._width)
        self._add(rows)
        return begin + rows.end

    def _head(self, head: Rows) -> None:
        self._width = len(head.fields[0])
        if cluster := self._note(head.outside[0]):
            self._clusters[0] = cluster
        headings = unique([heading.strip() for heading in head.fields[0]][self._layout.guards :])
        if self._names and len(self._names) != len(headings):
            raise UnexpectedOutput(self._layout.tool, f"only the fields {', '.join(headings)}")
        self._columns = self._begun(self._names or headings)

    def _begun(self, headings: Sequence[str]) -> Columns:
        from slurm_magics.frames import Columns

        return Columns(headings, self._kinds, zone=self._zone, parts=self._parts)

    def _add(self, rows: Rows) -> None:
        """Rows that were read one by one: some may be headings of a cluster."""
        from slurm_magics.cells import Texts

        kept: list[list[str]] = []
        for before, fields in zip(rows.outside, rows.fields, strict=True):
            if before.strip("\n") and (cluster := self._note(before)):
                self._clusters[self._rows + len(kept)] = cluster
            else:
                kept.append(fields[self._layout.guards :])
        if kept:
            assert self._columns  # noqa: S101  there are headings
            self._columns.add([Texts(column) for column in zip(*kept, strict=True)])
            self._rows += len(kept)

    def _note(self, outside: str) -> str:
        """Keep what stood outside of the rows; the cluster that it announces, if any."""
        lines = outside.split("\n")
        self._notices += [line for line in lines if line.strip() and not line.startswith(CLUSTER)]
        return cluster_of(lines)
