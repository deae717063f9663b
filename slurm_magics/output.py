"""Text that a command printed, shown as it is rather than as a quoted string."""

from __future__ import annotations

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
