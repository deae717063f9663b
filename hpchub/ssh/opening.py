"""Opens channels, and leaves none behind that nobody waits for any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncssh

_Opened = TypeVar("_Opened")


async def opened(
    connection: asyncssh.SSHClientConnection,
    starting: Awaitable[_Opened],
    let_go: Callable[[_Opened], object],
) -> _Opened:
    """What `starting` gives, which opens a channel of `connection`.

    Where the wait for it is cancelled, or its time is over, the opening goes on by itself, and `let_go` is
    called with what came of it: asyncssh 2.24 forgets a channel whose opening is cancelled, and sshd would
    keep it, and the command that it may have started in it, for as long as the connection lasts.

    Raises:
        asyncssh.ConnectionLost: The connection closed meanwhile. asyncssh raises AttributeError there, from
            a session that it has cleared already, or AssertionError, from a channel that it has.
    """
    task = asyncio.ensure_future(starting)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(lambda late: _let_go_late(late, let_go))
        raise
    except (AttributeError, AssertionError) as error:
        if not connection.is_closed():
            raise
        raise asyncssh.ConnectionLost("the connection was closed") from error


def _let_go_late(task: asyncio.Future[_Opened], let_go: Callable[[_Opened], object]) -> None:
    if not task.cancelled() and task.exception() is None:
        let_go(task.result())
