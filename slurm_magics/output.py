"""Text that a command or a job printed, shown as it is rather than as a quoted string."""

from __future__ import annotations

import codecs
import io
import sys
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


class Printed(Text):
    """Text that was shown as it came: the cell that it came in, by its number, shows it no second time."""

    __slots__ = ("_cell",)
    _cell: int

    def __new__(cls, text: str, cell: int = -1) -> Printed:
        """Without a number it is shown as any text."""
        printed = super().__new__(cls, text)
        printed._cell = cell
        return printed

    def _ipython_display_(self) -> None:
        """IPython's own hook."""
        from IPython import get_ipython
        from IPython.display import display

        shell = get_ipython()
        if shell is None or shell.execution_count != self._cell:
            display(Text(self))  # type: ignore[no-untyped-call]


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


class Live:
    """Shows what a command prints as it comes.

    `shown`: how many bytes of its standard error and output. `lost`: the streams that take no more, which
    is no reason to end the command.
    """

    def __init__(self) -> None:
        self.shown = {True: 0, False: 0}
        self.lost: set[bool] = set()
        self._decoders = {True: Decoder(), False: Decoder()}

    def __call__(self, piece: bytes, is_error: bool) -> None:
        """One more piece."""
        self._write(is_error, piece)
        if is_error not in self.lost:
            self.shown[is_error] += len(piece)

    def close(self) -> None:
        """Show what waited for more."""
        for is_error in self._decoders:
            self._write(is_error, b"", final=True)

    def _write(self, is_error: bool, piece: bytes, *, final: bool = False) -> None:
        stream = sys.stderr if is_error else sys.stdout
        text = self._decoders[is_error].decode(piece, final=final)
        if not text or is_error in self.lost:
            return
        encoding = getattr(stream, "encoding", None) or "utf-8"
        try:
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            stream.flush()
        except (OSError, ValueError):  # a pipe that nobody reads, a file that is closed
            self.lost.add(is_error)


def last_lines(text: str, count: int) -> str:
    """The last lines, each with its end."""
    if count <= 0:
        return ""
    lines = text.split("\n")  # splitlines() also cuts at what a progress bar writes
    ended = [f"{line}\n" for line in lines[:-1]]
    return "".join([*ended, *filter(None, lines[-1:])][-count:])
