"""Columns of text before they have a type: as strings, or as places in the bytes of an answer.

A long queue is read from its bytes: numpy finds all separators, and a cell becomes an object of Python's only
where the frame keeps it, or where it stands for all cells of its column that are equal. Imports pandas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from slurm_magics import values
from slurm_magics.delimited import UNIT, unique
from slurm_magics.done import as_text

NOTHING = -(2**63)  # NaT, in numpy's integers

_UNIT, _LINE_END = ord(UNIT), ord("\n")
_LONGEST = 2**31 - 1
_MOST_DIGITS = 18
# Small enough that memory which was needed for a moment leaves no large holes.
_BYTES_AT_ONCE, _ROWS_AT_ONCE = 1 << 18, 1 << 13
_COMPARED = 16  # the bytes of a cell that are compared as numbers
_SAMPLE = 256  # cells that tell whether a column repeats itself
# Of the eight bytes of a number, the first so many.
_MASKS = np.array([256**length - 1 for length in range(9)], dtype="uint64")


class _Layout(NamedTuple):
    """Cells of one length that are a number: in each place a digit, or this sign and no other."""

    firsts: Any  # the least byte
    spans: Any  # how many other ones there may be
    weights: Any

    @classmethod
    def of(cls, example: str, units: Sequence[int]) -> _Layout:
        """As in `0-00:00:00`, where a unit is worth so much: the last one's first."""
        weights, places = [0] * len(example), list(enumerate(example))[::-1]
        worths = iter(units)
        worth = next(worths)
        for place, sign in places:
            if sign == "0":
                weights[place], worth = worth, worth * 10
            else:
                worth = next(worths)
        spans = [9 if sign == "0" else 0 for sign in example]
        firsts = np.frombuffer(example.encode("ascii"), dtype="uint8")
        return cls(firsts, np.array(spans, dtype="uint8"), np.array(weights, dtype="int64"))


_WHOLE = [_Layout.of("0" * length, [1]) for length in range(1, _MOST_DIGITS + 1)]
_DURATIONS = [
    _Layout.of(example, [1000, 60_000, 3_600_000, 86_400_000])
    for example in (
        "0:00",
        "00:00",
        "0:00:00",
        "00:00:00",
        *("0" * days + "-00:00:00" for days in range(1, 8)),
    )
]


class Coded(NamedTuple):
    """A column as each word once, and the place of its word for each row."""

    words: Sequence[str]
    codes: Any

    def each(self, read: Callable[[str], int | None]) -> Any:
        """An array of whole numbers, each word read once."""
        numbers = [NOTHING if (found := read(word)) is None else found for word in self.words]
        return np.array(numbers, dtype="int64")[self.codes]


class Texts:
    """A column as a list or an array of strings."""

    def __init__(self, texts: Any) -> None:
        self._texts = texts

    def texts(self) -> Any:
        """An array of strings, one for each row."""
        return np.array(self._texts, dtype=object)

    def coded(self) -> Coded:
        """Each word once."""
        codes, words = pd.factorize(self.texts())
        return Coded(list(words), codes)

    def durations_ms(self) -> Any:
        """As `values.duration_ms`."""
        return self.coded().each(values.duration_ms)

    def moments_s(self, read: Callable[[str], int | None]) -> Any:
        """As `values.moment`, which `read` is from."""
        return self.coded().each(read)

    def whole_numbers(self) -> tuple[Any, Any]:
        """The numbers of the cells that are nothing but 1 to 18 digits, and which cells are."""
        plain = [text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS for text in self._texts]
        found = [int(text) if fits else 0 for text, fits in zip(self._texts, plain, strict=True)]
        return np.array(found, dtype="int64"), np.array(plain, dtype=bool)


def cut(answer: bytes, mark: str) -> dict[str, Cells] | None:
    """The answer's columns. None where it is anything else than rows of one line each under one heading."""
    first, line_end, _ = answer.partition(b"\n")
    headings = first.decode("ascii", "replace").split(UNIT)
    if not line_end or len(headings) < 3 or (headings[0], headings[-1]) != (mark, mark):
        return None
    if len(answer) > _LONGEST:
        return None
    data = np.frombuffer(answer, dtype="uint8")
    bounds = [len(first) + 1]
    while bounds[-1] < len(answer):
        bounds.append(answer.find(b"\n", bounds[-1] + _BYTES_AT_ONCE) + 1 or len(answer))
    parts = [(start, data[start:end]) for start, end in pairwise(bounds)]
    rows = sum(int(np.count_nonzero(lines == _LINE_END)) for _, lines in parts)
    ends, row = np.empty((rows, len(headings)), dtype="int32"), 0
    for start, lines in parts:
        found = _ends(lines, mark.encode(), len(headings))
        if found is None:
            return None
        ends[row : row + len(found)] = found + start
        row += len(found)
    names = unique([heading.strip() for heading in headings[1:-1]])
    return {name: Cells(data, ends[:, place], ends[:, place + 1]) for place, name in enumerate(names)}


def _ends(lines: Any, mark: bytes, width: int) -> Any:
    """Where the fields of some lines end. None: one has another number of them, or no marks at its ends."""
    is_line_end = lines == _LINE_END
    found = np.flatnonzero((lines == _UNIT) | is_line_end)
    if not is_line_end[-1] or len(found) % width:
        return None
    ends = found.reshape(-1, width)
    if np.count_nonzero(is_line_end) != len(ends) or not is_line_end[ends[:, -1]].all():
        return None
    marks = _from_each_byte(lines, f"S{len(mark)}")
    firsts, lasts = np.concatenate(([0], ends[:-1, -1] + 1)), ends[:, -2] + 1
    for starts, behind in ((firsts, ends[:, 0]), (lasts, ends[:, -1])):
        if (behind - starts != len(mark)).any() or (marks[starts] != mark).any():
            return None
    return ends


def _from_each_byte(data: Any, dtype: str) -> Any:
    """As long as the data: the value of this type that begins there, as far as there is room for one."""
    room = len(data) - np.dtype(dtype).itemsize + 1
    return np.ndarray((max(0, room),), dtype=dtype, buffer=data, strides=(1,))


class Cells:
    """A column, by the places of its cells in the bytes of an answer. A mark stands behind the last one.

    Args:
        data: The bytes.
        before: For each cell the place of the byte before its first.
        ends: For each cell the place of the byte after its last.
    """

    def __init__(self, data: Any, before: Any, ends: Any) -> None:
        self._data = data
        self._before = before
        self._ends = ends

    def texts(self) -> Any:
        """An array of strings, one for each row; bytes that are no UTF-8 as `\\xff`."""
        found = np.empty(len(self._ends), dtype=object)
        for rows, cells in self._parts():
            found[rows] = cells._few_texts()
        return found

    def coded(self) -> Coded:
        """Each word once."""
        codes = np.empty(len(self._ends), dtype="int32")
        places: dict[str, int] = {}
        for rows, cells in self._parts():
            words, some = cells._few_coded()
            found = [places.setdefault(word, len(places)) for word in words]
            codes[rows] = np.array(found, dtype="int32")[some]
        return Coded([*places], codes)

    def durations_ms(self) -> Any:
        """As `values.duration_ms`."""
        found, is_known = self._numbers(_DURATIONS)
        return self._completed(found, is_known, values.duration_ms)

    def moments_s(self, read: Callable[[str], int | None]) -> Any:
        """As `values.moment`, which `read` is from."""
        found, plain = self.whole_numbers()
        return self._completed(found, plain & (found != 0), read)

    def whole_numbers(self) -> tuple[Any, Any]:
        """The numbers of the cells that are nothing but 1 to 18 digits, and which cells are."""
        return self._numbers(_WHOLE)

    def _numbers(self, layouts: Sequence[_Layout]) -> tuple[Any, Any]:
        """The numbers of the cells that have one of these layouts, and which cells have."""
        found, fits = np.zeros(len(self._ends), dtype="int64"), np.zeros(len(self._ends), dtype=bool)
        for rows, cells in self._parts():
            found[rows], fits[rows] = cells._few_numbers(layouts)
        return found, fits

    def _completed(self, found: Any, is_known: Any, read: Callable[[str], int | None]) -> Any:
        others = np.flatnonzero(~is_known)
        found[others] = self._rows(others).coded().each(read)
        return found

    def _parts(self) -> Iterator[tuple[slice, Cells]]:
        for first in range(0, len(self._ends), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            yield rows, self._rows(rows)

    def _rows(self, rows: Any) -> Cells:
        return Cells(self._data, self._before[rows], self._ends[rows])

    def _few_bytes(self) -> list[str]:
        """Each cell with a character for each of its bytes."""
        offset = self._before.min() + 1
        text = str(self._data[offset : self._ends.max()].data, "latin-1")
        starts, ends = (self._before + 1 - offset).tolist(), (self._ends - offset).tolist()
        return [text[start:end] for start, end in zip(starts, ends, strict=True)]

    def _few_texts(self) -> list[str]:
        found = self._few_bytes()
        if not all(map(str.isascii, found)):
            found = [as_text(cell.encode("latin-1")) for cell in found]
        if len({*found[:_SAMPLE]}) == _SAMPLE:  # job ids
            return found
        known: dict[str, str] = {}
        return [*map(known.setdefault, found, found)]  # equal ones are one object

    def _few_coded(self) -> tuple[list[str], Any]:
        """Each word once, and codes. Cells are compared as numbers of eight bytes, long ones as text."""
        lengths = self._ends - self._before - 1
        codes, count = self._eight(0, lengths)
        for offset in range(8, min(int(lengths.max()), _COMPARED + 1), 8):
            rows = np.flatnonzero(lengths > offset)
            some = self._rows(rows)
            more, factor = some._eight(offset, lengths[rows]) if offset < _COMPARED else some._end(offset)
            codes[rows] = count + codes[rows] * factor + more
            codes, found = pd.factorize(codes)
            count = len(found)
        example = np.empty(count, dtype="int64")
        example[codes] = np.arange(len(codes))
        return self._rows(example)._few_texts(), codes

    def _eight(self, offset: int, lengths: Any) -> tuple[Any, int]:
        """Codes for the eight bytes from there on, as far as they belong to the cell; and how many codes."""
        numbers = _from_each_byte(self._data, "<u8")[self._before + 1 + offset]
        codes, found = pd.factorize(numbers & _MASKS[np.minimum(lengths - offset, 8)])
        return codes, len(found)

    def _end(self, offset: int) -> tuple[Any, int]:
        """Codes for all bytes from there on; and how many codes."""
        rest = Cells(self._data, self._before + offset, self._ends)._few_bytes()
        codes, found = pd.factorize(np.array(rest, dtype=object))
        return codes, len(found)

    def _few_numbers(self, layouts: Sequence[_Layout]) -> tuple[Any, Any]:
        lengths = self._ends - self._before - 1
        found, fits = np.zeros(len(lengths), dtype="int64"), np.zeros(len(lengths), dtype=bool)
        present = set(np.flatnonzero(np.bincount(lengths)).tolist())
        for firsts, spans, weights in layouts:
            if len(weights) in present:
                rows = np.flatnonzero(lengths == len(weights))
                cells = _from_each_byte(self._data, f"V{len(weights)}")[self._before[rows] + 1]
                digits = cells.view("uint8").reshape(-1, len(weights)) - firsts
                found[rows], fits[rows] = digits @ weights, (digits <= spans).all(axis=1)
        return found, fits
