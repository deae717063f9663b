"""Where Slurm's commands are run and files are read: this machine, or another one over SSH."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, tzinfo
from pathlib import Path, PurePath
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from slurm_magics.done import MOST_BYTES, Done, Show, Take, too_long, too_slow
from slurm_magics.errors import SlurmError
from slurm_magics.local_process import run_here

_LOCALTIME = Path("/etc/localtime")


class Machine(Protocol):
    """A login node, a compute node, or a way to one. May be used from several threads."""

    @property
    def name(self) -> str:
        """What people call it; empty for the machine that the notebook runs on."""

    @property
    def environ(self) -> Mapping[str, str]:
        """The person's variables there, as far as they matter to a table: SQUEUE_FORMAT and the like."""

    @property
    def zone(self) -> tzinfo:
        """Its time zone."""

    @property
    def folder(self) -> PurePath:
        """Where commands are run, unless they are told otherwise. SlurmError where it is gone."""

    def expanded(self, word: str) -> str:
        """A word that begins with `~`, with the home folder in its place."""

    def path(self, text: str) -> PurePath:
        """A path there: one that can be opened, where it is this machine's."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        environ: Mapping[str, str | None] | None = None,
        cwd: PurePath | None = None,
        limit_s: float | None = None,
        show: Show | None = None,
        take: Take | None = None,
    ) -> Done:
        """Run a command to its end. None as a variable's value takes it out of the environment.

        Raises:
            SlurmError: It is not there, took too long or said too much, the folder is gone, or the machine is
                out of reach.
            Cut: Somebody pressed Ctrl-C. It has been ended.
        """

    def read(self, path: PurePath, start: int = 0) -> tuple[bytes, int] | None:
        """What stands in a file from that byte on, and the byte where it ends. None: there is no file.

        A negative start counts from the end. One behind the end begins at 0: the file was written anew.

        Raises:
            SlurmError: It cannot be read, or is too long.
        """

    def close(self) -> None:
        """Give back what is held."""


class Local:
    """The machine that the notebook runs on."""

    name = ""

    @property
    def environ(self) -> Mapping[str, str]:
        return os.environ

    @property
    def zone(self) -> tzinfo:
        link = str(_LOCALTIME.readlink()) if _LOCALTIME.is_symlink() else ""
        return zone_of(os.environ.get("TZ", ""), link)

    @property
    def folder(self) -> Path:
        try:
            return Path.cwd()
        except FileNotFoundError as error:
            raise SlurmError(
                "The folder that the notebook works in is gone.", "%cd leads to another one."
            ) from error

    def expanded(self, word: str) -> str:
        return os.path.expanduser(word)  # noqa: PTH111  pathlib fails where there is no such user

    def path(self, text: str) -> Path:
        return Path(text)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        environ: Mapping[str, str | None] | None = None,
        cwd: PurePath | None = None,
        limit_s: float | None = None,
        show: Show | None = None,
        take: Take | None = None,
    ) -> Done:
        variables = {**os.environ, **(environ or {})}
        try:
            return run_here(
                tuple(argv),
                stdin,
                limit_s,
                show,
                take,
                env={name: value for name, value in variables.items() if value is not None},
                cwd=cwd,
            )
        except OSError as error:
            raise _unstarted(argv[0], cwd, error) from error
        except subprocess.TimeoutExpired as error:
            raise too_slow(argv[0], limit_s or 0.0) from error

    def read(self, path: PurePath, start: int = 0) -> tuple[bytes, int] | None:
        try:
            with Path(path).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                place = file.seek(begin(start, size))
                if size - place > MOST_BYTES:
                    raise too_long(path, size - place)
                content = file.read(size - place)
                return content, place + len(content)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SlurmError(f"{path} cannot be read: {error.strerror}") from error

    def close(self) -> None:
        return None


def _unstarted(tool: str, cwd: PurePath | None, error: OSError) -> SlurmError:
    """Why a command cannot be started."""
    if cwd is not None and not Path(cwd).is_dir():
        return SlurmError(f"The folder {cwd} is gone.")
    if isinstance(error, FileNotFoundError):
        return SlurmError(
            f"There is no {tool} on this machine's PATH.",
            "Run the notebook on a login node or in a job of the cluster, or load Slurm's module; "
            "%slurm connect HOST reaches a cluster from elsewhere.",
        )
    hint = "Ask about fewer at a time." if error.errno == errno.E2BIG else ""
    return SlurmError(f"{tool} cannot be started: {error.strerror}.", hint)


def begin(start: int, size: int) -> int:
    """The byte at which `Machine.read` begins."""
    return max(0, size + start) if start < 0 else start if start <= size else 0


def zone_of(tz: str, localtime: str) -> tzinfo:
    """The time zone of a TZ variable, else of what /etc/localtime links to; UTC where neither has a name."""
    name = tz.removeprefix(":") or localtime.partition("zoneinfo/")[2]
    try:
        return ZoneInfo(name) if name else UTC
    except (ZoneInfoNotFoundError, ValueError):
        return UTC
