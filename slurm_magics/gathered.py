"""One column of a table that comes in pieces: what is kept of each piece, and what it is at the end.

Nothing of it is lost before the end: only then it is known whether each cell is what its column should hold,
and the column else stays text. Imports pandas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from slurm_magics.cells import NOTHING, WHOLE, Cells, Coded, Spelling, Texts
from slurm_magics.job_ids import JobIdParts, parse_job_id

# So many cells tell whether a column repeats itself; with so few different ones it does so often.
_SAMPLE, _FEW = 256, 64
# Room for so many rows more than there are: memory that nobody has written to is none.
_ROOM = 1 << 18
# A cell of digits is kept as these and its length, in so many bits.
_LENGTH_BITS = 5
# So many fit into a processor's nearest memory, with what is needed for a moment.
_ROWS_AT_ONCE = 1 << 13


class Growing:
    """An array of numbers that grows. It rarely moves: whatever is given back leaves a hole in the memory."""

    def __init__(self, dtype: str) -> None:
        self._array = np.empty(0, dtype=dtype)
        self._size = 0

    def add(self, values: Any) -> None:
        """Some more rows."""
        first, self._size = self._size, self._size + len(values)
        if self._size > len(self._array):
            grown = np.empty(self._size + max(self._size, _ROOM) if first else self._size, self._array.dtype)
            grown[:first] = self._array[:first]
            self._array = grown
        self._array[first : self._size] = values

    def whole(self) -> Any:
        """All of them."""
        self._array.resize(self._size, refcheck=False)
        return self._array


class Strings:
    """Text. Equal ones are one object, unless they are rare."""

    def __init__(self) -> None:
        self._rows: list[str] = []
        self._known: dict[str, str] = {}

    def add(self, column: Cells | Texts) -> None:
        """Some more rows."""
        distinct = len({*column.rows(slice(_SAMPLE)).texts()})
        if distinct < _FEW:
            words, codes = column.coded()
            known = np.array([*map(self._known.setdefault, words, words)], dtype=object)
            self._rows += known[codes].tolist()
            return
        found = column.texts()
        if distinct < _SAMPLE:
            found = [*map(self._known.setdefault, found, found)]
        self._rows += found

    def texts(self) -> Any:
        """All cells as they were written."""
        return np.array(self._rows, dtype=object)


class Words:
    """Each word once, and its place for each row."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._rows = Growing("int32")

    def add(self, column: Cells | Texts) -> None:
        """Some more rows."""
        self._rows.add(self.places(column))

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
        return Coded(self.words(), self._rows.whole())


class Digits:
    """Numbers. A cell that has the spelling is its digits and its length; any other is the place of its word.

    A place is negative, beginning with -1.
    """

    def __init__(self, spelling: Spelling) -> None:
        self._spelling = spelling
        self._others = Words()
        self._rows = Growing("int64")

    def add(self, column: Cells | Texts) -> None:
        """Some more rows."""
        digits, lengths, fits = column.numbers(self._spelling)
        found = (digits << _LENGTH_BITS) | lengths
        others = np.flatnonzero(~fits)
        if len(others):
            found[others] = -1 - self._others.places(column.rows(others)).astype("int64")
        self._rows.add(found)

    def values(self, known: Callable[[Any], Any], read: Callable[[str], int | None]) -> Any:
        """A whole number for each cell: `known` of the digits, `read` of each other word."""
        found = self._rows.whole()
        words = [NOTHING if (one := read(word)) is None else one for word in self._others.words()]
        numbers, values = np.array(words, dtype="int64"), np.empty_like(found)
        for first in range(0, len(found), _ROWS_AT_ONCE):
            cells = found[first : first + _ROWS_AT_ONCE]
            others = np.flatnonzero(cells < 0)
            some = known(cells >> _LENGTH_BITS)
            some[others] = numbers[-1 - cells[others]]
            values[first : first + _ROWS_AT_ONCE] = some
        return values

    def texts(self) -> Any:
        """All cells as they were written."""
        words, mask = self._others.words(), (1 << _LENGTH_BITS) - 1
        found = [
            words[-1 - one] if one < 0 else self._spelling.written(one >> _LENGTH_BITS, one & mask)
            for one in self._rows.whole().tolist()
        ]
        return np.array(found, dtype=object)


class Ids:
    """Job ids and their parts. Most are plain numbers and need no pattern.

    `odd`: what is wrong with the first that is none; it has no parts. `steps`: of each row, where these are
    wanted.
    """

    def __init__(self, *, with_steps: bool) -> None:
        self._texts = Strings()
        self._numbers = [Growing("int64") for _ in range(3)]
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
        for rows, numbers in zip(self._numbers, (jobs, tasks, hets), strict=True):
            rows.add(numbers)
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
        return [rows.whole() for rows in self._numbers]

    def texts(self) -> Any:
        """All cells as they were written."""
        return self._texts.texts()


Gathered = Strings | Words | Digits | Ids
