"""Text that a command or a job printed, shown as it is rather than as a quoted string."""

from __future__ import annotations

import codecs
import io
from typing import Protocol


class Printer(Protocol):
    """What IPython gives to `_repr_pretty_`."""

    def text(self, text: str) -> None:
        """Write."""


class Text(str):
    """A string that IPython prints plainly. Otherwise a string like any other."""

    __slots__ = ()

    def _repr_pretty_(self, printer: Printer, cycle: bool) -> None:
        printer.text(self.rstrip("\n"))


class Decoder:
    """Bytes that come in pieces, as text with line ends as Python has them.

    Bytes that are no UTF-8 are shown as `\\xff`; a character or a line end that a piece ends in the middle of
    waits for the next one.
    """

    def __init__(self) -> None:
        utf8 = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._ends = io.IncrementalNewlineDecoder(utf8, translate=False)

    def decode(self, piece: bytes, *, final: bool = False) -> str:
        """The text of one more piece; of all that is left, where it is the final one."""
        return self._ends.decode(piece, final).replace("\r\n", "\n")


def last_lines(text: str, count: int) -> str:
    """The last lines, each with its end."""
    if count <= 0:
        return ""
    lines = text.split("\n")  # splitlines() also cuts at what a progress bar writes
    ended = [f"{line}\n" for line in lines[:-1]]
    return "".join([*ended, *filter(None, lines[-1:])][-count:])
