"""hpchub.bridge.start_queue: order, fairness, positions, and what a cancelled wait leaves behind."""

from __future__ import annotations

import asyncio

import pytest

from hpchub.bridge import start_queue as module
from hpchub.bridge.start_queue import StartQueue


class Crowd:
    """Starts that note when their turn has come and keep it until they are let go."""

    def __init__(self, at_once: int) -> None:
        self.queue = StartQueue(at_once)
        self.begun: list[str] = []
        self.told: dict[str, list[int]] = {}
        self.most = self.now = 0
        self.go_on = asyncio.Event()

    def start(self, person: str, name: str = "", *, at_once: bool = False) -> asyncio.Task[None]:
        key = f"{person}{name}"
        told = self.told.setdefault(key, [])

        async def run() -> None:
            async with self.queue.turn(person, told.append, at_once=at_once):
                self.begun.append(key)
                self.now += 1
                self.most = max(self.most, self.now)
                try:
                    await self.go_on.wait()
                    await asyncio.sleep(0)
                finally:
                    self.now -= 1

        return asyncio.create_task(run())


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_hundreds_go_through_in_order() -> None:
    """Never more than allowed at once, first come first served, and all come through."""
    crowd = Crowd(8)
    people = [f"user{number}" for number in range(500)]
    tasks = [crowd.start(person) for person in people]
    await settle()
    assert crowd.begun == people[:8] and crowd.queue.waiting == 492
    crowd.go_on.set()
    await asyncio.gather(*tasks)
    assert crowd.begun == people and crowd.most == 8
    assert crowd.queue.waiting == 0 and crowd.queue._teller is None


async def test_a_tenth_server_waits_for_everybodys_first() -> None:
    """Whoever starts ten at once gets their first in turn, and the rest after the others' first."""
    crowd = Crowd(1)
    tasks = [crowd.start("other")]
    await settle()
    tasks += [crowd.start("greedy", f"-{number}") for number in range(10)]
    await settle()
    tasks += [crowd.start(person) for person in ("a", "b", "c")]
    tasks += [crowd.start("a", "-2")]
    await settle()
    crowd.go_on.set()
    await asyncio.gather(*tasks)
    assert crowd.begun[:5] == ["other", "greedy-0", "a", "b", "c"]
    assert crowd.begun[5:7] == ["greedy-1", "a-2"]
    assert crowd.begun[7:] == [f"greedy-{number}" for number in range(2, 10)]


async def test_who_has_a_running_job_goes_first() -> None:
    """In front of everybody that waits, in the order among themselves."""
    crowd = Crowd(1)
    tasks = [crowd.start("first"), crowd.start("a"), crowd.start("b")]
    await settle()
    tasks += [crowd.start("c", "-job", at_once=True), crowd.start("d", "-job", at_once=True)]
    await settle()
    crowd.go_on.set()
    await asyncio.gather(*tasks)
    assert crowd.begun == ["first", "c-job", "d-job", "a", "b"]


@pytest.mark.slow
async def test_positions_are_told_at_once_and_then_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """A newcomer hears its place; those far behind hear of big steps only, those in front of each."""
    monkeypatch.setattr(module, "_TELL_EVERY_S", 0.001)
    crowd = Crowd(1)
    tasks = [crowd.start(f"user{number}") for number in range(301)]
    await settle()
    assert [crowd.told[f"user{number}"] for number in (0, 1, 2, 300)] == [[], [0], [1], [299]]
    for task in tasks[:-1]:
        task.cancel()
        await asyncio.sleep(0.002)
    last = crowd.told["user300"]
    assert last == sorted(last, reverse=True) and last[-3:] == [2, 1, 0] and len(last) < 40
    crowd.go_on.set()
    await tasks[-1]


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    """It never begins, and its place goes to the next; also when its turn comes in that very moment."""
    crowd = Crowd(1)
    holder = crowd.start("holder")
    await settle()
    tasks = [crowd.start(f"user{number}") for number in range(300)]
    await settle()
    chosen = [number for number in range(1, 300) if number % 3]
    for number in chosen:
        tasks[number].cancel()
    tasks[0].cancel()
    crowd.go_on.set()  # the holder's turn ends before any of them has noticed
    await holder
    results = await asyncio.gather(*tasks, return_exceptions=True)
    cancelled = {f"user{number}" for number in (*chosen, 0)}
    assert sum(isinstance(result, asyncio.CancelledError) for result in results) == len(cancelled)
    assert set(crowd.begun) == {"holder", *(f"user{number}" for number in range(300))} - cancelled
    assert crowd.most == 1 and crowd.queue._free == 1 and crowd.queue._teller is None
    assert not crowd.queue._of_person


async def test_a_granted_turn_that_nobody_takes_goes_on() -> None:
    """Granted and cancelled in the same step: the next one gets it."""
    crowd = Crowd(1)
    holder = crowd.start("holder")
    await settle()
    waits, after = crowd.start("waits"), crowd.start("after")
    await settle()
    crowd.go_on.set()
    holder.cancel()
    waiter = crowd.queue._waiting[0]
    while not waiter.granted.done():  # noqa: ASYNC110  to be the first to see it
        await asyncio.sleep(0)
    waits.cancel()
    await asyncio.gather(holder, waits, after, return_exceptions=True)
    assert crowd.begun == ["holder", "after"] and crowd.queue._free == 1


async def test_a_failed_start_gives_its_turn_back() -> None:
    """Whatever is raised while it is held, or while a position is told."""
    queue = StartQueue(1)

    def cannot_tell(_position: int) -> None:
        raise OSError("full")

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with queue.turn("a"):
                raise ZeroDivisionError
    async with queue.turn("a"):
        with pytest.raises(OSError, match="full"):
            async with queue.turn("b", cannot_tell):
                raise AssertionError("it was not its turn")
    assert (queue._free, queue.waiting, queue._teller) == (1, 0, None)


async def test_a_start_that_hangs_holds_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while the next one goes, and the turn is not given back twice."""
    monkeypatch.setattr(module, "_LONGEST_TURN_S", 0.02)
    crowd = Crowd(1)
    hangs = crowd.start("hangs")
    await settle()
    after = crowd.start("after")
    async with asyncio.timeout(10):
        while crowd.begun != ["hangs", "after"]:  # noqa: ASYNC110  it tells nobody
            await asyncio.sleep(0.01)
    crowd.go_on.set()
    await asyncio.gather(hangs, after)
    assert crowd.queue._free == 1
