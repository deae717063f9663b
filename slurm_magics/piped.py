"""What sacctmgr, sreport, sshare and sstat print, cut into columns. No input or output.

They know no delimiter but the pipe, and the names and descriptions in their tables may hold pipes and line
ends. So each field is asked for twice in a row, all of them and then all of them again. A pipe inside of a
field makes its line too long. So does a line end: what a line of the right length has before the first copy
of the text, and more, the line that the second copy begins has, too, and so that one is longer. Where every
line has the right length, no field holds a pipe or a line end, and no row is forged.

Where one has not, the same is asked in columns of a fixed width, which may hold anything.
"""

from __future__ import annotations

import re
from itertools import pairwise

from hpchub.errors import UnexpectedOutput
from slurm_magics.delimited import CLUSTER, Table, spread_clusters, unique
from slurm_magics.done import as_text

# Wider than any text that people give such things; what does not fit is an error.
WIDTH = 1000
# In 20.11 a column has 53 dashes at most, and they and its heading stand at the column's right end.
_RULER = re.compile(rb"^(?: *-+ )+\n", re.MULTILINE)
_DASHES = re.compile(rb" *-+(?= )")


def parse_piped(tool: str, text: str, twice: int) -> Table | None:
    """The table, without the second copies; None where a row might not be what it seems.

    Args:
        tool: The command, for errors.
        text: What it printed with `--parsable`.
        twice: How many fields were asked for twice, before any others.

    Raises:
        UnexpectedOutput: There are no headings, or the text is cut in the middle of a row.
    """
    lines = text.split("\n")
    first = next((place for place, line in enumerate(lines) if _is_head(line, twice)), -1)
    if first < 0:
        raise UnexpectedOutput(tool, text[:80] or "nothing at all")
    if lines[-1]:
        raise UnexpectedOutput(tool, f"…{text[-80:]}")
    head = lines[first]
    width = head.count("|")
    rows: list[list[str]] = []
    names: dict[int, str] = {}
    place = first - 1 if first and lines[first - 1].startswith(CLUSTER) else first
    notices = lines[:place]
    while place < len(lines) - 1:
        line = lines[place]
        if line.startswith(CLUSTER) and lines[place + 1] == head:
            names[len(rows)] = line.removeprefix(CLUSTER).strip()
            place += 2
            continue
        fields = line.split("|")
        if len(fields) != width + 1 or fields[-1] or fields[:twice] != fields[twice : 2 * twice]:
            return None
        if place != first:
            rows.append(fields)
        place += 1
    return Table(
        headings=unique([heading.strip() for heading in head.split("|")[twice:-1]]),
        columns=tuple([row[column] for row in rows] for column in range(twice, width)),
        rows=len(rows),
        clusters=spread_clusters(names, len(rows)) if names else None,
        notices=tuple(line for line in notices if line.strip()),
    )


def _is_head(line: str, twice: int) -> bool:
    fields = line.split("|")
    return (
        len(fields) > 1
        and not fields[-1]
        and fields[:twice] == fields[twice : 2 * twice]
        and all(fields[:-1])
    )


def parse_wide(tool: str, answer: bytes) -> Table:
    """The table in columns of a fixed width, counted in bytes, under a ruler of dashes.

    Raises:
        UnexpectedOutput: There is no ruler, a row is no row, or a text has not had room.
    """
    ruler = _RULER.search(answer)
    if not ruler:
        raise UnexpectedOutput(tool, as_text(answer[:80]))
    dashes = ruler[0]
    widths = _widths(dashes)
    before, head = answer[: ruler.start() - len(dashes)], answer[ruler.start() - len(dashes) : ruler.start()]
    notices = [line for line in as_text(before).split("\n") if line.strip()]
    names: dict[int, str] = {}
    if notices and notices[-1].startswith(CLUSTER):
        names[0] = notices.pop().removeprefix(CLUSTER).strip()
    rows: list[list[str]] = []
    place = ruler.end()
    while place < len(answer):
        end = answer.find(b"\n", place) + 1
        if answer.startswith(CLUSTER.encode(), place) and answer.startswith(head + dashes, end):
            names[len(rows)] = as_text(answer[place:end]).removeprefix(CLUSTER).strip()
            place = end + len(head + dashes)
            continue
        rows.append(_cells(tool, answer[place : place + len(dashes)], widths))
        place += len(dashes)
    return Table(
        headings=unique([heading.strip() for heading in _cells(tool, head, widths)]),
        columns=tuple([row[column] for row in rows] for column in range(len(widths))),
        rows=len(rows),
        clusters=spread_clusters(names, len(rows)) if names else None,
        notices=tuple(notices),
    )


def _widths(ruler: bytes) -> list[int]:
    """How wide each column is, without the blank between it and the next."""
    ends = [-1, *(dashes.end() for dashes in _DASHES.finditer(ruler))]
    return [end - before - 1 for before, end in pairwise(ends)]


def _cells(tool: str, row: bytes, widths: list[int]) -> list[str]:
    cells, place = [], 0
    for width in widths:
        cell = row[place : place + width]
        place += width + 1
        if row[place - 1 : place] != b" " or (len(cell.rstrip()) == width >= WIDTH and cell.endswith(b"+")):
            raise UnexpectedOutput(tool, as_text(row.strip()[:80]))
        # Slurm puts what it writes itself to the right, of texts only the end is padded.
        cells.append(as_text(cell.rstrip(b" ") if width >= WIDTH else cell.strip(b" ")))
    if row[place:] != b"\n":
        raise UnexpectedOutput(tool, as_text(row.strip()[:80]))
    return cells
