"""A command on this machine: run to its end, or to ours."""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from slurm_magics.done import Cut, Done, Said, Show, Take
from slurm_magics.errors import SlurmError
from slurm_magics.interrupts import CANCELS_WITHIN_S, held_back, while_it_cancels

_CHUNK = 1 << 18
# A pipe that can be written to takes that much without a wait: pipe(7), PIPE_BUF.
_BITE = 4096


class _Command(subprocess.Popen[bytes]):
    """A process whose end is noticed at once: `Popen.wait` with a limit sleeps up to 50 ms between looks."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. Linux tells of the end through a descriptor; elsewhere as `Popen` does."""
        if timeout is None or self.returncode is not None:
            return super().wait(timeout)
        try:
            ending = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # macOS, Linux before 5.3
            return super().wait(timeout)
        try:
            poll = select.poll()
            poll.register(ending, select.POLLIN)
            poll.poll(max(0.0, timeout * 1000))
        finally:
            os.close(ending)
        return super().wait(0)


def run_here(
    argv: Sequence[str],
    stdin: bytes,
    limit_s: float | None,
    show: Show | None = None,
    take: Take | None = None,
    **options: Any,
) -> Done:
    """What the command left. What it prints while it is being ended is not given to `show`, nor to `take`.

    Ctrl-C in a cell is not for the queries of the cards, so those are in a group of their own. Commands
    without a limit are in the kernel's, which ends what it finds there when it is shut down.

    Raises:
        OSError: It cannot be started.
        subprocess.TimeoutExpired: It has not ended in time.
        SlurmError: It printed too much.
        Cut: Somebody pressed Ctrl-C.
    """
    options |= dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    if limit_s is not None:
        options["process_group"] = 0
    said = Said(argv[0], show, take)
    process: subprocess.Popen[bytes] | None = None
    try:
        with held_back():  # else it could start, and nobody know of it
            process = _Command(argv, **options)
        _talk(process, stdin, limit_s, said)
    except BaseException as error:
        said.show = said.take = None
        doubt = ""
        if process is not None and limit_s is None:
            doubt = _end_gently(process, said)
        elif process is not None:
            _kill(process)
        if isinstance(error, KeyboardInterrupt):
            raise Cut(said.done(-1), doubt=doubt) from None
        raise
    _close(process)
    return said.done(process.returncode)


def _talk(process: subprocess.Popen[bytes], stdin: bytes, limit_s: float | None, said: Said) -> None:
    """Feed a command and collect what it says, until it has ended."""
    ends_at = None if limit_s is None else time.monotonic() + limit_s
    assert process.stdin and process.stdout and process.stderr  # noqa: S101  they are pipes
    left = memoryview(stdin)
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        ready.register(process.stderr, selectors.EVENT_READ)
        if not process.stdin.closed:
            ready.register(process.stdin, selectors.EVENT_WRITE)
        while ready.get_map():
            for key, _ in ready.select(_rest(process, ends_at, limit_s)):
                if key.fileobj is process.stdin:
                    if not (left := _fed(key.fd, left)):
                        ready.unregister(process.stdin)
                        process.stdin.close()
                elif piece := os.read(key.fd, _CHUNK):
                    said.add(piece, is_error=key.fileobj is process.stderr)
                else:
                    ready.unregister(key.fileobj)
    process.wait(_rest(process, ends_at, limit_s))


def _fed(pipe: int, left: memoryview) -> memoryview:
    """What is still to be written; nothing where the command reads no more."""
    try:
        return left[os.write(pipe, left[:_BITE]) :] if left else left
    except BrokenPipeError:
        return left[:0]


def _rest(process: subprocess.Popen[bytes], ends_at: float | None, limit_s: float | None) -> float | None:
    """How long it may still take, in seconds; TimeoutExpired where that is nothing."""
    if ends_at is None or limit_s is None:
        return None
    if (rest_s := ends_at - time.monotonic()) <= 0:
        raise subprocess.TimeoutExpired(process.args, limit_s)
    return rest_s


def _end_gently(process: subprocess.Popen[bytes], said: Said) -> str:
    """End a command that is given the time to cancel what it has begun; what is in doubt where it has not.

    At SIGHUP srun and salloc do; salloc minds no other signal while its command runs (checked on 22.05).
    """
    deadline = time.monotonic() + CANCELS_WITHIN_S
    try:
        with while_it_cancels(said.tool):
            process.send_signal(signal.SIGHUP)
            while process.poll() is None and time.monotonic() < deadline:
                # It may have more to say than a pipe holds, or than is wanted.
                with contextlib.suppress(subprocess.TimeoutExpired, SlurmError):
                    _talk(process, b"", 0.2, said)
        return "did not end when it was told to, and was killed" if process.poll() is None else ""
    finally:
        process.kill()
        process.wait()
        _close(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a command at once, with what a site's wrapper has started."""
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _close(process)


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            with contextlib.suppress(BrokenPipeError):  # what it has not read
                pipe.close()
