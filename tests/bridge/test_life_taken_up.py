"""A server's life that a bridge left and the next one takes up; environments that are replaced or lost."""

from __future__ import annotations

import asyncio

import pytest

from hpchub.bridge import life as life_module
from hpchub.core.secret import Secret
from hpchub.core.server import Phase

from .places import (
    NeverRuns,
    SlowToSubmit,
    WellBehaved,
)
from .world import TOKEN, World, end, ready, until


async def test_adopt_gives_the_newer_environment(world: World) -> None:
    """The launcher gets the token of the newest start."""
    life, place = world.life(SlowToSubmit)
    assert isinstance(place, SlowToSubmit)
    life.begin()
    assert await life.adopt(Secret('{"JUPYTERHUB_API_TOKEN": "newer"}'), "/user/alice/x/")
    place.gate.set()
    await ready(life)
    assert place.node.handovers[0]["environ"]["JUPYTERHUB_API_TOKEN"] == "newer"
    assert world.stored(life).base_url == "/user/alice/x/"


async def test_nothing_is_adopted_too_late(world: World) -> None:
    """Once handed over, stopping or ended, a newer environment would go nowhere: it is refused."""
    life, _ = world.life(WellBehaved)
    life.begin()
    await ready(life)
    assert not await life.adopt(Secret('{"A": "b"}'), "/")
    await life.stop()
    assert not await life.adopt(Secret('{"A": "b"}'), "/")
    slow, place = world.life(SlowToSubmit)
    assert isinstance(place, SlowToSubmit)
    slow.begin()
    stop = asyncio.create_task(slow.stop())
    await asyncio.sleep(0.01)
    assert not await slow.adopt(Secret('{"A": "b"}'), "/")
    place.gate.set()
    await stop


async def test_a_life_left_is_taken_up_again(world: World) -> None:
    """The bridge ends, the server does not; the next bridge attaches from the row, with no environment."""
    life, place = world.life(WellBehaved)
    life.begin()
    await ready(life)
    await life.leave()
    assert place.node.alive and "cancel" not in place.calls and not life.ended.is_set()
    assert place.node.open_attachments == [] and not life.local_socket.exists()
    again, second = world.life(WellBehaved, world.stored(life))
    second.node = place.node
    again.begin()
    await until(lambda: again.local_socket.exists())
    assert len(place.node.handovers) == 2 and set(place.node.handovers[1]) == {"hub_socket"}
    assert second.calls == []
    await again.stop()


async def test_a_server_that_people_work_on_is_given_all_the_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two restarts in a row, and the way to it is lost for longer than a start may take: it is not ended."""
    life, place = world.life(WellBehaved)
    life.begin()
    await ready(life)
    await life.leave()
    monkeypatch.setattr(life_module, "_START_LIMIT_S", 0.05)
    monkeypatch.setattr(life_module, "_LONGEST_PAUSE_S", 0.02)
    record = world.stored(life)
    record.phase = Phase.CONNECTING
    again, second = world.life(WellBehaved, record)
    second.node = place.node
    place.node.reachable = False
    again.begin()
    await asyncio.sleep(0.3)
    assert not again.ended.is_set() and "cancel" not in second.calls
    place.node.reachable = True
    await ready(again)


async def test_a_life_left_while_stopping_is_not_stopping_for_ever(world: World) -> None:
    """A row that says `stopping` belongs to a server that lives: it becomes ready again."""
    life, place = world.life(WellBehaved)
    life.begin()
    await ready(life)
    await life.leave()
    record = world.stored(life)
    record.phase = Phase.STOPPING
    again, second = world.life(WellBehaved, record)
    second.node = place.node
    again.begin()
    await ready(again)


async def test_a_life_left_before_its_handover_goes_on(world: World) -> None:
    """The next bridge has its environment from the store: it is handed over, and submitted once."""
    life, _ = world.life(NeverRuns)
    life.begin()
    await until(lambda: life.record.phase is Phase.QUEUED)
    await life.leave()
    record = world.stored(life)
    assert record.job_id == "42"
    again, place = world.life(WellBehaved, record)
    again.begin()
    await ready(again)
    assert place.calls == [] and place.node.handovers[0]["environ"]["JUPYTERHUB_API_TOKEN"] == TOKEN
    assert world.stored(again).environ is None


async def test_a_life_whose_environment_is_lost_is_let_go(world: World) -> None:
    """With the agent's memory gone nobody can open it: the job is cancelled, the person told."""
    life, _ = world.life(NeverRuns)
    life.begin()
    await until(lambda: life.record.phase is Phase.QUEUED)
    await life.leave()
    record = world.stored(life)
    record.environ = None
    again, place = world.life(NeverRuns, record)
    again.begin()
    await end(again)
    assert place.calls == ["cancel", "keep_log"]
    assert again.record.error is not None and "restarted" in again.record.error["message"]


async def test_a_life_killed_while_it_submitted_looks_for_its_job(world: World) -> None:
    """Its folder is in the store before sbatch is asked: the next bridge does not just ask again."""
    life, place = world.life(SlowToSubmit)
    assert isinstance(place, SlowToSubmit)
    life.begin()
    await until(lambda: world.stored(life).folder)
    again, second = world.life(WellBehaved, world.stored(life))
    again.begin()
    await ready(again)
    assert second.calls == ["submit again"]
    place.gate.set()


async def test_neither_stop_nor_end_hangs_on_what_has_no_environment(world: World) -> None:
    """A row with no folder: it ends at once."""
    life, place = world.life(WellBehaved, environ=None)
    life.begin()
    await asyncio.wait_for(asyncio.gather(life.stop(), life.leave()), 5)
    assert "submit" not in place.calls


async def test_a_bridge_that_ends_while_it_submits_keeps_the_job_id(world: World) -> None:
    """`leave` waits for the submission, so that the job it makes is not forgotten."""
    life, place = world.life(SlowToSubmit)
    assert isinstance(place, SlowToSubmit)
    life.begin()
    leaving = asyncio.create_task(life.leave())
    await asyncio.sleep(0.02)
    place.gate.set()
    await asyncio.wait_for(leaving, 5)
    assert world.stored(life).job_id == "42"
