"""The sweep: what it finds out, how rarely it asks, and that it ends nothing."""

from __future__ import annotations

import pytest
from golden.reader import golden, record

from hpchub.bridge import sweep as sweep_module
from hpchub.bridge.outlook import Outlook
from hpchub.bridge.progress import Progress
from hpchub.bridge.queries import Queries
from hpchub.bridge.store import ServerRecord
from hpchub.bridge.sweep import Sweep
from hpchub.core.job import JobId
from hpchub.core.server import Phase
from hpchub.errors import HostUnreachable, NotAllowed
from hpchub.schedulers.slurm import Slurm

from .slurm import FakeSlurm

JOBS: dict[str, JobId] = record("account_times")["jobs"]
MINUTE = 60.0


def server(job_id: str, phase: Phase, user: str = "alice", cluster: str = "alpha") -> Progress:
    return Progress(
        ServerRecord(
            id=f"{cluster}-{user}-{job_id}", user=user, server_name="", cluster=cluster, base_url="/",
            options={"resources": {"partition": "cpu"}}, created_at=0.0, phase=phase, job_id=job_id,
            native_state="RUNNING" if phase is Phase.READY else "",
        )
    )  # fmt: skip


@pytest.fixture
def slurm() -> FakeSlurm:
    return FakeSlurm()


@pytest.fixture
def servers() -> list[Progress]:
    return []


@pytest.fixture
def sweep(slurm: FakeSlurm, servers: list[Progress]) -> Sweep:
    """alpha has a service account, beta has none."""
    queries = Queries(slurm, {"alpha": Slurm(), "beta": Slurm()}, {"alpha": "slurmwatch"})  # type: ignore[arg-type]
    return Sweep(queries, lambda: servers)


def said(slurm: FakeSlurm) -> list[tuple[str, str]]:
    """Who asked what, and forget it."""
    asked = [(user, command.stdin.decode().partition(" ")[0] or "times") for user, _, command in slurm.asked]
    slurm.asked.clear()
    return asked


async def test_everybodys_outlook_is_two_queries(
    sweep: Sweep, slurm: FakeSlurm, servers: list[Progress]
) -> None:
    """Expected start and place of all who wait, the end of all that run: one question for each."""
    waiting = server(JOBS["next"], Phase.QUEUED)
    bobs = server(JOBS["bobs"], Phase.SUBMITTED, "bob")
    running = server(JOBS["running"], Phase.READY, "carol")
    servers += [waiting, bobs, running, server("", Phase.QUEUED, "dora")]
    waiting.outlook = Outlook(reason="Pending.")
    await sweep.look(0.0)
    assert said(slurm) == [("slurmwatch", "times"), ("slurmwatch", "pending")]
    times = Slurm().parse_times(golden("squeue_times"))
    assert waiting.outlook == Outlook(
        reason="Pending.", partition="cpu", queue_place=0, expected_start=times[JOBS["next"]].starts_at
    )
    assert bobs.outlook.queue_place == 1
    assert (running.outlook, running.end.at) == (Outlook(), times[JOBS["running"]].ends_at)


async def test_each_asks_about_their_own(sweep: Sweep, slurm: FakeSlurm, servers: list[Progress]) -> None:
    """Without a service account nobody's place is known, and nobody's word is taken for others."""
    servers += [
        server(JOBS["next"], Phase.QUEUED, "alice", "beta"),
        server(JOBS["bobs"], Phase.QUEUED, "bob", "beta"),
    ]
    await sweep.look(0.0)
    assert sorted(said(slurm)) == [("alice", "times"), ("bob", "times")]
    assert all(one.outlook.expected_start and one.outlook.queue_place is None for one in servers)


async def test_how_rarely(sweep: Sweep, slurm: FakeSlurm, servers: list[Progress]) -> None:
    """Those that wait once a minute, those that run every five; a new one soon, and twice."""
    servers.append(server(JOBS["running"], Phase.READY))
    await sweep.look(0.0)
    assert len(said(slurm)) == 1
    for second in range(2, 300, 2):
        await sweep.look(float(second))
    assert said(slurm) == []
    await sweep.look(300.0)
    assert said(slurm) == [("slurmwatch", "times")]
    servers.append(server(JOBS["next"], Phase.QUEUED))
    await sweep.look(302.0)
    assert said(slurm) == []
    for second in range(320, 320 + 240, 2):
        await sweep.look(float(second))
    assert [what for _, what in said(slurm)] == ["times", "pending"] * 5


async def test_a_job_that_begins_to_run_is_asked_about_again(
    sweep: Sweep, slurm: FakeSlurm, servers: list[Progress]
) -> None:
    """Only then its end is known for certain."""
    one = server(JOBS["running"], Phase.QUEUED)
    servers.append(one)
    await sweep.look(0.0)
    one.record.phase = Phase.STARTING
    await sweep.look(30.0)
    assert one.end.at
    assert [what for _, what in said(slurm)] == ["times", "pending", "times"]


async def test_a_moved_end_is_noticed(sweep: Sweep, slurm: FakeSlurm, servers: list[Progress]) -> None:
    """As is a job that the staff has suspended; neither ends the server."""
    one = server(JOBS["running"], Phase.READY)
    servers.append(one)
    await sweep.look(0.0)
    slurm.times[JOBS["running"]] = "\x1f".join((JOBS["running"], "SUSPENDED", "1", "1800000000"))
    await sweep.look(301.0)
    assert (one.end.at, one.record.native_state, one.record.phase) == (
        1800000000, "SUSPENDED", Phase.READY,
    )  # fmt: skip
    assert one.events == []


@pytest.mark.parametrize("row", [None, "COMPLETED", "CANCELLED"])
async def test_no_answer_ends_a_server(
    sweep: Sweep, slurm: FakeSlurm, servers: list[Progress], row: str | None
) -> None:
    """The job has vanished, or is said to be over: while its tunnel is open the server stays."""
    one = server(JOBS["running"], Phase.READY)
    servers.append(one)
    if row is None:
        del slurm.times[JOBS["running"]]
    else:
        slurm.times[JOBS["running"]] = "\x1f".join((JOBS["running"], row, "1", "2"))
    await sweep.look(0.0)
    assert (one.record.phase, one.record.error, one.events) == (Phase.READY, None, [])


@pytest.mark.parametrize("error", [HostUnreachable("canary"), NotAllowed("no session"), ZeroDivisionError()])
async def test_a_failure_keeps_what_is_known(
    sweep: Sweep, slurm: FakeSlurm, servers: list[Progress], error: Exception
) -> None:
    """And is not repeated for a minute; another cluster does not suffer from it."""
    one, other = server(JOBS["running"], Phase.READY), server(JOBS["running"], Phase.READY, "bob", "beta")
    one.end.set(5)
    other.end.set(5)
    servers += [one, other]
    slurm.failing["squeue"] = error
    await sweep.look(0.0)
    assert (one.end.at, other.end.at) == (5, 5)
    slurm.failing.clear()
    said(slurm)
    await sweep.look(MINUTE - 2)
    assert said(slurm) == []
    await sweep.look(MINUTE)
    assert one.end.at != 5 != other.end.at
    assert sorted(said(slurm)) == [("bob", "times"), ("slurmwatch", "times")]


async def test_a_slow_controller_is_not_hurried(
    sweep: Sweep, slurm: FakeSlurm, servers: list[Progress], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an answer that took t the next question waits at least 5 t."""
    monkeypatch.setattr(sweep_module, "_REST_S", 0.0)
    slurm.took_s = 0.02
    servers.append(server(JOBS["running"], Phase.READY))
    await sweep.look(0.0)
    servers.append(server(JOBS["next"], Phase.QUEUED))
    said(slurm)
    await sweep.look(0.09)
    assert said(slurm) == []
    await sweep.look(1.0)
    assert len(said(slurm)) == 2
