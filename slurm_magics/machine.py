"""Where Slurm's commands are run and files are read: this machine, or another one over SSH."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, tzinfo
from pathlib import Path, PurePath
from typing import Any, Protocol, cast
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
    ) -> Done:
        variables = {**os.environ, **(environ or {})}
        try:
            return _run(
                tuple(argv),
                stdin,
                limit_s,
                env={name: value for name, value in variables.items() if value is not None},
                cwd=cwd,
            )
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


def _run(argv: Sequence[str], stdin: bytes, limit_s: float | None, **options: Any) -> Done:
    """Run a command to its end, or to ours.

    Ctrl-C in a cell is not for the queries of the cards, so those are in a group of their own. Commands
    without a limit are in the kernel's, which ends what it finds there when it is shut down.
    """
    options |= dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    if limit_s is not None:
        options["process_group"] = 0
    # Started by another thread, where Ctrl-C cannot come between the command's start and our hold on it.
    with ThreadPoolExecutor(1) as starter:
        starting: Future[subprocess.Popen[bytes]] = starter.submit(
            cast(Any, subprocess.Popen), argv, **options
        )
        try:
            process = starting.result()
            stdout, stderr = process.communicate(stdin, limit_s)
        except BaseException:
            if not starting.exception():
                _end(starting.result(), gently=limit_s is None)
            raise
    return Done(process.returncode, stdout, stderr)


def _end(process: subprocess.Popen[bytes], *, gently: bool) -> None:
    """End a command. srun and salloc are given the time to cancel what they have begun.

    At SIGHUP they do; salloc minds no other signal while its command runs (checked on 22.05).
    """
    deadline = time.monotonic() + _CANCELS_WITHIN_S
    try:
        if gently:
            process.send_signal(signal.SIGHUP)
        while gently and process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=0.2)  # it may have more to say than a pipe holds
    finally:  # a second Ctrl-C included
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                with contextlib.suppress(BrokenPipeError):  # what it has not read
                    pipe.close()


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
