"""The stop of one server, whatever it is about just then."""

from __future__ import annotations

import asyncio

import pytest

from hpchub.core.server import Phase
from hpchub.errors import NotAllowed, SchedulerUnavailable

from .places import (
    CannotBeCancelledAtFirst,
    CannotSubmit,
    NeedsALogin,
    NeverAnswers,
    NeverListens,
    NeverRuns,
    SlowToSubmit,
    WellBehaved,
)
from .world import World, ready, until


@pytest.mark.parametrize("times", [1, 2])
async def test_stop_while_connecting(times: int, world: World) -> None:
    """A stop waits for the submission that is on its way, so that no job is left behind."""
    life, place = world.life(SlowToSubmit)
    assert isinstance(place, SlowToSubmit)
    life.begin()
    stops = [asyncio.create_task(life.stop()) for _ in range(times)]
    await asyncio.sleep(0.02)
    assert life.record.phase is Phase.STOPPING and not any(stop.done() for stop in stops)
    place.gate.set()
    await asyncio.wait_for(asyncio.gather(*stops), 5)
    assert place.calls == ["prepare", "submit", "cancel", "clean_up"]
    assert life.record.phase is Phase.ENDED and life.record.error is None


async def test_stop_while_the_submission_fails(world: World) -> None:
    """The stop returns, and the server has ended."""
    life, place = world.life(CannotSubmit)
    assert isinstance(place, CannotSubmit)
    life.begin()
    stop = asyncio.create_task(life.stop())
    await asyncio.sleep(0.02)
    place.gate.set()
    await asyncio.wait_for(stop, 5)
    assert world.stored(life).phase is Phase.ENDED


async def test_stop_of_what_never_began(world: World) -> None:
    """A restarted bridge, nobody logged in, nothing submitted: there is nothing to wait for."""
    life, _ = world.life(WellBehaved, environ=None)
    await asyncio.wait_for(life.stop(), 5)
    assert world.stored(life).phase is Phase.ENDED


@pytest.mark.parametrize("kind", [NeverRuns, NeverListens, NeverAnswers, WellBehaved])
async def test_stop_in_every_later_phase(kind: type[WellBehaved], world: World) -> None:
    """Queued, starting, handed over or ready: one cancel, and it has ended. A second stop is harmless."""
    life, place = world.life(kind)
    life.begin()
    reached = {NeverRuns: Phase.QUEUED, WellBehaved: Phase.READY}.get(kind, Phase.STARTING)
    await until(lambda: life.record.phase is reached)
    await asyncio.sleep(0.02)
    await asyncio.wait_for(asyncio.gather(life.stop(), life.stop()), 5)
    await life.stop()
    assert place.calls.count("cancel") == 1 and life.record.phase is Phase.ENDED
    assert life.record.error is None


async def test_stop_during_a_lost_connection(world: World) -> None:
    """The way in is lost, the way to the scheduler is not."""
    life, place = world.life(WellBehaved)
    life.begin()
    await ready(life)
    place.node.reachable = False
    place.node.cut()
    await until(lambda: place.calls.count("verdict") > 0)
    await asyncio.wait_for(life.stop(), 5)
    assert life.record.phase is Phase.ENDED and life.record.error is None


async def test_a_stop_that_fails_leaves_the_server(world: World) -> None:
    """It stays alive and ready, the person hears why, and a second stop works."""
    life, place = world.life(CannotBeCancelledAtFirst)
    life.begin()
    await ready(life)
    with pytest.raises(SchedulerUnavailable):
        await life.stop()
    assert life.record.phase is Phase.READY and life.local_socket.is_socket()
    assert place.node.alive and not life.ended.is_set()
    place.node.cut()
    await until(lambda: len(place.node.handovers) == 2)
    await life.stop()
    assert life.record.phase is Phase.ENDED


async def test_a_stop_without_a_scheduler(world: World) -> None:
    """Where the job cannot be cancelled the server itself is asked to end; its channel's end is the proof."""
    life, place = world.life(CannotBeCancelledAtFirst)
    place.node.obeys = True
    life.begin()
    await ready(life)
    await asyncio.wait_for(life.stop(), 5)
    assert life.record.phase is Phase.ENDED and life.record.error is None
    assert place.calls.count("cancel refused") == 1 and "cancel" not in place.calls


async def test_a_lost_way_is_no_proof_of_an_end(world: World) -> None:
    """Neither scheduler nor server can be told: the stop fails, and the server is not forgotten."""
    life, place = world.life(CannotBeCancelledAtFirst)
    assert isinstance(place, CannotBeCancelledAtFirst)
    place.gate.clear()
    life.begin()
    await ready(life)
    stop = asyncio.create_task(life.stop())
    await place.cancelling.wait()
    place.node.reachable = False
    place.node.cut()
    place.gate.set()
    with pytest.raises(SchedulerUnavailable):
        await stop
    assert not life.ended.is_set() and "slurmctld is away" in life.progress.events[-1].message
    place.node.reachable = True
    await until(lambda: len(place.node.handovers) == 2)


async def test_what_happens_during_a_failing_stop_is_told_after_it(world: World) -> None:
    """A server that becomes ready while its stop fails is ready, not starting for ever."""
    life, place = world.life(CannotBeCancelledAtFirst)
    assert isinstance(place, CannotBeCancelledAtFirst)
    place.gate.clear()
    place.node.notebook_answers = False
    life.begin()
    await until(lambda: place.node.handovers)
    stop = asyncio.create_task(life.stop())
    await place.cancelling.wait()
    place.node.notebook_answers = True
    await until(lambda: life.local_socket.exists())
    await asyncio.sleep(0.2)
    place.gate.set()
    with pytest.raises(SchedulerUnavailable):
        await stop
    await until(lambda: life.record.phase is Phase.READY)
    assert life.progress.events[-1].phase is Phase.READY


@pytest.mark.parametrize("let_go", [False, True])
async def test_a_stop_while_it_waits_for_its_turn(world: World, let_go: bool) -> None:
    """The place goes to the next at once, and the stopped one begins nothing; so when the bridge ends."""
    slow = [world.life(SlowToSubmit) for _ in range(2)]
    waits, place = world.life(WellBehaved)
    last, _ = world.life(WellBehaved)
    for life in (*(life for life, _ in slow), waits, last):
        life.begin()
    await until(lambda: world.queue.waiting == 2)
    async with asyncio.timeout(5):
        await (waits.leave() if let_go else waits.stop())
    assert "submit" not in place.calls and world.queue.waiting == 1
    assert (world.stored(waits).phase is Phase.ENDED) is not let_go
    for _, blocked in slow:
        assert isinstance(blocked, SlowToSubmit)
        blocked.gate.set()
    await ready(last)


async def test_a_stop_without_a_session(world: World) -> None:
    """What ends idle servers comes when their owners' sessions have ended: the tunnel is enough."""
    life, place = world.life(NeedsALogin)
    place.node.obeys = True
    life.begin()
    await ready(life)
    await life.stop()
    assert world.stored(life).phase is Phase.ENDED and not place.node.alive
    life, place = world.life(NeedsALogin)
    life.begin()
    await ready(life)
    place.node.reachable = False
    place.node.cut()
    await until(lambda: "verdict" in place.calls)
    with pytest.raises(NotAllowed):
        await life.stop()
    assert place.node.alive and world.stored(life).phase is not Phase.ENDED
