"""The table of open connections: whose each is, to which login node, and what for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from hpchub.core.certificate import Profile
from hpchub.core.cluster import LoginNode
from hpchub.core.server import ConnectionView
from hpchub.ssh.line import Line


class Use(StrEnum):
    """What a connection is for; no two uses share one."""

    COMMANDS = "commands"
    SESSIONS = "sessions"
    TUNNELS = "tunnels"
    QUERIES = "queries"

    @property
    def profile(self) -> Profile:
        """The certificate that it needs."""
        return {Use.TUNNELS: Profile.TUNNEL, Use.QUERIES: Profile.QUERY}.get(self, Profile.CONTROL)


@dataclass(frozen=True, slots=True)
class Key:
    """Connections with the same key are interchangeable."""

    user: str
    cluster: str
    use: Use
    node: str


class OpenLines:
    """Lines by key. Those that have died meanwhile are left out, and forgotten when next looked at."""

    def __init__(self, idle_s: float) -> None:
        self._lines: dict[Key, list[Line]] = {}
        self._idle_s = idle_s

    def add(self, key: Key, line: Line) -> None:
        """Enter a new one."""
        self._lines.setdefault(key, []).append(line)

    def of(self, key: Key) -> list[Line]:
        """Those of a key."""
        lines = [line for line in self._lines.get(key, ()) if line.is_open]
        if lines:
            self._lines[key] = lines
        else:
            self._lines.pop(key, None)
        return lines

    def nearest(self, user: str, cluster: str, use: Use, nodes: Sequence[LoginNode]) -> list[LoginNode]:
        """The same nodes, those first where the user has a connection: for this use, then for any."""

        def rank(node: LoginNode) -> int:
            uses = [use, *(other for other in Use if other is not use)]
            for place, one in enumerate(uses):
                if self.of(Key(user, cluster, one, node.name)):
                    return place
            return len(uses)

        return sorted(nodes, key=rank)

    def views(self) -> list[ConnectionView]:
        """All of them, for people to look at."""
        now = time.monotonic()
        return [
            ConnectionView(
                user=key.user,
                cluster=key.cluster,
                node=key.node,
                use=key.use.value,
                sessions=line.sessions,
                channels=line.open_channels,
                idle_s=line.idle_s(now),
            )
            for key, lines in self._lines.items()
            for line in lines
            if line.is_open
        ]

    async def close(self, chosen: Callable[[Key], bool]) -> int:
        """Close the chosen ones; how many were open."""
        keys = [key for key in self._lines if chosen(key)]
        lines = [line for key in keys for line in self._lines.pop(key)]
        count = sum(line.is_open for line in lines)
        await asyncio.gather(*(line.close() for line in lines))
        return count

    async def retire(self, chosen: Callable[[Key], bool]) -> int:
        """Close the chosen ones, but those with sessions that last only with the last of these.

        Returns:
            How many were open and are closed now.
        """
        lines = [line for key in list(self._lines) if chosen(key) for line in self.of(key)]
        return sum(await asyncio.gather(*(line.retire() for line in lines)))

    async def sweep(self) -> None:
        """Close, for ever, what nobody has used for a while."""
        while True:
            await asyncio.sleep(self._idle_s / 4)
            now = time.monotonic()
            for key in list(self._lines):
                lines = self.of(key)
                idle = [line for line in lines if line.idle_s(now) > self._idle_s]
                if idle:
                    self._lines[key] = [line for line in lines if line not in idle]
                    await asyncio.gather(*(line.close() for line in idle))
