"""One session of an SSH connection: a script goes in over its standard input, and what it says comes out.

Others on the login node can read a command's arguments, and nothing of its input.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from typing import TYPE_CHECKING

from slurm_magics.done import Cut, Done, Said
from slurm_magics.errors import SlurmError
from slurm_magics.interrupts import CANCELS_WITHIN_S, while_it_cancels

if TYPE_CHECKING:
    import paramiko

# Decodes the first line of its input and runs it; what follows is the command's. In letters that no login
# shell minds: csh and fish have rules of their own for single quotes.
STUB = """exec /bin/sh -c 'IFS= read -r l; eval "$(printf %b "$l")"'"""
_PLAIN = re.compile(rb"[A-Za-z0-9 _@%+=:,./'\"$;&|<>(){}!*?~#^\[\]`-]")
_CHUNK = 1 << 16


def encoded(script: str) -> bytes:
    """One line that printf's %b turns into the script again."""
    raw = script.encode("utf-8", "surrogateescape")
    return b"".join(
        one if _PLAIN.match(one) else b"\\0%03o" % one[0] for one in (bytes((byte,)) for byte in raw)
    )


def talk(channel: paramiko.Channel, said: Said, stdin: bytes, limit_s: float | None) -> Done | None:
    """Feed a command and collect what it says; None where the time was up.

    The exit code is -1 where none came: the connection is lost, or a signal ended the command.

    Raises:
        SlurmError: It printed too much.
        Cut: Somebody pressed Ctrl-C.
    """
    deadline = None if limit_s is None else time.monotonic() + limit_s
    helpers = [
        threading.Thread(target=_feed, args=(channel, stdin, deadline is not None), daemon=True),
        threading.Thread(target=_drain, args=(channel, said), daemon=True),
    ]
    for helper in helpers:
        helper.start()
    try:
        if not _hear(channel, said, deadline):
            return None
    except KeyboardInterrupt:
        said.show = said.take = None
        doubt = "" if deadline else _end_gently(channel, said, helpers[0])
        raise Cut(said.done(-1), doubt=doubt) from None
    finally:
        channel.close()
        for helper in helpers:
            helper.join()
    said.check()
    return said.done(channel.exit_status)


def _hear(channel: paramiko.Channel, said: Said, deadline: float | None) -> bool:
    """Collect what the command says until its end; False where the time was up before."""
    try:
        while True:
            channel.settimeout(_rest(deadline))
            if not (piece := channel.recv(_CHUNK)):
                return bool(channel.status_event.wait(_rest(deadline)))
            said.add(piece)
    except TimeoutError:
        return False


def _end_gently(channel: paramiko.Channel, said: Said, feeder: threading.Thread) -> str:
    """Have an endless command cancel what it has begun, and wait; what is in doubt where it has not.

    It is told by the end of its input: see remote.py.
    """
    deadline = time.monotonic() + CANCELS_WITHIN_S
    with while_it_cancels(said.tool):
        feeder.join(CANCELS_WITHIN_S)  # half a script would be run, too
        with contextlib.suppress(OSError, EOFError):  # the connection is lost: there is no exit code then
            channel.shutdown_write()
        while True:
            with contextlib.suppress(SlurmError):  # it may have more to say than is wanted
                if not _hear(channel, said, deadline):
                    return f"was told to end, and has not within {CANCELS_WITHIN_S:g} s"
                break
    return "was told to end, but the connection was lost" if channel.exit_status < 0 else ""


def _rest(deadline: float | None) -> float | None:
    """How long it may still take, in seconds. TimeoutError where that is nothing."""
    if deadline is None:
        return None
    if (rest_s := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    return rest_s


def _feed(channel: paramiko.Channel, stdin: bytes, ends: bool) -> None:
    """Give the command its input. That of an endless one ends with the channel."""
    try:
        for start in range(0, len(stdin), _CHUNK):
            channel.sendall(stdin[start : start + _CHUNK])
        if ends:
            channel.shutdown_write()
    except (OSError, EOFError):
        return  # the command has ended without reading all of it, or the connection is lost: its exit tells


def _drain(channel: paramiko.Channel, said: Said) -> None:
    try:
        while piece := channel.recv_stderr(_CHUNK):
            said.add(piece, is_error=True)
    except (OSError, EOFError):
        return  # likewise
    except SlurmError:
        channel.close()  # too much: what waits for the other stream ends
