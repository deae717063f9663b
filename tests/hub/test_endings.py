"""The hub hears of ends from the bridge, once for all spawners."""

from __future__ import annotations

import asyncio

import pytest

from hpchub.bridge.endings import Endings
from hpchub.errors import HostUnreachable
from hpchub.hub.endings import EndedServers


class Bridge:
    """A bridge's answers about ends; down while `down` is set, and another process after `restart`."""

    def __init__(self) -> None:
        self.ends = Endings()
        self.down = False

    async def endings(self, bridge: str, after: int, wait_s: float) -> tuple[str, list[str], int]:
        if self.down:
            raise HostUnreachable("The bridge is away.")
        ended, number = await self.ends.after(bridge, after, min(wait_s, 0.01))
        return self.ends.bridge, ended, number

    def restart(self) -> None:
        self.ends = Endings()


async def test_only_who_watches_the_ended_server_hears_of_it() -> None:
    """Each is called back once, for its own server; one that forgot it is not."""
    bridge, heard = Bridge(), asyncio.Queue[str]()
    servers = EndedServers(bridge)  # type: ignore[arg-type]
    for name in ("a", "b", "c"):
        servers.watch(name, lambda name=name: heard.put(name))  # type: ignore[misc]
    servers.forget("b")
    for name in ("b", "a"):
        bridge.ends.note(name)
    async with asyncio.timeout(5):
        assert await heard.get() == "a"
    bridge.ends.note("a")
    await asyncio.sleep(0.05)
    assert heard.empty()


async def test_a_server_that_ended_before_it_is_watched() -> None:
    """Between ready and the watch lies a moment, and an end in it is told all the same."""
    bridge, heard = Bridge(), asyncio.Queue[str]()
    servers = EndedServers(bridge)  # type: ignore[arg-type]
    bridge.ends.note("early")
    servers.watch("other", lambda: heard.put("other"))
    await asyncio.sleep(0.05)
    servers.watch("early", lambda: heard.put("early"))
    async with asyncio.timeout(5):
        assert await heard.get() == "early"


@pytest.mark.slow
async def test_ends_are_heard_of_across_a_restart_of_the_bridge() -> None:
    """A bridge that was away and counts anew is listened to from its beginning."""
    bridge, heard = Bridge(), asyncio.Queue[str]()
    servers = EndedServers(bridge)  # type: ignore[arg-type]
    servers.watch("a", lambda: heard.put("a"))
    servers.watch("b", lambda: heard.put("b"))
    bridge.ends.note("a")
    async with asyncio.timeout(5):
        assert await heard.get() == "a"
    bridge.down = True
    await asyncio.sleep(0.05)
    bridge.restart()
    bridge.ends.note("b")
    bridge.down = False
    async with asyncio.timeout(5):
        assert await heard.get() == "b"
