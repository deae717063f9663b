"""One column of a table that comes in pieces: what is kept of each piece, and what it is at the end.

Nothing of it is lost before the end: only then it is known whether each cell is what its column should hold,
and the column else stays text. Imports pandas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from slurm_magics.cells import NOTHING, WHOLE, Cells, Coded, Layout, Texts
from slurm_magics.job_ids import JobIdParts, parse_job_id

# So many cells tell whether a column repeats itself; with so few different ones it does so often.
_SAMPLE, _FEW = 256, 64
# A cell of digits is kept as these and its length, in so many bits.
_LENGTH_BITS = 5


class Strings:
    """Text. Equal ones are one object, unless they are rare."""

    def __init__(self) -> None:
        self._pieces: list[Any] = []
        self._known: dict[str, str] = {}

    def add(self, column: Cells | Texts) -> None:
        """Some more rows."""
        distinct = len({*column.rows(slice(_SAMPLE)).texts()})
        if distinct < _FEW:
            words, codes = column.coded()
            known = np.array([*map(self._known.setdefault, words, words)], dtype=object)
            self._pieces.append(known[codes])
            return
        found = column.texts()
        if distinct < _SAMPLE:
            found = [*map(self._known.setdefault, found, found)]
        self._pieces.append(np.array(found, dtype=object))

    def texts(self) -> Any:
        """All cells as they were written."""
        return _joined(self._pieces, object)


class Words:
    """Each word once, and its place for each row."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._pieces: list[Any] = []

    def add(self, column: Cells | Texts) -> None:
        """Some more rows."""
        self._pieces.append(self.places(column))

    def places(self, column: Cells | Texts) -> Any:
        """For each cell the place of its word."""
        words, codes = column.coded()
        places = [self._places.setdefault(word, len(self._places)) for word in words]
        return np.array(places, dtype="int32")[codes]

    def words(self) -> list[str]:
        """Each once, by their places."""
        return [*self._places]

    def coded(self) -> Coded:
        """The whole column."""
        return Coded(self.words(), _joined(self._pieces, "int32"))


class Digits:
    """Numbers. A cell that has the layout is its digits and its length; any other is the place of its word.

    A place is negative, beginning with -1.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._others = Words()
        self._pieces: list[Any] = []

    def add(self, column: Cells | Texts) -> None:
        """Some more rows."""
        digits, lengths, fits = column.numbers(self._layout)
        found = (digits << _LENGTH_BITS) | lengths
        others = np.flatnonzero(~fits)
        if len(others):
            found[others] = -1 - self._others.places(column.rows(others)).astype("int64")
        self._pieces.append(found)

    def values(self, known: Callable[[Any], Any], read: Callable[[str], int | None]) -> Any:
        """A whole number for each cell: `known` of the digits, `read` of each other word."""
        found = _joined(self._pieces, "int64")
        values = known(found >> _LENGTH_BITS)
        others = np.flatnonzero(found < 0)
        if len(others):
            values[others] = Coded(self._others.words(), -1 - found[others]).values(read)
        return values

    def texts(self) -> Any:
        """All cells as they were written."""
        words, mask = self._others.words(), (1 << _LENGTH_BITS) - 1
        found = [
            words[-1 - one] if one < 0 else self._layout.written(one >> _LENGTH_BITS, one & mask)
            for one in _joined(self._pieces, "int64").tolist()
        ]
        return np.array(found, dtype=object)


class Ids:
    """Job ids and their parts. Most are plain numbers and need no pattern.

    `odd`: what is wrong with the first that is none; it has no parts. `steps`: of each row, where these are
    wanted.
    """

    def __init__(self, *, with_steps: bool) -> None:
        self._texts = Strings()
        self._numbers: list[tuple[Any, Any, Any]] = []
        self._with_steps = with_steps
        self.steps = Words()
        self.odd: ValueError | None = None

    def add(self, column: Cells | Texts) -> None:
        """Some more rows."""
        self._texts.add(column)
        jobs, _, fits = column.numbers(WHOLE)
        others = np.flatnonzero(~fits)
        parts = [*map(self._parsed, column.rows(others).texts())]
        tasks, hets = np.full(len(jobs), NOTHING), np.full(len(jobs), NOTHING)
        jobs[others] = [NOTHING if one is None else one.job for one in parts]
        tasks[others] = [NOTHING if one is None or one.task is None else one.task for one in parts]
        hets[others] = [NOTHING if one is None or one.het is None else one.het for one in parts]
        self._numbers.append((jobs, tasks, hets))
        if self._with_steps:
            steps = np.full(len(jobs), "", dtype=object)
            steps[others] = ["" if one is None else one.step for one in parts]
            self.steps.add(Texts(steps))

    def _parsed(self, text: str) -> JobIdParts | None:
        try:
            return parse_job_id(text)
        except ValueError as error:
            self.odd = self.odd or error
            return None

    def numbers(self) -> list[Any]:
        """Of each row job, task and component."""
        return [_joined([piece[part] for piece in self._numbers], "int64") for part in range(3)]

    def texts(self) -> Any:
        """All cells as they were written."""
        return self._texts.texts()


def _joined(pieces: Any, dtype: Any) -> Any:
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces) if pieces else np.empty(0, dtype=dtype)


Gathered = Strings | Words | Digits | Ids
