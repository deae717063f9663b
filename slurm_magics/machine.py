"""Where Slurm's commands are run and files are read: this machine, or another one over SSH."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from pathlib import Path, PurePath
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from slurm_magics.errors import SlurmError

# Slurm's own wait for the end of a step that is told to end is 32 s.
_CANCELS_WITHIN_S = 40.0
MAY_BE_QUEUED = "The job may be in the queue all the same: look with %squeue --me before trying again."
_LOCALTIME = Path("/etc/localtime")


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left: its exit code and both streams, as bytes."""

    exit_code: int
    stdout: bytes
    stderr: bytes


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
        """Where commands are run, unless they are told otherwise."""

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
    ) -> Done:
        """Run a command to its end. None as a variable's value takes it out of the environment.

        Raises:
            SlurmError: It is not there or took too long, the folder is gone, or the machine is out of reach.
        """

    def read(self, path: PurePath, start: int = 0) -> tuple[bytes, int] | None:
        """What stands in a file from that byte on, and the byte where it ends. None: there is no file.

        A negative start counts from the end. One behind the end begins at 0: the file was written anew.
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
        return Path.cwd()

    def expanded(self, word: str) -> str:
        return str(Path(word).expanduser())

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
    ) -> Done:
        variables = {**os.environ, **(environ or {})}
        limited = limit_s is not None
        try:
            with subprocess.Popen(
                tuple(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={name: value for name, value in variables.items() if value is not None},
                cwd=cwd,
                # Ctrl-C in a cell is not for the queries of the cards. Of those without a limit the
                # kernel itself ends what it has in its own group when it is shut down.
                process_group=0 if limited else None,
            ) as process:
                try:
                    stdout, stderr = process.communicate(stdin, limit_s)
                except BaseException:
                    _end(process, gently=not limited)
                    raise
        except FileNotFoundError as error:
            if cwd is not None and not Path(cwd).is_dir():
                raise SlurmError(f"The folder {cwd} is gone.") from error
            raise SlurmError(
                f"There is no {argv[0]} on this machine's PATH.",
                "Run the notebook on a login node or in a job of the cluster, or load Slurm's module; "
                "%slurm connect HOST reaches a cluster from elsewhere.",
            ) from error
        except subprocess.TimeoutExpired as error:
            raise too_slow(argv[0], limit_s or 0.0) from error
        return Done(process.returncode, stdout, stderr)

    def read(self, path: PurePath, start: int = 0) -> tuple[bytes, int] | None:
        try:
            with Path(path).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(begin(start, size))
                return file.read(), file.tell()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SlurmError(f"{path} cannot be read: {error.strerror}") from error

    def close(self) -> None:
        return None


def _end(process: subprocess.Popen[bytes], *, gently: bool) -> None:
    """End a command. srun and salloc are given the time to cancel what they have begun.

    At SIGHUP they do; salloc minds no other signal while its command runs (checked on 22.05).
    """
    try:
        if gently:
            process.send_signal(signal.SIGHUP)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_CANCELS_WITHIN_S)
    finally:  # a second Ctrl-C included
        process.kill()


def begin(start: int, size: int) -> int:
    """The byte at which `Machine.read` begins."""
    return max(0, size + start) if start < 0 else start if start <= size else 0


def too_slow(tool: str, limit_s: float) -> SlurmError:
    """The error of a command that has not ended in its time."""
    hint = "Slurm may be slow or away; %slurm timeout 300 waits longer."
    if tool == "sbatch":
        hint = MAY_BE_QUEUED
    return SlurmError(f"{tool} has not answered within {limit_s:g} s.", hint, retryable=tool != "sbatch")


def zone_of(tz: str, localtime: str) -> tzinfo:
    """The time zone of a TZ variable, else of what /etc/localtime links to; UTC where neither has a name."""
    name = tz.removeprefix(":") or localtime.partition("zoneinfo/")[2]
    try:
        return ZoneInfo(name) if name else UTC
    except (ZoneInfoNotFoundError, ValueError):
        return UTC
