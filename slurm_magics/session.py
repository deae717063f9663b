"""What all magics of one kernel share: how commands are run, what was answered a moment ago, settings."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hpchub.core.command import Command, CommandResult
from hpchub.errors import UnexpectedOutput
from slurm_magics.delimited import new_mark
from slurm_magics.errors import SlurmError, refused, translated
from slurm_magics.queries import TableQuery, plan

if TYPE_CHECKING:
    import pandas as pd

_LOCALTIME = Path("/etc/localtime")


@dataclass(slots=True)
class Settings:
    """What `%slurm` shows and changes."""

    display: str = "frames"
    fresh_s: float = 3.0
    timeout_s: float = 60.0
    templates: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command printed."""

    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """Its standard output; bytes that are no UTF-8 are shown as `\\xff`."""
        return self.stdout.decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class _Known:
    """An answer of a moment ago. The frame is made anew each time: people change theirs."""

    query: TableQuery | None
    answer: Answer
    asked: float


class Session:
    """One kernel's. Its methods may be called from several threads."""

    def __init__(self) -> None:
        self.settings = Settings()
        self._known: dict[tuple[object, ...], _Known] = {}
        self._lock = threading.Lock()

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        environ: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        endless: bool = False,
    ) -> Answer:
        """Run a command to its end. `endless` lifts the time limit of the settings.

        Raises:
            SlurmError: It is not there, took too long, or ended with an exit code other than zero.
        """
        done = self._done(argv, stdin.encode("utf-8", "surrogateescape"), environ, cwd, endless)
        stderr = done.stderr.decode("utf-8", "backslashreplace")
        if done.returncode:
            raise refused(argv[0], done.returncode, done.stdout.decode("utf-8", "backslashreplace"), stderr)
        return Answer(done.stdout, stderr)

    def result(self, command: Command) -> CommandResult:
        """What a command of hpchub's schedulers left; their parsers know what a failure means."""
        done = self._done(command.argv, command.stdin, None, None, endless=False)
        stdout, stderr = (text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
        return CommandResult(exit_code=done.returncode, stdout=stdout, stderr=stderr)

    def _done(
        self,
        argv: Sequence[str],
        stdin: bytes,
        environ: Mapping[str, str | None] | None,
        cwd: Path | None,
        endless: bool,
    ) -> subprocess.CompletedProcess[bytes]:
        limit = None if endless else self.settings.timeout_s
        variables = {**os.environ, **(environ or {})}
        try:
            return subprocess.run(
                tuple(argv),
                input=stdin,
                capture_output=True,
                env={name: value for name, value in variables.items() if value is not None},
                cwd=cwd,
                timeout=limit,
                check=False,
            )
        except FileNotFoundError as error:
            if cwd is not None and not cwd.is_dir():
                raise SlurmError(f"The folder {cwd} is gone.") from error
            raise SlurmError(
                f"There is no {argv[0]} on this machine's PATH.",
                "Run the notebook on a login node or in a job of the cluster, or load Slurm's module.",
            ) from error
        except subprocess.TimeoutExpired as error:
            raise SlurmError(
                f"{argv[0]} has not answered within {limit:g} s.",
                "Slurm may be slow or away; %slurm timeout 300 waits longer.",
            ) from error

    def table(self, tool: str, words: Sequence[str]) -> pd.DataFrame | str:
        """What squeue, sinfo or sacct answers; the same question again within seconds is not asked again.

        Raises:
            SlurmError: As `run`, and where the answer is no table.
        """
        formats = tuple(os.environ.get(f"{tool.upper()}_{name}") for name in ("FORMAT", "FORMAT2"))
        key = (tool, tuple(words), self.settings.display, formats)
        with self._lock:
            oldest = time.monotonic() - self.settings.fresh_s
            self._known = {known: one for known, one in self._known.items() if one.asked > oldest}
            if key not in self._known:
                self._known[key] = self._ask(tool, words)
            known = self._known[key]
        return self._read(known.query, known.answer) if known.query else known.answer.text

    def _ask(self, tool: str, words: Sequence[str]) -> _Known:
        is_frame = self.settings.display == "frames"
        query = plan(tool, words, os.environ, new_mark()) if is_frame else None
        answer = self.run(query.argv, environ=query.environ) if query else self.run((tool, *words))
        _show(answer.stderr)
        return _Known(query, answer, time.monotonic())

    def frame(self, query: TableQuery) -> pd.DataFrame:
        """Run a query now and read it.

        Raises:
            SlurmError: As `run`, and where the answer is no table.
        """
        answer = self.run(query.argv, environ=query.environ)
        _show(answer.stderr)
        return self._read(query, answer)

    @staticmethod
    def _read(query: TableQuery, answer: Answer) -> pd.DataFrame:
        try:
            frame, notices = query.frame(answer.stdout, local_zone())
        except UnexpectedOutput as error:
            raise translated(error) from error
        _show("\n".join(notices))
        return frame

    def forget(self) -> None:
        """Forget what was answered: something has been changed."""
        with self._lock:
            self._known.clear()


def local_zone() -> tzinfo:
    """This machine's time zone: of TZ, else of /etc/localtime; UTC where neither has a name."""
    name = os.environ.get("TZ", "").removeprefix(":")
    if not name and _LOCALTIME.is_symlink():
        name = str(_LOCALTIME.readlink()).partition("zoneinfo/")[2]
    try:
        return ZoneInfo(name) if name else UTC
    except (ZoneInfoNotFoundError, ValueError):
        return UTC


def _show(notices: str) -> None:
    """What a command says beside its answer stays visible, and breaks nothing."""
    if notices.strip():
        print(notices.strip(), file=sys.stderr)
