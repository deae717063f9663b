"""One server's life, in places that behave and in places that do not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hpchub.bridge import life as life_module
from hpchub.core.server import Phase

from .places import (
    Crashes,
    DiesWhileQueued,
    DiesWhileStarting,
    NeverAnswers,
    NeverListens,
    NeverRuns,
    OwnerLoggedOut,
    SlowToSubmit,
    WellBehaved,
)
from .world import TOKEN, World, end, ready, until


async def test_the_phases_of_a_good_life(world: World) -> None:
    """Each phase is told once and in order, stored, and the socket is there while it is ready."""
    life, place = world.life(WellBehaved)
    life.begin()
    life.begin()
    await ready(life)
    await until(lambda: world.stored(life).phase is Phase.READY)
    assert life.local_socket.is_socket()
    assert Path(f"{life.local_socket}:80").resolve() == life.local_socket
    assert world.stored(life).handed_over
    await life.stop()
    assert place.calls == ["prepare", "submit", "cancel", "clean_up"]
    assert [event.phase for event in life.progress.events] == [
        Phase.SUBMITTED, Phase.QUEUED, Phase.STARTING, Phase.STARTING, Phase.READY, Phase.STOPPING,
        Phase.ENDED,
    ]  # fmt: skip
    percents = [event.percent for event in life.progress.events]
    assert percents == sorted(percents)
    stored = world.stored(life)
    assert (stored.phase, stored.error, stored.native_state) == (Phase.ENDED, None, "CANCELLED")
    assert place.node.open_attachments == []


async def test_the_environment_is_dropped_once_handed_over(world: World) -> None:
    """The launcher gets the token once; the life keeps no copy, and the store and events never had one."""
    life, place = world.life(WellBehaved)
    life.begin()
    await ready(life)
    (first,) = place.node.handovers
    assert first["environ"]["JUPYTERHUB_API_TOKEN"] == TOKEN
    assert TOKEN not in repr(vars(life)) and life.record.environ is None
    assert TOKEN not in repr(world.stored(life)) and TOKEN not in repr(life.progress.events)


async def test_a_death_in_the_queue_is_told(world: World) -> None:
    """The error says so, and the job is cancelled all the same."""
    life, place = world.life(DiesWhileQueued)
    life.begin()
    await end(life)
    assert life.record.error is not None and "cancelled" in life.record.error["message"]
    assert place.calls == ["prepare", "submit", "cancel", "keep_log"]
    assert life.record.environ is None


async def test_a_death_while_starting_carries_the_log(world: World) -> None:
    """It is noticed at once, not at a timeout, and the end of the log comes with it."""
    life, _ = world.life(DiesWhileStarting)
    life.begin()
    await end(life)
    error = world.stored(life).error
    assert error is not None
    assert (error["error"], error["log_tail"], error["log_path"]) == (
        "StartFailed",
        "no jupyterhub",
        "server.log",
    )
    assert world.stored(life).phase is Phase.ENDED


@pytest.mark.parametrize("kind", [NeverListens, NeverAnswers])
@pytest.mark.slow
async def test_a_server_that_never_comes_up_is_given_up(
    kind: type[WellBehaved], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the launcher or the notebook is silent, the start ends at its limit, and the job with it."""
    monkeypatch.setattr(life_module, "_START_LIMIT_S", 0.3)
    monkeypatch.setattr(life_module, "_LAUNCHER_WAIT_S", 0.1)
    life, place = world.life(kind)
    life.begin()
    await end(life)
    assert life.record.error is not None and "did not answer" in life.record.error["message"]
    assert place.calls[-2:] == ["cancel", "keep_log"]


async def test_a_lost_connection_comes_back(world: World) -> None:
    """The server stays; the way is made anew, and the second handover carries no environment."""
    life, place = world.life(WellBehaved)
    life.begin()
    await ready(life)
    place.node.reachable = False
    place.node.cut()
    await until(lambda: place.calls.count("verdict") > 1)
    assert life.record.phase is Phase.READY and not life.ended.is_set()
    place.node.reachable = True
    await until(lambda: len(place.node.handovers) == 2 and life.local_socket.exists())
    assert set(place.node.handovers[1]) == {"hub_socket"}


async def test_a_slow_notebook_that_was_ready_once_is_never_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Doubt is never death: the start's limit does not count after a reconnect."""
    life, place = world.life(WellBehaved)
    life.begin()
    await ready(life)
    monkeypatch.setattr(life_module, "_START_LIMIT_S", 0.1)
    place.node.notebook_answers = False
    place.node.cut()
    await asyncio.sleep(0.4)
    assert not life.ended.is_set() and "cancel" not in place.calls
    place.node.notebook_answers = True
    await until(lambda: life.local_socket.exists())


async def test_an_end_by_itself_is_noticed(world: World) -> None:
    """The person shuts the server down: the channel closes, the place says so, the folder goes."""
    life, place = world.life(WellBehaved)
    life.begin()
    await ready(life)
    place.node.die()
    await end(life)
    assert life.record.error is None and life.record.native_state == "COMPLETED"
    assert place.calls == ["prepare", "submit", "verdict", "clean_up"]


async def test_a_crash_is_reported_and_the_job_cancelled(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of ours ends one server, in words that name its kind, and leaves no job behind."""
    life, place = world.life(Crashes)
    life.begin()
    await end(life)
    assert life.record.error is not None and "ZeroDivisionError" in life.record.error["message"]
    assert "canary" not in str(life.record.error) and place.calls == [
        "prepare",
        "submit",
        "cancel",
        "keep_log",
    ]
    assert life.record.id in caplog.text and TOKEN not in caplog.text


async def test_nothing_is_sent_to_a_folder_of_somebody_else(world: World) -> None:
    """Whoever made the server's folder first gets neither its token nor the browser's traffic."""
    life, place = world.life(WellBehaved)
    place.foreign = True
    life.begin()
    await end(life)
    assert life.record.error is not None and life.record.error["error"] == "NotAllowed"
    assert not life.record.handed_over and not place.node.handovers


async def test_what_a_person_is_told_is_bounded(world: World) -> None:
    """A reason that never ends, or holds control characters, fills neither memory nor a terminal."""
    life, _ = world.life(WellBehaved)
    for number in range(3000):
        life.progress.tell(Phase.QUEUED, f"{number}\x1b[2J\n" + "x" * 10_000)
    assert len(life.progress.events) <= 1000
    assert all(len(event.message) <= 500 and event.message.isprintable() for event in life.progress.events)


async def test_ready_is_not_said_of_a_tunnel_that_is_gone(world: World) -> None:
    """What a former bridge left as ready is ready again only once it is."""
    life, _ = world.life(WellBehaved)
    life.begin()
    await until(lambda: life.record.phase is Phase.READY)
    await life.leave()
    again, _ = world.life(WellBehaved, world.stored(life))
    assert again.record.phase is not Phase.READY


async def test_a_start_waits_for_its_turn(world: World) -> None:
    """Beyond what the queue lets through a start begins nothing, and says how many are before it."""
    slow = [world.life(SlowToSubmit) for _ in range(2)]
    for life, _ in slow:
        life.begin()
    await asyncio.sleep(0)
    late = [world.life(WellBehaved) for _ in range(3)]
    for life, _ in late:
        life.begin()
    await until(lambda: world.queue.waiting == 3)
    told = [life.progress.events[-1].message.partition(": ")[2] for life, _ in late]
    assert told == ["yours is the next", "1 start before yours", "2 starts before yours"]
    assert [place.calls for _, place in late] == [[], [], []]
    for _, place in slow:
        assert isinstance(place, SlowToSubmit)
        place.gate.set()
    for life, _ in (*slow, *late):
        await ready(life)
        await life.stop()


async def test_a_job_in_the_queue_holds_no_turn(world: World) -> None:
    """However many wait for the scheduler, others start."""
    for _ in range(4):
        life, _ = world.life(NeverRuns)
        life.begin()
        await until(lambda life=life: life.record.phase is Phase.QUEUED)
    life, _ = world.life(WellBehaved)
    life.begin()
    await ready(life)


@pytest.mark.slow
async def test_a_job_that_begins_while_its_owner_is_logged_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is neither ended nor given up, however long that lasts, and is entered as soon as they log in."""
    monkeypatch.setattr(life_module, "_START_LIMIT_S", 0.2)
    life, place = world.life(OwnerLoggedOut)
    assert isinstance(place, OwnerLoggedOut)
    life.begin()
    await until(lambda: place.calls.count("attach") >= 4)
    assert life.record.phase is not Phase.ENDED and "cancel" not in place.calls
    monkeypatch.undo()
    place.logged_in = True
    life.try_now()
    await ready(life)


async def test_the_launcher_learns_the_end(world: World) -> None:
    """A launcher is told when its job's time is up, again after a lost connection, and after each change."""
    life, place = world.life(WellBehaved)
    life.begin()
    await ready(life)
    life.progress.end.set(1000)
    place.node.cut()
    await until(lambda: len(place.node.told) == 2)
    life.progress.end.set(2000)
    told = [(line["ends_at"], line["warn_before_s"], line["successor"]) for line in place.node.told]
    assert told == [(1000, [900, 300], True), (1000, [900, 300], True), (2000, [900, 300], True)]
