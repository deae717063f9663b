"""A file of JSON lines in which each line carries the hash of the one before it.

Each line ends with `"number"`, one more than the line before, and `"previous"`, the SHA-256 of the line
before in hexadecimal. Beside the file is `NAME.head`, with number and hash of the newest line: it is
the lock that writers share, carries the chain over a rotation, and shows where a tail was cut off.
docs/explanation/audit.md says what such a chain can show, and what it cannot.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

GENESIS = "0" * 64

_HEAD_BYTES = 128  # one length, so that it is written over in place
_TAIL_BYTES = 64 * 1024  # more than any line is long


@dataclass(frozen=True, slots=True)
class Head:
    """The newest line of a chain."""

    number: int
    hash: str


@dataclass(frozen=True, slots=True)
class Link:
    """What a line says of itself: its number, and the hash of the line before."""

    number: int
    previous: str


START = Head(0, GENESIS)


def hash_of(line: bytes) -> str:
    """What the next line says of this one; without its newline."""
    return hashlib.sha256(line).hexdigest()


def link_of(line: bytes) -> Link | None:
    """A line's place in the chain; None where it has none."""
    try:
        body = json.loads(line)
        number, previous = body["number"], body["previous"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    good = type(number) is int and number > 0 and isinstance(previous, str) and len(previous) == len(GENESIS)
    return Link(number, previous) if good else None


def head_path(path: Path) -> Path:
    """The file beside a chain's file."""
    return path.with_name(path.name + ".head")


def read_head(path: Path) -> Head | None:
    """What is written beside a chain's file; None where nothing is, or nothing that can be read."""
    try:
        return _parse_head(head_path(path).read_bytes())
    except FileNotFoundError:
        return None


class Chain:
    """Appends to one file, of mode 0600. Several threads and processes may, each with a Chain of its own.

    The file is opened anew each time, so it may be rotated by renaming it, at any time.
    """

    def __init__(self, path: Path, rotate_bytes: int = 0) -> None:
        """`rotate_bytes`: rename the file once it is as long; 0 leaves that to others."""
        self.path = path
        self._rotate_bytes = rotate_bytes
        self._known: tuple[bytes, int, int] | None = None  # the head as written, the file's inode and size

    def append(self, texts: Sequence[str]) -> list[bytes]:
        """Write JSON objects as the next lines, all or none; they are on the disk when this returns.

        Returns:
            The lines, without their newlines.

        Raises:
            OSError: They could not be written.
        """
        with self._locked() as lock:
            descriptor = self._open()
            try:
                head, size = self._find_head(lock, descriptor)
                if self._rotate_bytes and size >= self._rotate_bytes:
                    os.close(descriptor)
                    descriptor = -1
                    self.path.rename(self.path.with_name(f"{self.path.name}.{head.number:020d}"))
                    descriptor, size = self._open(), 0
                lines, head = _linked(texts, head)
                self._write(descriptor, size, lines)
                self._keep_head(lock, descriptor, head)
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
        return lines

    def check(self) -> None:
        """Open both files as `append` will. OSError where that cannot be done."""
        with self._locked():
            os.close(self._open())

    @contextmanager
    def _locked(self) -> Iterator[int]:
        descriptor = _open_own(head_path(self.path))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        return _open_own(self.path, os.O_APPEND)

    def _find_head(self, lock: int, descriptor: int) -> tuple[Head, int]:
        """The line to go on from, and the file's size. Reads the file only where it is not as we left it."""
        kept = os.pread(lock, _HEAD_BYTES, 0)
        status = os.fstat(descriptor)
        head = _parse_head(kept)
        if head is not None and self._known == (kept, status.st_ino, status.st_size):
            return head, status.st_size
        size, last = _last_line(descriptor, status.st_size)
        link = link_of(last)
        if link is not None and (head is None or link.number > head.number):
            return Head(link.number, hash_of(last)), size  # its writer ended before it could keep the head
        if head is not None:
            return head, size  # where a tail was cut off, the gap stays to be seen
        return (Head(0, _hash_of_file(descriptor, size)) if size else START), size

    def _write(self, descriptor: int, size: int, lines: Sequence[bytes]) -> None:
        data = b"".join(line + b"\n" for line in lines)
        try:
            written = os.write(descriptor, data)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
        if written != len(data):
            os.ftruncate(descriptor, size)  # what was half written was granted to nobody
            raise OSError(f"{self.path}: a record was cut short")
        os.fsync(descriptor)
        if not size:
            _sync_folder(self.path.parent)  # the new file's own name

    def _keep_head(self, lock: int, descriptor: int, head: Head) -> None:
        content = (
            json.dumps({"number": head.number, "hash": head.hash}).encode().ljust(_HEAD_BYTES - 1) + b"\n"
        )
        if os.pwrite(lock, content, 0) != len(content):
            raise OSError(f"{head_path(self.path)} was cut short")
        status = os.fstat(descriptor)
        self._known = (content, status.st_ino, status.st_size)


def _linked(texts: Sequence[str], head: Head) -> tuple[list[bytes], Head]:
    lines = []
    for text in texts:
        line = f'{text[:-1]}, "number": {head.number + 1}, "previous": "{head.hash}"}}'.encode("ascii")
        lines.append(line)
        head = Head(head.number + 1, hash_of(line))
    return lines, head


def _open_own(path: Path, more: int = 0) -> int:
    # O_NONBLOCK: a named pipe in the file's place would otherwise block us for ever.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | more
    descriptor = os.open(path, flags, 0o600)
    status = os.fstat(descriptor)
    # Auditors may be let in to read by the site; nobody else may write.
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        os.close(descriptor)
        raise PermissionError(f"{path} is no file of our own that only we may write")
    return descriptor


def _parse_head(content: bytes) -> Head | None:
    try:
        body = json.loads(content)
        return Head(int(body["number"]), str(body["hash"]))
    except (ValueError, LookupError, TypeError):
        return None


def _last_line(descriptor: int, size: int) -> tuple[int, bytes]:
    """The file's size without a line that a crash cut short, which goes; and the last whole line."""
    start = max(0, size - _TAIL_BYTES)
    tail = os.pread(descriptor, size - start, start)
    whole, newline, fragment = tail.rpartition(b"\n")
    if fragment and (newline or not start):
        size -= len(fragment)
        os.ftruncate(descriptor, size)
    return size, whole.rpartition(b"\n")[2]


def _hash_of_file(descriptor: int, size: int) -> str:
    """Of lines from before there was a chain: its first line vouches for them all."""
    digest = hashlib.sha256()
    for start in range(0, size, 1024**2):
        digest.update(os.pread(descriptor, min(1024**2, size - start), start))
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
