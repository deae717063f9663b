"""Reads the audit log with all that was rotated away from it, and checks its chain."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpchub.chain import GENESIS, Head, Link, hash_of, head_path, link_of, read_head
from hpchub.errors import ConfigError

_LONGEST_LINE = 1024**2


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file, without its newline. `whole`: it has one."""

    file: Path
    place: int
    content: bytes
    whole: bool

    def __str__(self) -> str:
        return f"{self.file.name}:{self.place}"


@dataclass(slots=True, kw_only=True)
class Report:
    """What a check has found. The chain is whole where there is no fault."""

    records: int = 0
    unchained: int = 0
    first: int = 0
    last: Head | None = None
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def files_of(path: Path) -> list[Path]:
    """The log and its rotated files, oldest first: `NAME.1`, `NAME-20260131`, `NAME.1.gz` and the like.

    Raises:
        ConfigError: There is none, or one cannot be read.
    """
    others = {head_path(path), path}
    rotated = [one for one in path.parent.glob(f"{path.name}[.-]*") if one.is_file() and one not in others]
    ranked = sorted((_rank(one), str(one), one) for one in rotated)
    found = [one for _, _, one in ranked] + ([path] if path.exists() else [])
    if not found:
        raise ConfigError(f"There is no audit log at {path}.")
    return found


def lines_of(file: Path) -> Iterator[Line]:
    """The lines of one file, compressed or not. ConfigError where it cannot be read."""
    opened = gzip.open if file.suffix == ".gz" else Path.open
    try:
        with opened(file, "rb") as stream:
            place = 0
            while raw := stream.readline(_LONGEST_LINE):
                place += 1
                yield Line(file, place, raw.removesuffix(b"\n"), raw.endswith(b"\n"))
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"The audit log's file {file} cannot be read: {error}.") from error


def verify(path: Path, anchors: Mapping[int, str] | None = None) -> Report:
    """Walk the chain through all files.

    Args:
        path: The log; rotated files are found beside it.
        anchors: Hashes by the number of their line, as they were noted elsewhere.

    Raises:
        ConfigError: There is no log, or it cannot be read.
    """
    try:
        head = read_head(path)  # first: meanwhile the log may grow, but not shrink
    except OSError as error:
        raise ConfigError(f"The file {head_path(path)} cannot be read: {error.strerror}.") from error
    walk = _Walk(dict(anchors or {}))
    for file in files_of(path):
        walk.begin()
        for line in lines_of(file):
            walk.take(line)
    walk.end(head, path)
    return walk.report


class _Walk:
    """One pass from the oldest line to the newest."""

    def __init__(self, anchors: dict[int, str]) -> None:
        self.report = Report()
        self._anchors = anchors
        self._prefix = hashlib.sha256()
        self._prefix_lines = 0

    def begin(self) -> None:
        """The next file."""
        self._prefix, self._prefix_lines = hashlib.sha256(), 0

    def take(self, line: Line) -> None:
        """The next line."""
        link = link_of(line.content)
        if link is None:
            self._take_unchained(line)
            return
        report = self.report
        if report.last is None:
            self._take_first(line, link)
        elif link.number != report.last.number + 1:
            self._tell_gap(line, link, report.last)
        elif link.previous != report.last.hash:
            report.faults.append(
                f"{line}: the record before it, number {report.last.number}, is not the one written"
            )
        report.records += 1
        report.last = Head(link.number, hash_of(line.content))
        anchored = self._anchors.pop(link.number, report.last.hash)
        if anchored != report.last.hash:
            report.faults.append(f"{line}: number {link.number} is not the record that was anchored")

    def _take_unchained(self, line: Line) -> None:
        if self.report.last is not None:
            self.report.faults.append(f"{line}: a line that is in no chain")
            return
        self.report.unchained += 1
        self._prefix_lines += 1
        self._prefix.update(line.content + (b"\n" if line.whole else b""))

    def _take_first(self, line: Line, link: Link) -> None:
        report = self.report
        report.first = link.number
        expected = self._prefix.hexdigest() if self._prefix_lines else GENESIS
        if link.number == 1 and link.previous != expected:
            what = (
                "the lines from before the chain were changed"
                if self._prefix_lines
                else "something is missing"
            )
            report.faults.append(f"{line}: {what} before the first record")
        elif link.number > 1 and self._prefix_lines:
            report.faults.append(f"{line}: {self._prefix_lines} lines that are in no chain stand before it")
        elif link.number > 1:
            report.notes.append(f"Records 1 to {link.number - 1} are not here: their files are gone.")

    def _tell_gap(self, line: Line, link: Link, last: Head) -> None:
        if link.number > last.number + 1:
            self.report.faults.append(f"{line}: records {last.number + 1} to {link.number - 1} are missing")
        else:
            self.report.faults.append(f"{line}: number {link.number} stands after number {last.number}")

    def end(self, head: Head | None, path: Path) -> None:
        """There are no more lines."""
        report = self.report
        for number in self._anchors:
            report.faults.append(f"the anchored record {number} is missing")
        if report.unchained:
            report.notes.append(
                f"{report.unchained} older lines are in no chain: nothing vouches for their making."
            )
        if report.last is None:
            if head is not None:
                report.faults.append(f"all records up to number {head.number} are missing")
            return
        if head is None:
            report.faults.append(f"{head_path(path).name} is gone: records cut off at the end would not show")
        elif head.number > report.last.number:
            report.faults.append(f"records {report.last.number + 1} to {head.number} are missing at the end")
        elif head.number == report.last.number and head.hash != report.last.hash:
            report.faults.append(f"the last record, number {head.number}, is not the one written")


def _rank(file: Path) -> tuple[int, float]:
    """Files by their first number in the chain; those from before it first, by age."""
    for line in lines_of(file):
        link = link_of(line.content)
        return (link.number, 0.0) if link else (0, file.stat().st_mtime)
    return (0, file.stat().st_mtime)
