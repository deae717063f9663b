"""Which kernels a job is for, and which notebook server each belongs to.

A job's folder holds `record.json` and, for each kernel, `kernel-ID.json` beside a lock. Whoever holds the
lock is the kernel's notebook server; a server that died holds none, and the next one may take its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from io import BufferedWriter
from pathlib import Path
from typing import Any

from hpchub.errors import ConfigError
from hpchub.private_files import make_private_folder, write_private_file

RECORD = "record.json"

# A minute: longer than sbatch takes.
_TURN_TRIES, _TURN_PAUSE_S = 600, 0.1
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """What a kernel was started for: only the same kernel of the same notebook may go on with it."""

    kernel: str
    notebook: str
    settings: str


class Claim:
    """One kernel in one job's folder, ours as long as we hold its lock."""

    def __init__(self, folder: Path, kernel_id: str, lock: BufferedWriter | None) -> None:
        self.folder = folder
        self.kernel_id = kernel_id
        self.is_left = False
        self._lock = lock

    def leave(self) -> None:
        """Lets the next notebook server have the kernel, or another request of this one's."""
        self.is_left = True
        if self._lock is not None:
            self._lock.close()

    def withdraw(self) -> None:
        """The kernel is no more. After the job's last one the folder is gone as well."""
        _claim_path(self.folder, self.kernel_id).unlink(missing_ok=True)
        self.leave()
        _lock_path(self.folder, self.kernel_id).unlink(missing_ok=True)
        if not self.has_others():
            shutil.rmtree(self.folder, ignore_errors=True)

    def has_others(self) -> bool:
        """Whether the job has other kernels."""
        own = _claim_path(self.folder, self.kernel_id)
        return any(path != own for path in self.folder.glob("kernel-*.json"))


def kernels_folder() -> Path:
    """Where the folders of kernels' jobs are."""
    return Path.home() / ".hpchub" / "kernels"


def make_kernels_folder() -> Path:
    """The same, private. ConfigError where the home cannot be written."""
    folder = kernels_folder()
    try:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"The folder {folder.parent} cannot be made: {error.strerror}.") from error
    make_private_folder(folder)
    return folder


def new_folder() -> Path:
    """A job's folder, private. ConfigError where the home cannot be written."""
    folder = make_kernels_folder() / uuid.uuid4().hex
    make_private_folder(folder)
    return folder


def claim(folder: Path, purpose: Purpose) -> Claim:
    """A new kernel in a job's folder."""
    kernel_id = uuid.uuid4().hex
    lock = locked(_lock_path(folder, kernel_id))
    content = json.dumps(asdict(purpose)).encode()
    write_private_file(_claim_path(folder, kernel_id), content, replace=False)
    return Claim(folder, kernel_id, lock)


def orphan(purpose: Purpose) -> tuple[Claim, str] | None:
    """A kernel of the same purpose whose notebook server is gone, now ours, and its job's id."""
    for folder, record in records():
        for path in sorted(folder.glob("kernel-*.json")):
            if _read(path) != asdict(purpose):
                continue
            kernel_id = path.stem.removeprefix("kernel-")
            lock = locked(_lock_path(folder, kernel_id))
            if lock is not None:
                return Claim(folder, kernel_id, lock), str(record["job"])
    return None


def abandoned() -> Iterator[tuple[Path, str]]:
    """The folders and ids of jobs none of whose kernels has a notebook server."""
    for folder, record in records():
        if not _is_held(folder):
            yield folder, str(record["job"])


def notebooks(folder: Path) -> list[str]:
    """The notebooks that a job's kernels were started for; a kernel without one by its kernelspec's name."""
    claims = [_read(path) for path in sorted(folder.glob("kernel-*.json"))]
    return [str(one.get("notebook") or Path(str(one.get("kernel"))).name) for one in claims if one]


def records() -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folders of jobs that were submitted, with what is known of them."""
    for path in sorted(kernels_folder().glob(f"*/{RECORD}")):
        record = _read(path)
        if "job" in record:
            yield path.parent, record


def unsubmitted() -> Iterator[Path]:
    """Old folders without a job, and nobody's: of notebook servers that died while they asked for one."""
    for folder in sorted(kernels_folder().glob("*/")):
        with contextlib.suppress(FileNotFoundError):
            is_old = time.time() - folder.stat().st_mtime > _HOUR_S
            if is_old and not (folder / RECORD).exists() and not _is_held(folder):
                yield folder


def locked(path: Path) -> BufferedWriter | None:
    """A lock; None where another process has it, or the file system knows no locks."""
    try:
        file = path.open("ab")
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


@contextlib.asynccontextmanager
async def turn(share: str) -> AsyncIterator[None]:
    """One after the other, so that two kernels that are started together do not submit two jobs."""
    if not share:
        yield
        return
    path = make_kernels_folder() / f"share-{share}.lock"
    for _ in range(_TURN_TRIES):
        lock = locked(path)
        if lock is not None:
            break
        await asyncio.sleep(_TURN_PAUSE_S)
    try:
        yield
    finally:
        if lock is not None:
            lock.close()


def _is_held(folder: Path) -> bool:
    """Whether a kernel in it has a notebook server."""
    held = [locked(path) for path in folder.glob("kernel-*.lock")]
    for lock in held:
        if lock is not None:
            lock.close()
    return None in held


def _read(path: Path) -> dict[str, Any]:
    """Empty where it has been removed since it was listed, or is none of ours."""
    with contextlib.suppress(OSError, ValueError):
        body = json.loads(path.read_text(encoding="utf-8"))
        return body if isinstance(body, dict) else {}
    return {}


def _claim_path(folder: Path, kernel_id: str) -> Path:
    return folder / f"kernel-{kernel_id}.json"


def _lock_path(folder: Path, kernel_id: str) -> Path:
    return folder / f"kernel-{kernel_id}.lock"
