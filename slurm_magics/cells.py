"""Columns of text before they have a type: as strings, or as places in the bytes of some rows.

A long queue is read from its bytes: numpy finds all separators, and a cell becomes an object of Python's only
where the frame keeps it, or where it stands for all cells of its column that are equal. Imports pandas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from slurm_magics.delimited import UNIT
from slurm_magics.done import as_text

NOTHING = -(2**63)  # NaT, in numpy's integers

_UNIT, _LINE_END = ord(UNIT), ord("\n")
_COMPARED = 16  # the bytes of a cell that are compared as numbers
_WIDEST = 16  # the bytes of a cell that are read as digits
# Of eight bytes as a number, the first so many. Of the last eight of a cell, and of the eight before, what
# belongs to a cell of such a length.
_FIRSTS = np.array([256**length - 1 for length in range(9)], dtype="uint64")
_LASTS = [
    np.array([2**64 - 256 ** (8 - min(max(0, one - skipped), 8)) for one in range(_WIDEST + 2)], "uint64")
    for skipped in (0, 8)
]
_HIGH_BITS, _LOW_BITS = np.uint64(0x8080808080808080), np.uint64(0x7F7F7F7F7F7F7F7F)


class Spelling:
    """How cells that are numbers are written: in each place, from the right, a digit or a certain sign.

    Such a cell is its digits, with a zero for each sign, and its length: so it can be written again.
    """

    def __init__(self, longest: str, lengths: Sequence[int]) -> None:
        self._signs = longest.rjust(_WIDEST, "0")
        self.has_length = np.isin(np.arange(_WIDEST + 2), lengths)
        # For the last eight bytes, and for those before: the example, what makes too great a difference to it
        # more than 127, which bytes belong to the cell, and what they count.
        halves = zip((self._signs[8:], self._signs[:8]), _LASTS, (1, 10**8), strict=True)
        self.halves = [(_eight(half), _limits(half), lasts, weight) for half, lasts, weight in halves]

    def written(self, digits: int, length: int) -> str:
        """The cell again."""
        places = zip(self._signs, f"{digits:0{_WIDEST}d}", strict=True)
        return "".join(digit if sign == "0" else sign for sign, digit in places)[-length:]


def _eight(text: str | bytes) -> Any:
    return np.frombuffer(text.encode("ascii") if isinstance(text, str) else text, dtype="<u8")[0]


def _limits(example: str) -> Any:
    return _eight(bytes(0x7F - 9 if sign == "0" else 0x7F for sign in example))


# So few digits that 2**20 times as much is still a number of 64 bits.
WHOLE = Spelling("0", range(1, 13))
DURATION = Spelling("0-00:00:00", [4, 5, 7, 8, *range(10, _WIDEST + 1)])


class Coded(NamedTuple):
    """A column as each word once, and the place of its word for each row."""

    words: Sequence[str]
    codes: Any

    def texts(self) -> Any:
        """The strings, one for each row."""
        return np.array(self.words, dtype=object)[self.codes]

    def values(self, read: Callable[[str], int | None]) -> Any:
        """A whole number for each row, each word read once."""
        numbers = [NOTHING if (found := read(word)) is None else found for word in self.words]
        return np.array(numbers, dtype="int64")[self.codes]


class Numbers(NamedTuple):
    """For each cell its digits, its length, and whether it has the spelling; else the first is anything."""

    digits: Any
    lengths: Any
    fits: Any


class Texts:
    """A column as a list or an array of strings."""

    def __init__(self, texts: Any) -> None:
        self._texts = texts

    def texts(self) -> Any:
        """The strings, one for each row."""
        return self._texts

    def coded(self) -> Coded:
        """Each word once."""
        codes, words = pd.factorize(np.array(self._texts, dtype=object))
        return Coded(list(words), codes)

    def numbers(self, spelling: Spelling) -> Numbers:
        """The cells that have this spelling, as their digits."""
        cells = [text.encode("utf-8", "backslashreplace") for text in self._texts]
        block = Block.of(b"".join(cells))
        lengths = np.array([*map(len, cells)], dtype="int64")
        ends = np.cumsum(lengths) + _WIDEST
        return Cells(block, ends - lengths - 1, ends).numbers(spelling)

    def rows(self, rows: Any) -> Texts:
        """Some of the cells."""
        return Texts(np.array(self._texts, dtype=object)[rows])


def cut(text: bytes, mark: str, width: int) -> tuple[list[Cells], int] | None:
    """The columns of the whole rows that a text begins with, and where the rest of it begins.

    None where any of it, up to its last line end, is something else than rows of one line each and of so many
    fields. Before each row there is a line end.
    """
    end = text.rfind(b"\n")
    if end <= 0 or not text.startswith(b"\n"):
        return None
    block = Block.of(text[: end + 1])
    first = _WIDEST + 1
    found = _ends(block.data[first : _WIDEST + end + 1], mark.encode(), width + 2)
    if found is None:
        return None
    ends = np.ascontiguousarray(found.T) + first
    return [Cells(block, ends[place], ends[place + 1]) for place in range(width)], end


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


class Block(NamedTuple):
    """Some rows as an array of bytes, and as a text with a character for each of them."""

    data: Any
    text: str

    @classmethod
    def of(cls, rows: bytes) -> Block:
        """With 16 bytes more at either end: cells are read eight bytes at a time."""
        whole = b"".join((bytes(_WIDEST), rows, bytes(_WIDEST)))
        return cls(np.frombuffer(whole, dtype="uint8"), whole.decode("latin-1"))


class Cells:
    """A column, by the places of its cells in the bytes of some rows.

    Args:
        block: The rows.
        before: For each cell the place of the byte before its first.
        ends: For each cell the place of the byte after its last.
    """

    def __init__(self, block: Block, before: Any, ends: Any) -> None:
        self._block = block
        self._before = before
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends)

    def texts(self) -> list[str]:
        """The strings, one for each row; bytes that are no UTF-8 as `\\xff`."""
        found = self._bytes()
        if all(map(str.isascii, found)):
            return found
        return [as_text(cell.encode("latin-1")) for cell in found]

    def coded(self) -> Coded:
        """Each word once. Cells are compared as numbers of eight bytes, long ones as text."""
        lengths = self._ends - self._before - 1
        codes, count = self._eight(0, lengths)
        for offset in range(8, min(int(lengths.max(initial=0)), _COMPARED + 1), 8):
            rows = np.flatnonzero(lengths > offset)
            some = self.rows(rows)
            more, factor = some._eight(offset, lengths[rows]) if offset < _COMPARED else some._end(offset)
            codes[rows] = count + codes[rows] * factor + more
            codes, found = pd.factorize(codes)
            count = len(found)
        example = np.empty(count, dtype="int64")
        example[codes] = np.arange(len(codes))
        return Coded(self.rows(example).texts(), codes)

    def numbers(self, spelling: Spelling) -> Numbers:
        """The cells that have this spelling, as their digits: eight of them in one number at a time."""
        lengths = np.minimum(self._ends - self._before - 1, _WIDEST + 1)
        longest = int(lengths.max(initial=0))
        digits, fits, place = np.uint64(0), spelling.has_length[lengths], self._ends
        for example, limits, lasts, weight in spelling.halves[: 1 if longest <= 8 else 2]:
            place = place - 8
            # Of the bytes that belong to the cell: nothing for the sign, 0 to 9 for a digit.
            values = (_from_each_byte(self._block.data, "<u8")[place] ^ example) & lasts[lengths]
            fits &= (((values & _LOW_BITS) + limits) | values) & _HIGH_BITS == 0
            digits = digits + _decimal(values) * weight
        return Numbers(digits.view("int64"), lengths, fits)

    def rows(self, rows: Any) -> Cells:
        """Some of the cells."""
        return Cells(self._block, self._before[rows], self._ends[rows])

    def _bytes(self) -> list[str]:
        """Each cell with a character for each of its bytes."""
        text = self._block.text
        starts, ends = (self._before + 1).tolist(), self._ends.tolist()
        return [text[start:end] for start, end in zip(starts, ends, strict=True)]

    def _eight(self, offset: int, lengths: Any) -> tuple[Any, int]:
        """Codes for the eight bytes from there on, as far as they belong to the cell; and how many codes."""
        numbers = _from_each_byte(self._block.data, "<u8")[self._before + 1 + offset]
        codes, found = pd.factorize(numbers & _FIRSTS[np.minimum(lengths - offset, 8)])
        return codes, len(found)

    def _end(self, offset: int) -> tuple[Any, int]:
        """Codes for all bytes from there on; and how many codes."""
        rest = Cells(self._block, self._before + offset, self._ends)._bytes()
        codes, found = pd.factorize(np.array(rest, dtype=object))
        return codes, len(found)


def _decimal(values: Any) -> Any:
    """Eight digits, one in each byte and the first one lowest, as a number: pairs, fours, all eight."""
    pairs = (values * 10 + (values >> 8)) & 0x00FF00FF00FF00FF
    fours = (pairs * 100 + (pairs >> 16)) & 0x0000FFFF0000FFFF
    return (fours * 10_000 + (fours >> 32)) & 0xFFFFFFFF
