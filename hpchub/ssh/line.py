"""One open connection and who is using it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncssh

from hpchub.errors import HostUnreachable
from hpchub.ssh.limits import Limits
from hpchub.ssh.metrics import Traffic

_BUDGET = "hpchub_channels"


class Channels:
    """Counts what is open on a connection, so that the hub refuses a channel before sshd runs out.

    `leases` are the attachments that live on the connection; while there is one, it is not idle.
    """

    def __init__(self, limit: int, traffic: Traffic | None = None) -> None:
        self.open = 0
        self.leases = 0
        self.traffic = traffic or Traffic()
        self._limit = limit

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Counts one channel for as long as the block lasts.

        Raises:
            HostUnreachable: As many as are allowed are open already.
        """
        if self.open >= self._limit:
            raise HostUnreachable(
                f"{self._limit} channels are open on this connection, and no more are allowed.",
                "Close some browser tabs, or wait for running requests to end.",
            )
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


def channels_of(
    connection: asyncssh.SSHClientConnection, limit: int, traffic: Traffic | None = None
) -> Channels:
    """The one count that all users of a connection share."""
    channels = connection.get_extra_info(_BUDGET)
    if channels is None:
        channels = Channels(limit, traffic)
        connection.set_extra_info(**{_BUDGET: channels})
    assert isinstance(channels, Channels)  # noqa: S101  nobody else uses this name
    return channels


class Line:
    """An open connection with a bounded number of sessions."""

    def __init__(
        self,
        connection: asyncssh.SSHClientConnection,
        node: str,
        limits: Limits,
        traffic: Traffic | None = None,
    ) -> None:
        self.connection = connection
        self.node = node
        self._most = limits.sessions_per_connection
        self._busy = 0
        self._staying = 0
        self._had_staying = False
        self._retired = False
        self._changed = asyncio.Condition()
        self._used_at = time.monotonic()
        self._channels = channels_of(connection, limits.channels_per_connection, traffic)

    @property
    def is_open(self) -> bool:
        """Whether the connection is believed to be alive."""
        return not self.connection.is_closed()

    @property
    def has_room(self) -> bool:
        """Whether a session can be had without waiting."""
        return not self._retired and self._busy < self._most

    @property
    def has_room_to_stay(self) -> bool:
        """Whether one more session that lasts leaves half of them to commands."""
        return self.has_room and self._staying < self._most // 2

    @property
    def is_taken(self) -> bool:
        """Whether sessions that last leave none to commands: sshd allows so few, or it is retired."""
        return self._retired or self._staying >= self._most

    @property
    def sessions(self) -> int:
        """How many sessions are in use."""
        return self._busy

    @property
    def open_channels(self) -> int:
        """How many forwarded channels are open."""
        return self._channels.open

    def idle_s(self, now: float) -> float:
        """Seconds since its last use; 0 while it is in use."""
        if self._busy or self._channels.open or self._channels.leases:
            return 0.0
        return now - self._used_at

    def touch(self) -> None:
        """Note a use."""
        self._used_at = time.monotonic()

    async def acquire(self) -> bool:
        """Wait for a session of this connection; False where it `is_taken`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.has_room or self.is_taken)
            if self.is_taken:
                return False
            self._busy += 1
            return True

    async def release(self) -> None:
        """Give a session back."""
        async with self._changed:
            self._busy -= 1
            self.touch()
            self._changed.notify_all()

    def take(self) -> None:
        """Take a session that lasts, where `has_room`, without waiting."""
        self._busy += 1
        self._staying += 1
        self._had_staying = True

    async def give_back(self) -> None:
        """Give back one that lasted. A retired connection ends with the last of them."""
        self._staying -= 1
        await self.release()
        if self._retired and not self._staying:
            await self.close()

    async def retire(self) -> bool:
        """Let nothing more begin on it; closed at once unless a session lasts. Whether it was closed."""
        async with self._changed:
            self._retired = True
            self._changed.notify_all()
        if self._staying:
            return False
        await self.close()
        return True

    def shrink(self) -> bool:
        """Note that sshd allows fewer sessions than thought; False where it allows none at all.

        Sessions that were to last and whose command would not end may still count with sshd, although
        nobody here holds one. Such a connection serves no more.
        """
        others = self._busy - 1
        self._most = others if others or self._had_staying else 1
        return others > 0 or self._had_staying

    async def close(self) -> None:
        """Close the connection and wait for its end."""
        self.connection.close()
        try:
            async with asyncio.timeout(2):
                await self.connection.wait_closed()
        except TimeoutError:
            self.connection.abort()
