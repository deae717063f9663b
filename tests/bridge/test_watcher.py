"""The watch over waiting jobs: how often it asks, about whom, and whom it tells."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import pytest
from golden.reader import golden

from hpchub.bridge import watcher as watcher_module
from hpchub.bridge.watcher import Allowance, Watcher, interval_s
from hpchub.core.job import JobId, JobState, JobStatus
from hpchub.errors import ConfigError, HpchubError, SchedulerUnavailable
from hpchub.schedulers.slurm import Slurm

from .slurm import FakeSlurm

RUNNING, PENDING, GONE = JobId("78"), JobId("79"), JobId("99999")


@pytest.fixture
def slurm() -> FakeSlurm:
    return FakeSlurm()


@pytest.fixture
def watcher(slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> Watcher:
    monkeypatch.setattr(watcher_module, "_INTERVALS", ((float("inf"), 0.02),))
    monkeypatch.setattr(watcher_module, "_AFTER_FAILURE_S", 0.02)
    return Watcher(slurm, {"alpha": Slurm(), "beta": Slurm()})  # type: ignore[arg-type]


@pytest.fixture
def shared(slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> Watcher:
    """alpha has a service account, beta has none."""
    monkeypatch.setattr(watcher_module, "_INTERVALS", ((float("inf"), 0.02),))
    return Watcher(slurm, {"alpha": Slurm(), "beta": Slurm()}, {"alpha": "slurmwatch", "beta": ""})  # type: ignore[arg-type]


async def nobody_asks(watcher: Watcher) -> None:
    async with asyncio.timeout(2):
        while watcher._watches:  # noqa: ASYNC110  it must end without telling anybody
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("age_s", "took_s", "expected"),
    [
        (0, 0.01, 0.2), (2.99, 0, 0.2), (3, 0, 1), (14.9, 0.1, 1), (15, 0, 3), (59, 0.5, 3), (60, 0, 10),
        (1e9, 0, 10), (0, 1, 5), (0, 30, 30), (1e9, 60, 30), (1e9, 1.9, 10), (1e9, 3, 15),
    ],
)  # fmt: skip
def test_how_often(age_s: float, took_s: float, expected: float) -> None:
    """Often while a job is new, seldom later, and never more than a fifth of a slow controller's time."""
    assert interval_s(age_s, took_s) == expected


async def test_one_query_for_all_of_a_user(watcher: Watcher, slurm: FakeSlurm) -> None:
    """Ten waiting jobs are one squeue; each listener hears of its own, and of what it becomes."""
    ids = [JobId(one) for one in slurm.queue if one.isdigit()][:10]
    async with AsyncExitStack() as stack:
        queues = {
            one: await stack.enter_async_context(watcher.following("alice", "alpha", one)) for one in ids
        }
        for one, queue in queues.items():
            answer = await asyncio.wait_for(queue.get(), 2)
            assert isinstance(answer, JobStatus)
            assert answer.native == slurm.queue[one].split("\x1f")[1]
        (first, *_) = slurm.asked
        assert first[:2] == ("alice", "alpha") and ",".join(ids) in " ".join(first[2].argv)
        assert slurm.count("sacct") == 0
        slurm.queue[PENDING] = slurm.queue[RUNNING].replace(RUNNING, PENDING)
        while (answer := await asyncio.wait_for(queues[PENDING].get(), 2)).state is not JobState.RUNNING:
            pass
        assert answer.node == "c1"
    await nobody_asks(watcher)
    asked = len(slurm.asked)
    await asyncio.sleep(0.06)
    assert len(slurm.asked) == asked


async def test_users_and_clusters_are_apart(watcher: Watcher, slurm: FakeSlurm) -> None:
    """Nobody's login shell answers about another's job."""
    async with (
        watcher.following("alice", "alpha", RUNNING) as one,
        watcher.following("bob", "alpha", PENDING) as two,
        watcher.following("alice", "beta", GONE) as three,
    ):
        await asyncio.wait_for(asyncio.gather(one.get(), two.get(), three.get()), 2)
    for user, cluster, command in slurm.asked:
        (ids,) = [word.removeprefix("--jobs=") for word in command.argv if word.startswith("--jobs=")]
        assert {("alice", "alpha"): RUNNING, ("bob", "alpha"): PENDING, ("alice", "beta"): GONE}[
            user, cluster
        ] == ids
    await nobody_asks(watcher)


async def test_a_vanished_job_beside_a_live_one(watcher: Watcher, slurm: FakeSlurm) -> None:
    """The queue has one, the history the other; one that neither has is unknown, and not over."""
    del slurm.queue["72"]
    found = await watcher.ask("alice", "alpha", [RUNNING, JobId("72"), GONE])
    assert [found[one].state for one in (RUNNING, JobId("72"), GONE)] == [
        JobState.RUNNING, JobState.FINISHED, JobState.UNKNOWN,
    ]  # fmt: skip
    assert slurm.count("sacct") == 1 and RUNNING not in " ".join(slurm.asked[-1][2].argv)
    alone = await watcher.ask("alice", "alpha", [GONE])
    assert not alone[GONE].state.is_final


async def test_batches(watcher: Watcher, slurm: FakeSlurm) -> None:
    """450 jobs are three queries of 200 ids at most."""
    ids = [JobId(str(number)) for number in range(1000, 1450)]
    slurm.queue |= {one: slurm.queue[RUNNING].replace(RUNNING, one, 1) for one in ids}
    found = await watcher.ask("alice", "alpha", ids)
    assert list(found) == ids and {status.state for status in found.values()} == {JobState.RUNNING}
    sizes = [len(command.argv[-2].split(",")) for _, _, command in slurm.asked]
    assert sizes == [200, 200, 50]


async def test_failures_are_told_and_survived(watcher: Watcher, slurm: FakeSlurm) -> None:
    """The controller is away: everyone who waits hears of it, again and again, and then of the job."""
    slurm.answers["squeue"] = lambda _command: golden("squeue_controller_down")
    async with watcher.following("alice", "alpha", RUNNING) as answers:
        for _ in range(3):
            assert isinstance(await asyncio.wait_for(answers.get(), 2), SchedulerUnavailable)
        del slurm.answers["squeue"]
        slurm.answers["squeue"] = slurm._squeue
        while isinstance(answer := await asyncio.wait_for(answers.get(), 2), HpchubError):
            pass
        assert answer.state is JobState.RUNNING
    with pytest.raises(SchedulerUnavailable):
        slurm.answers["squeue"] = lambda _command: golden("squeue_controller_down")
        await watcher.ask("alice", "alpha", [RUNNING])


async def test_what_fails_at_once_is_not_asked_at_once_again(
    watcher: Watcher, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause after a failure is its own, however new the job is."""
    monkeypatch.setattr(watcher_module, "_AFTER_FAILURE_S", 0.1)
    slurm.failing["squeue"] = SchedulerUnavailable("garbage")
    began = time.monotonic()
    async with watcher.following("alice", "alpha", JobId("1")) as answers:
        for _ in range(3):
            assert isinstance(await asyncio.wait_for(answers.get(), 10), SchedulerUnavailable)
    assert time.monotonic() - began > 0.19, "two pauses are between three answers"
    await nobody_asks(watcher)


async def test_a_missing_history_hides_nothing_that_the_queue_knows(
    watcher: Watcher, slurm: FakeSlurm
) -> None:
    """The accounting is away, and one job has left the queue: only that one's listener hears of trouble."""
    slurm.answers["sacct"] = lambda _command: golden("sacct_database_down")
    async with (
        watcher.following("alice", "alpha", RUNNING) as live,
        watcher.following("alice", "alpha", GONE) as gone,
    ):
        answer = await asyncio.wait_for(live.get(), 2)
        assert isinstance(answer, JobStatus) and answer.state is JobState.RUNNING
        assert isinstance(await asyncio.wait_for(gone.get(), 2), SchedulerUnavailable)
    await nobody_asks(watcher)


async def test_a_fault_of_ours_is_told_too(watcher: Watcher, slurm: FakeSlurm) -> None:
    """A crash in the middle of a query leaves nobody waiting for a task that has died."""
    slurm.failing["squeue"] = ZeroDivisionError("canary")
    async with watcher.following("alice", "alpha", RUNNING) as answers:
        answer = await asyncio.wait_for(answers.get(), 2)
        assert isinstance(answer, HpchubError) and "ZeroDivisionError" in answer.message
        assert "canary" not in str(answer)
        slurm.failing.clear()
        while isinstance(await asyncio.wait_for(answers.get(), 2), HpchubError):
            pass
    await nobody_asks(watcher)


async def test_a_new_job_is_asked_about_at_once(
    watcher: Watcher, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the others are asked about seldom."""
    monkeypatch.setattr(watcher_module, "_INTERVALS", ((float("inf"), 60.0),))
    async with watcher.following("alice", "alpha", PENDING) as old:
        await asyncio.wait_for(old.get(), 2)
        async with watcher.following("alice", "alpha", RUNNING) as new:
            await asyncio.wait_for(asyncio.gather(old.get(), new.get()), 2)
    await nobody_asks(watcher)
    assert slurm.count("squeue") == 2


async def test_close(watcher: Watcher, slurm: FakeSlurm) -> None:
    """The bridge ends while jobs wait."""
    slurm.took_s = 30
    async with watcher.following("alice", "alpha", PENDING):
        await asyncio.sleep(0.01)
        await asyncio.wait_for(watcher.close(), 2)
    assert asyncio.all_tasks() == {asyncio.current_task()}


# -- with a service account --------------------------------------------------------------------


async def test_one_query_for_everybody(shared: Watcher, slurm: FakeSlurm) -> None:
    """Three users wait for ten jobs each: every query is the service account's, and names all thirty."""
    base = slurm.queue[PENDING]
    owners = {JobId(str(900 + number)): f"user{number % 3}" for number in range(30)}
    slurm.queue |= {one: base.replace(PENDING, one, 1) for one in owners}
    async with AsyncExitStack() as stack:
        queues = [
            await stack.enter_async_context(shared.following(user, "alpha", one))
            for one, user in owners.items()
        ]
        for queue in queues:
            answer = await asyncio.wait_for(queue.get(), 2)
            assert isinstance(answer, JobStatus) and answer.state is JobState.QUEUED
    assert {user for user, _, _ in slurm.asked} == {"slurmwatch"}
    assert slurm.asked[0][2].stdin.decode() == f"status - {','.join(owners)}\n"
    labels = {"cluster": "alpha", "kind": "status", "result": "ok"}
    counted = shared.metrics.registry.get_sample_value("hpchub_scheduler_queries_total", labels)
    assert counted == len(slurm.asked)
    await nobody_asks(shared)


async def test_a_cluster_without_one_asks_each_user(shared: Watcher, slurm: FakeSlurm) -> None:
    """The cluster file says which clusters have one."""
    async with (
        shared.following("alice", "beta", RUNNING) as one,
        shared.following("bob", "beta", PENDING) as two,
    ):
        await asyncio.wait_for(asyncio.gather(one.get(), two.get()), 2)
    assert {user for user, _, _ in slurm.asked} == {"alice", "bob"}


async def test_a_crowd_that_asks_at_once_is_two_queries(shared: Watcher, slurm: FakeSlurm) -> None:
    """A thousand tunnels are lost together: those who come while a query runs ask together next."""
    slurm.took_s = 0.05
    first = asyncio.create_task(shared.ask("alice", "alpha", [RUNNING]))
    await asyncio.sleep(0.01)
    rest = [asyncio.create_task(shared.ask(f"user{n}", "alpha", [PENDING])) for n in range(1000)]
    answers = [await task for task in (first, *rest)]
    assert answers[0][RUNNING].state is JobState.RUNNING
    assert all(answer == {PENDING: answers[1][PENDING]} for answer in answers[1:])
    assert slurm.count("squeue") == 2


async def test_one_who_gives_up_stops_nobody(shared: Watcher, slurm: FakeSlurm) -> None:
    """A server is stopped while others wait for the same answer."""
    slurm.took_s = 0.03
    leaving, staying = (asyncio.create_task(shared.ask("alice", "alpha", [RUNNING])) for _ in range(2))
    await asyncio.sleep(0.01)
    leaving.cancel()
    assert (await staying)[RUNNING].state is JobState.RUNNING


async def test_a_failed_batch_hides_no_other(shared: Watcher, slurm: FakeSlurm) -> None:
    """2,100 jobs are two queries; the second fails, and only its jobs are in doubt."""
    ids = [JobId(str(number)) for number in range(10_000, 12_100)]
    slurm.queue |= {one: slurm.queue[RUNNING].replace(RUNNING, one, 1) for one in ids}
    answer = slurm.answers["squeue"]
    slurm.answers["squeue"] = lambda command: (
        golden("squeue_controller_down") if ids[-1] in command.argv[1] else answer(command)
    )
    found = await shared.queries.statuses("alice", "alpha", ids)
    assert [isinstance(found[one], JobStatus) for one in ids] == [True] * 2000 + [False] * 100
    assert slurm.count("squeue") == 2


async def test_a_service_account_that_cannot_ask_is_told_of(shared: Watcher, slurm: FakeSlurm) -> None:
    """Nobody is declared dead, and the site's mistake is said to whoever waits."""
    slurm.failing["squeue"] = ConfigError("The signer lets slurmwatch ask for no job's state.")
    async with shared.following("alice", "alpha", RUNNING) as answers:
        assert isinstance(await asyncio.wait_for(answers.get(), 2), ConfigError)
    await nobody_asks(shared)


def test_a_burst_and_then_a_steady_pace() -> None:
    """Thirty queries follow each other freely, then one comes every three seconds; rest gives back."""
    allowance = Allowance()
    assert [allowance.take(1000.0) for _ in range(30)] == [0.0] * 30
    now, waits = 1000.0, []
    for _ in range(10):
        waits.append(allowance.take(now))
        now += waits[-1]
    assert waits == pytest.approx([3.0] * 10)
    assert [allowance.take(now + 3600) for _ in range(30)] == [0.0] * 30


async def test_people_who_keep_coming_do_not_hurry_the_controller(
    shared: Watcher, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each new job is asked about at once, but only as long as the allowance lasts."""
    monkeypatch.setattr(watcher_module, "_BURST", 5)
    async with AsyncExitStack() as stack:
        for number in range(40):
            await stack.enter_async_context(shared.following("alice", "alpha", JobId(str(number))))
            await asyncio.sleep(0.01)
        assert slurm.count("squeue") <= 6
        await shared.close()
