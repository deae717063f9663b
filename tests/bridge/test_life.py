"""One server's life, in places that behave and in places that do not."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, event

from hpchub.bridge import keeper as keeper_module
from hpchub.bridge import life as life_module
from hpchub.bridge.keeper import Keeper
from hpchub.bridge.life import ServerLife
from hpchub.bridge.progress import Progress
from hpchub.bridge.start_queue import StartQueue
from hpchub.bridge.store import ServerRecord, Store
from hpchub.core.secret import Secret
from hpchub.core.server import Phase
from hpchub.errors import NotAllowed, SchedulerUnavailable, StoreUnavailable

from .places import (
    CannotBeCancelledAtFirst,
    CannotSubmit,
    Crashes,
    DiesWhileQueued,
    DiesWhileStarting,
    NeedsALogin,
    NeverAnswers,
    NeverListens,
    NeverRuns,
    OwnerLoggedOut,
    SlowToSubmit,
    WellBehaved,
)

TOKEN = "canary-token-8c1"
ENVIRON = {"JUPYTERHUB_API_TOKEN": TOKEN, "JUPYTERHUB_API_URL": "http://hub/hub/api"}


class World:
    """Lives over a store, and what must be gone when they have ended."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.keeper = Keeper(store)
        self.folder = folder
        self.lives: list[ServerLife] = []
        self.queue = StartQueue(2)

    def life(
        self,
        kind: type[WellBehaved],
        record: ServerRecord | None = None,
        environ: dict[str, str] | None = ENVIRON,
    ) -> tuple[ServerLife, WellBehaved]:
        if record is None:
            record = a_record()
            record.environ = None if environ is None else Secret(json.dumps(environ))
            self.store.write([record], [])
        progress = Progress(record)
        place = kind(record, progress)
        life = ServerLife(
            record,
            place,
            self.keeper,
            local_socket=self.folder / f"{record.id}.sock",
            hub_socket=self.folder / "hub.sock",
            progress=progress,
            queue=self.queue,
        )
        self.lives.append(life)
        return life, place

    def stored(self, life: ServerLife) -> ServerRecord:
        record = self.store.find(life.record.id)
        assert record is not None
        return record


@contextmanager
def unwritable(store: Store) -> Iterator[None]:
    """The database refuses every write, as on a file system that is full or was remounted read-only."""

    def refuse(connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA query_only = {state}")

    state = "ON"
    event.listen(store._engine, "begin", refuse)
    try:
        yield
    finally:
        state = "OFF"
        with store._engine.begin():  # the pool's one connection writes again
            event.remove(store._engine, "begin", refuse)


def a_record() -> ServerRecord:
    return ServerRecord(
        id=secrets.token_hex(16), user="alice", server_name="", cluster="alpha", options={},
        base_url="/user/alice/", created_at=time.time(),
    )  # fmt: skip


@pytest.fixture
async def world(store: Store, short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Checks at the end that no task, socket or attachment is left behind."""
    monkeypatch.setattr(life_module, "_END_LIMIT_S", 0.05)
    before = asyncio.all_tasks()
    world = World(store, short_dir)
    yield world
    for life in world.lives:
        await life.leave()
    await world.keeper.close()
    await asyncio.sleep(0.01)
    assert list(short_dir.iterdir()) == []
    assert asyncio.all_tasks() - before <= {asyncio.current_task()}


async def until(holds: Callable[[], object], limit_s: float = 5) -> None:
    async with asyncio.timeout(limit_s):
        while not holds():  # noqa: ASYNC110  it waits for any condition
            await asyncio.sleep(0.005)


async def ready(life: ServerLife) -> None:
    await until(lambda: life.record.phase is Phase.READY)


async def end(life: ServerLife) -> None:
    async with asyncio.timeout(5):
        await life.ended.wait()


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
    monkeypatch.setattr(life_module, "_START_LIMIT_S", 0.1)
    life, place = world.life(WellBehaved)
    life.begin()
    await ready(life)
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
    monkeypatch.setattr(life_module, "_START_LIMIT_S", 0.05)
    monkeypatch.setattr(life_module, "_LONGEST_PAUSE_S", 0.02)
    life, place = world.life(WellBehaved)
    life.begin()
    await ready(life)
    await life.leave()
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


async def test_nothing_is_submitted_that_the_store_does_not_know(world: World) -> None:
    """A bridge after this one would not find the job: the start is refused in words instead."""
    life, place = world.life(WellBehaved)
    with unwritable(world.store):
        life.begin()
        await end(life)
    assert "submit" not in place.calls
    assert life.record.error is not None and "begins nothing new" in life.record.error["message"]


async def test_a_store_that_cannot_be_written_ends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's disk is full: the job goes on, its id is written once there is room, and a stop works."""
    monkeypatch.setattr(keeper_module, "_RETRY_S", 0.02)
    life, place = world.life(SlowToSubmit)
    assert isinstance(place, SlowToSubmit)
    life.begin()
    await until(lambda: world.stored(life).folder)
    with unwritable(world.store):
        place.gate.set()
        await ready(life)
        assert world.stored(life).job_id == ""
    await until(lambda: world.stored(life).job_id == "42" and world.stored(life).phase is Phase.READY)
    with unwritable(world.store):
        await life.stop()
        assert life.ended.is_set() and "cancel" in place.calls
        assert world.stored(life).phase is Phase.READY
    await until(lambda: world.stored(life).phase is Phase.ENDED)


async def test_nothing_new_begins_while_the_store_cannot_be_written(world: World) -> None:
    """A start that would leave no trace is refused in words, with the database's own reason."""
    with unwritable(world.store), pytest.raises(StoreUnavailable, match="readonly database"):
        await world.keeper.add(a_record())
    await world.keeper.add(a_record())


async def test_what_could_not_be_written_is_written_at_the_end(world: World) -> None:
    """A bridge that ends while rows wait tries once more."""
    life, _ = world.life(WellBehaved)
    with unwritable(world.store):
        life.record.job_id = "77"
        await world.keeper.save(life.record)
        assert world.stored(life).job_id == ""
    await world.keeper.close()
    assert world.stored(life).job_id == "77"


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


@pytest.mark.parametrize("let_go", [False, True])
async def test_a_stop_while_it_waits_for_its_turn(world: World, let_go: bool) -> None:
    """The place goes to the next at once, and the stopped one begins nothing; so when the bridge ends."""
    slow = [world.life(SlowToSubmit) for _ in range(2)]
    waits, place = world.life(WellBehaved)
    last, _ = world.life(WellBehaved)
    for life in (*(life for life, _ in slow), waits, last):
        life.begin()
    await until(lambda: world.queue.waiting == 2)
    async with asyncio.timeout(1):
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
