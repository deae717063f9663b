"""`%%sbatch --python`: a cell goes to a job with the variables that it uses, and its value comes back."""

from __future__ import annotations

import contextlib
import json
import pickle
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from IPython.core.autocall import IPyAutocall

from slurm_magics import python_runner
from slurm_magics.cell_names import CellNames, names_of
from slurm_magics.errors import SlurmError
from slurm_magics.words import told

_OURS = Path("~/.slurm_magics/python")
_KEPT_S = 30 * 24 * 3600
# A shared file system may show a new file some seconds late.
_LATE_S = 15.0


@dataclass(frozen=True, slots=True)
class PythonCell:
    """A cell that is packed. `folder` must be one that compute nodes see, too."""

    folder: Path
    directives: tuple[str, ...]
    cell: str = field(repr=False)
    names: bytes = field(repr=False)

    @property
    def script(self) -> str:
        """The batch script, without its first line."""
        argv = (sys.executable, python_runner.__file__, str(self.folder))
        return "".join(f"{line}\n" for line in (*self.directives, f"exec {shlex.join(argv)}"))

    def store(self) -> None:
        """Write what the job needs, for nobody else to read; take away what is a month old.

        Raises:
            SlurmError: It cannot be written, and nothing of it is left.
        """
        home = self.folder.parent
        paths = [str(Path.cwd()), *(path for path in sys.path if path and isinstance(path, str))]
        try:
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            _clear(home)
            self.folder.mkdir(mode=0o700)
            (self.folder / "cell.py").write_text(self.cell, encoding="utf-8")
            (self.folder / "names.pickle").write_bytes(self.names)
            (self.folder / "path.json").write_text(json.dumps(paths), encoding="utf-8")
        except OSError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise SlurmError(
                f"What the job needs cannot be written to {home}: {error.strerror}.",
                "Your home folder may be full or read-only. Nothing was submitted.",
            ) from error


def _clear(home: Path) -> None:
    """Take away what is a month old; another notebook may do so at this moment."""
    for old in home.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > _KEPT_S:
                shutil.rmtree(old, ignore_errors=True)


def pack(cell: str, names: Mapping[str, Any]) -> PythonCell:
    """The cell with what it uses of the notebook's variables.

    Raises:
        SlurmError: It is no Python, or uses what is not there or cannot travel; the message names it.
    """
    try:
        import cloudpickle
    except ImportError as error:
        raise SlurmError(
            "%%sbatch --python needs cloudpickle.", "Install it beside slurm_magics: pip install cloudpickle"
        ) from error
    found = _names(cell)
    if unknown := sorted(found.needed - set(names)):
        raise SlurmError(
            f"The cell uses {', '.join(unknown)}, and neither it nor the notebook has that.",
            "The job could only fail. Run the cell that makes it first.",
        )
    wanted = {name: names[name] for name in sorted(found.used) if name in names}
    # IPython's own exit and quit end a notebook; the job has Python's.
    wanted = {name: value for name, value in wanted.items() if not isinstance(value, IPyAutocall)}
    for name, value in list(wanted.items()):
        try:
            cloudpickle.dumps(value)
        except Exception as error:
            if name in found.made:
                del wanted[name]
                continue
            raise SlurmError(
                f"{name}, of type {type(value).__name__}, cannot travel to the job: {told(error)}.",
                "Make it in the cell itself: open files, connections, locks and generators cannot leave.",
            ) from error
    # Where the code begins they end, as in a script.
    head = takewhile(lambda line: not line.strip() or line.startswith("#"), cell.splitlines())
    return PythonCell(
        folder=_OURS.expanduser() / secrets.token_hex(8),
        directives=tuple(line for line in head if line.startswith("#SBATCH")),
        cell=cell,
        names=cloudpickle.dumps(wanted),
    )


def _names(cell: str) -> CellNames:
    """What the cell uses and makes.

    Raises:
        SlurmError: It is no Python.
    """
    try:
        return names_of(cell)
    except SyntaxError as error:
        raise SlurmError(f"The cell is no Python: {error.msg} (line {error.lineno}).") from error
    except (ValueError, RecursionError, MemoryError) as error:  # a zero byte; far too deep
        raise SlurmError(f"The cell is no Python: {told(error)}.") from error


def load(folder: Path, job_id: str, why: str = "") -> Any:
    """The value that a job left. `why` says how it ended, for a job that left none.

    Raises:
        SlurmError: It left none, or one that cannot be read here.
        Exception: What the cell raised, with the job's traceback as a note.
    """
    path = folder / python_runner.result_name(job_id)
    deadline = time.monotonic() + _LATE_S
    while not _is_there(path):
        if time.monotonic() > deadline:
            raise SlurmError(f"Job {job_id} left no result. {why}".strip(), "job.tail() shows what it wrote.")
        time.sleep(0.2)
    try:
        found = pickle.loads(path.read_bytes())  # noqa: S301  only its owner can write it
        if "value" in found:
            return pickle.loads(found["value"])  # noqa: S301  likewise theirs
    except Exception as error:
        raise SlurmError(f"The result of job {job_id} cannot be read here: {told(error)}") from error
    if "exception" not in found:
        raise SlurmError(f"Job {job_id} left no result. {found['error']}")
    try:
        raised: Any = pickle.loads(found["exception"])  # noqa: S301  as above
    except Exception as error:  # many exceptions cannot: those that want more than their words
        raise SlurmError(
            f"The cell of job {job_id} failed, and its exception cannot be made here: {told(error)}.\n"
            f"{found['error']}"
        ) from error
    words = f"In job {job_id}:\n{found['error']}"
    raised.add_note(words)
    with contextlib.suppress(AttributeError):  # of a class that takes none, IPython shows our lines as well
        raised._render_traceback_ = words.splitlines
    raise raised


def _is_there(path: Path) -> bool:
    """Whether a file is listed in its folder: asked for by its name, a shared file system may err."""
    try:
        return path in path.parent.iterdir()
    except OSError as error:
        raise SlurmError(f"{path.parent} cannot be read: {error.strerror}.") from error
