"""What whoever watches servers hears of their ends."""

from __future__ import annotations

import asyncio

import pytest

from hpchub.bridge import endings
from hpchub.bridge.endings import Endings


async def test_ends_are_told_once_each_and_in_order() -> None:
    """Whoever asks from where the last answer ended hears of nothing twice."""
    one = Endings()
    one.note("a")
    one.note("b")
    assert await one.after("", 0, 0) == (["a", "b"], 2)
    assert await one.after(one.bridge, 1, 0) == (["b"], 2)
    assert await one.after(one.bridge, 2, 0) == ([], 2)


async def test_an_end_is_told_at_once() -> None:
    """A question that waits is answered by the next end, not by its own."""
    one = Endings()
    asked = asyncio.create_task(one.after(one.bridge, 0, 30))
    await asyncio.sleep(0)
    one.note("a")
    async with asyncio.timeout(10):
        assert await asked == (["a"], 1)


async def test_a_bridge_that_restarted_counts_anew() -> None:
    """A number of the bridge before says nothing about this one: all of its ends are told."""
    before, now = Endings(), Endings()
    now.note("a")
    assert await now.after(before.bridge, 1, 0) == (["a"], 1)


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the newest ends are kept, and the count goes on."""
    monkeypatch.setattr(endings, "_KEPT", 3)
    one = Endings()
    for number in range(10):
        one.note(str(number))
    assert await one.after(one.bridge, 5, 0) == (["7", "8", "9"], 10)
    assert await one.after(one.bridge, 9, 0) == (["9"], 10)
