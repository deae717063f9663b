"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from hpchub.logs import printable

_GAP = 2
_NARROWEST = 4


def table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Lines of aligned columns; the widest columns are cut until all fit."""
    if not rows:
        return []
    cells = [[printable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    while sum(widths) + _GAP * (len(widths) - 1) > width and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
    gap = " " * _GAP
    return [
        gap.join(_cut(cell, wide).ljust(wide) for cell, wide in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
