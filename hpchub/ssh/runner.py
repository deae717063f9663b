"""Runs a command as the person: quoted once, whatever the login shell is and prints.

sshd gives the command's text to the login shell. Each has rules of its own inside single quotes
(csh ends them at a newline, fish reads a double backslash), so the text carries the real one
octal-escaped, in letters that no shell minds, to a /bin/sh that decodes it. That sh first prints a
random marker: what stands before it came from the shell's start-up files.
"""

from __future__ import annotations

import asyncio
import math
import re
import secrets
import shlex
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace

import asyncssh

from hpchub.core.command import Command, CommandResult
from hpchub.errors import AccountProblem, HostUnreachable, InvalidRequest, UnexpectedOutput
from hpchub.ssh.failures import reason
from hpchub.ssh.opening import opened

_PLAIN = re.compile(rb"[A-Za-z0-9 _@%+=:,./-]")
# Stands where the certificate's own command is run, whatever is asked for.
_FORCED = "forced"
# Linux allows 128 KiB for one argument (MAX_ARG_STRLEN), and the login shell's -c is one.
_LONGEST = 120_000
_NOISE_SHOWN = 400
_CLOSE_LIMIT_S = 2.0


def remote_text(argv: Sequence[str], marker: str) -> str:
    """What to give to a login shell, so that `argv` runs after both its streams have said `marker`.

    Raises:
        InvalidRequest: An argument holds NUL, or all are too long for one command.
    """
    if not argv or any("\0" in word for word in argv):
        raise InvalidRequest("A command must have a name, and no argument can hold a NUL character.")
    mark = f"printf '%s\\n' {marker}"
    script = f"{mark}; {mark} >&2; exec {shlex.join(argv)}"
    encoded = "".join(
        chr(byte) if _PLAIN.match(bytes((byte,))) else f"\\0{byte:03o}"
        for byte in script.encode("utf-8", "surrogateescape")
    )
    text = f"""exec /bin/sh -c 'eval "$(printf %b "$1")"' hpchub '{encoded}'"""
    if len(text) > _LONGEST:
        raise InvalidRequest("The command is too long for one line.", "Send long input as its stdin.")
    return text


def new_marker() -> str:
    """A line that no start-up file prints."""
    return f"hpchub-{secrets.token_hex(16)}"


def split_noise(output: bytes, marker: str) -> tuple[bytes, bytes] | None:
    """What stands before the marker's line, and after it; None where there is no marker."""
    before, found, after = output.partition(marker.encode() + b"\n")
    return (before, after) if found else None


class Streams:
    """A long-lived command's binary streams, the noise before it already skipped."""

    def __init__(self, process: asyncssh.SSHClientProcess[bytes]) -> None:
        self.reader = process.stdout
        self.writer = process.stdin
        self._process = process
        self._said = b""
        # Unread, its standard error would fill the window that all its streams share.
        self._listener = asyncio.create_task(self._listen())

    @property
    def said(self) -> str:
        """The end of what it printed on standard error, on one line."""
        return _shown(self._said)

    def end_input(self) -> None:
        """Say that no more comes."""
        with suppress(OSError, asyncssh.Error):  # the channel has closed by itself
            self._process.stdin.write_eof()

    async def close(self) -> None:
        """End the command's input, and wait a moment for its end.

        An srun whose node is gone does not end for minutes. It is killed, so that nothing is left of it,
        and whoever lost it goes on.
        """
        self.end_input()
        with ExitStack() as unless_it_ended, suppress(TimeoutError):
            unless_it_ended.callback(self._let_go)  # also where nobody waits for its end any more
            async with asyncio.timeout(_CLOSE_LIMIT_S):
                await self._process.wait_closed()
                await self._listener
            unless_it_ended.pop_all()

    def _let_go(self) -> None:
        self._listener.cancel()
        _end(self._process)

    async def _listen(self) -> None:
        try:
            while data := await self._process.stderr.read(4096):
                self._said = (self._said + data)[-_NOISE_SHOWN:]
        except (OSError, asyncssh.Error):
            return  # the connection is lost, which shows where the streams are used


async def run_command(
    connection: asyncssh.SSHClientConnection,
    user: str,
    node: str,
    command: Command,
    output_bytes: int,
    *,
    forced: bool = False,
) -> CommandResult:
    """Run `command` to its end.

    Where the certificate has a `forced` command, that one runs instead: it is given the marker, the
    command's own input, and how long it may take, on standard input.

    Raises:
        AccountProblem: The login shell ended before the command began.
        HostUnreachable: The connection died, or the command took too long.
        UnexpectedOutput: It printed more than `output_bytes`.
        asyncssh.ChannelOpenError: sshd opens no further session on this connection.
    """
    marker = new_marker()
    if forced:
        limit = math.ceil(command.timeout_s)
        stdin = b"%s\n%s%d\n" % (marker.encode(), command.stdin, limit)
        text, command = _FORCED, replace(command, stdin=stdin)
    else:
        text = remote_text(command.argv, marker)
    try:
        async with asyncio.timeout(command.timeout_s):
            process = await _begin(connection, text)
            try:
                out, err = await _converse(process, command, output_bytes)
            finally:
                _end(process)
    except TimeoutError:
        raise HostUnreachable(
            f"{command.name} on {node} did not answer within {command.timeout_s:g} s."
        ) from None
    except asyncssh.ChannelOpenError:
        raise
    except (OSError, asyncssh.Error) as error:
        raise HostUnreachable(f"{node} was lost while {command.name} ran: {reason(error)}.") from error
    return _result(process, marker, out, err, user, node)


async def open_streams(
    connection: asyncssh.SSHClientConnection, user: str, node: str, argv: Sequence[str], timeout_s: float
) -> Streams:
    """Start `argv` and return its streams, once it has begun.

    Raises:
        AccountProblem: The login shell ended before the command began.
        HostUnreachable: The connection died, or the shell took too long.
        asyncssh.ChannelOpenError: sshd opens no further session on this connection.
    """
    marker = new_marker()
    text = remote_text(argv, marker)
    process: asyncssh.SSHClientProcess[bytes] | None = None
    with ExitStack() as unless_it_began:  # nothing stays there of a wait that was given up
        try:
            async with asyncio.timeout(timeout_s):
                process = await _begin(connection, text)
                unless_it_began.callback(_end, process)
                await process.stdout.readuntil(marker.encode() + b"\n")
        except asyncio.IncompleteReadError as error:
            assert process is not None  # noqa: S101  only its stdout raises this
            raise await _shell_ended(process, error.partial, user, node) from None
        except TimeoutError:
            raise HostUnreachable(f"{user}'s login shell on {node} took over {timeout_s:g} s.") from None
        except asyncssh.ChannelOpenError:
            raise
        except (OSError, asyncssh.Error) as error:
            raise HostUnreachable(f"{node} was lost: {reason(error)}.") from error
        unless_it_began.pop_all()
    return Streams(process)


async def _begin(connection: asyncssh.SSHClientConnection, text: str) -> asyncssh.SSHClientProcess[bytes]:
    return await opened(connection, connection.create_process(text, encoding=None), _end)


async def _shell_ended(
    process: asyncssh.SSHClientProcess[bytes], noise: bytes, user: str, node: str
) -> AccountProblem | HostUnreachable:
    await process.wait_closed()
    if process.returncode is None:
        return HostUnreachable(f"{node} was lost before the command began.")
    return _no_marker(user, node, process.returncode, noise + await process.stderr.read())


def _end(process: asyncssh.SSHClientProcess[bytes]) -> None:
    """Let go of a command; one that has not ended is killed.

    sshd leaves it otherwise, and a squeue that hangs would be one more with each question. sshd kills
    no forced command: those end by themselves, in the time that they were given.
    """
    if process.returncode is None:
        with suppress(OSError, asyncssh.Error):  # the connection is lost
            process.kill()
    process.close()


async def _converse(
    process: asyncssh.SSHClientProcess[bytes], command: Command, output_bytes: int
) -> tuple[bytes, bytes]:
    """Write the input while reading both outputs, so that neither side waits for the other.

    Not by a TaskGroup: where one of its tasks fails, ours counts as cancelled from then on, and before Python
    3.11.3 every `asyncio.timeout` in it that runs out ends it, instead of raising TimeoutError.
    """
    feeding = asyncio.create_task(_feed(process, command.stdin))
    reading = [
        asyncio.create_task(_read(stream, output_bytes)) for stream in (process.stdout, process.stderr)
    ]
    try:
        _, out, err = await asyncio.gather(feeding, *reading)
    finally:
        for task in (feeding, *reading):
            task.cancel()
        await asyncio.wait({feeding, *reading})
    if out is None or err is None:
        raise UnexpectedOutput(command.name, f"more than {output_bytes} bytes")
    await process.wait_closed()
    return out, err


async def _feed(process: asyncssh.SSHClientProcess[bytes], data: bytes) -> None:
    try:
        if data:
            process.stdin.write(data)
            await process.stdin.drain()
        process.stdin.write_eof()
    except (BrokenPipeError, asyncssh.ConnectionLost):
        return  # a command need not read its input; a lost connection shows in its outputs


async def _read(stream: asyncssh.SSHReader[bytes], limit: int) -> bytes | None:
    """All of a stream; None where it is longer than `limit`, and then the rest is left."""
    parts: list[bytes] = []
    size = 0
    while data := await stream.read(65536):
        size += len(data)
        if size > limit:
            stream.channel.close()
            return None
        parts.append(data)
    return b"".join(parts)


def _result(
    process: asyncssh.SSHClientProcess[bytes], marker: str, out: bytes, err: bytes, user: str, node: str
) -> CommandResult:
    code = process.returncode
    if code is None:
        raise HostUnreachable(f"{node} was lost before the command ended.")
    parted = split_noise(out, marker)
    if parted is None:
        raise _no_marker(user, node, code, out + err)
    noise, stdout = parted
    _, stderr = split_noise(err, marker) or (b"", err)
    return CommandResult(exit_code=code, stdout=_text(stdout), stderr=_text(stderr), noise=_text(noise))


def _no_marker(user: str, node: str, code: int, printed: bytes) -> AccountProblem:
    shown = _shown(printed)[:_NOISE_SHOWN]
    said = f" It printed: {shown}" if shown else " It printed nothing."
    return AccountProblem(
        f"{user}'s login shell on {node} ended with exit code {code} before any command could run.{said}",
        "Look at ~/.bashrc and ~/.profile there, or at whatever your login shell reads at its start.",
    )


def _shown(data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    return "".join(char if char.isprintable() else " " for char in text).strip()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
