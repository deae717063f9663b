"""A job as its place sees it: what the person is told while it waits, and what is made of an odd end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace

import pytest
from golden.reader import golden

from hpchub.bridge import in_job as in_job_module
from hpchub.bridge import watcher as watcher_module
from hpchub.bridge.in_job import InJob
from hpchub.bridge.outlook import Outlook
from hpchub.bridge.progress import Progress
from hpchub.bridge.store import ServerRecord
from hpchub.bridge.watcher import Watcher
from hpchub.core.choices import choose
from hpchub.core.cluster import Attach, Cluster
from hpchub.core.command import CommandResult
from hpchub.core.job import JobId
from hpchub.core.server import Phase
from hpchub.errors import ConfigError, HostUnreachable, SchedulerUnavailable, StartFailed
from hpchub.schedulers.slurm import Slurm

from .slurm import FakeSlurm

PENDING, RUNNING = JobId("79"), JobId("78")


async def said(progress: Progress, words: str) -> str:
    async with asyncio.timeout(2):
        while not any(words in event.message for event in progress.events):
            await progress.after(len(progress.events), 1)
    return progress.events[-1].message


async def test_waiting_is_explained(clusters: Mapping[str, Cluster], monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason at once, place and start as soon as they are known; nothing of it once the job runs."""
    monkeypatch.setattr(watcher_module, "_INTERVALS", ((float("inf"), 0.01),))
    slurm = FakeSlurm()
    options = choose(clusters, {"cluster": "alpha", "placement": "compute"})
    record = ServerRecord(
        id="9f", user="alice", server_name="", cluster="alpha", options=options.as_dict(), base_url="/",
        created_at=0.0, job_id=PENDING,
    )  # fmt: skip
    progress = Progress(record)
    watcher = Watcher(slurm, {"alpha": Slurm()})  # type: ignore[arg-type]
    job = InJob(record, clusters["alpha"], options, slurm, progress, Slurm(), watcher)  # type: ignore[arg-type]
    waits = asyncio.create_task(job.until_running())
    reason = "Pending: waiting for resources to become free (Resources)."
    assert await said(progress, "Resources") == f"Job 79: {reason}"
    assert (progress.outlook, record.phase) == (Outlook(reason=reason), Phase.QUEUED)

    progress.outlook = Outlook(reason=reason, partition="cpu", queue_place=3)
    assert await said(progress, "About 3") == f"Job 79: {reason} About 3 before it in partition cpu."

    slurm.queue[PENDING] = slurm.queue[RUNNING].replace(RUNNING, PENDING, 1)
    await asyncio.wait_for(waits, 2)
    assert (record.node, progress.outlook) == ("c1", Outlook())
    await watcher.close()


_ROW = "\x1f".join(("{id}", "{state}", "c1", "{reason}"))


def place_of(slurm: FakeSlurm, clusters: Mapping[str, Cluster], job_id: str, *, handed_over: bool) -> InJob:
    options = choose(clusters, {"cluster": "alpha", "placement": "compute"})
    record = ServerRecord(
        id="f" * 32, user="alice", server_name="", cluster="alpha", options=options.as_dict(),
        base_url="/user/alice/", created_at=time.time(), job_id=job_id, node="c1", handed_over=handed_over,
    )  # fmt: skip
    slurm.answers["/bin/sh"] = slurm.answers["sh"] = lambda _command: CommandResult(exit_code=0, stdout="")
    scheduler = Slurm()
    watcher = Watcher(slurm, {"alpha": scheduler})  # type: ignore[arg-type]
    return InJob(record, clusters["alpha"], options, slurm, Progress(record), scheduler, watcher)  # type: ignore[arg-type]


async def test_a_job_that_everybody_has_forgotten_can_be_stopped(clusters: dict[str, Cluster]) -> None:
    """Neither queue nor history has it, and scancel says nothing: one cancel is enough."""
    slurm = FakeSlurm()
    slurm.answers["scancel"] = lambda _command: golden("scancel_vanished")
    await place_of(slurm, clusters, "99999", handed_over=True).cancel()
    assert slurm.count("scancel") == 1


async def test_a_history_that_says_pending_for_ever_keeps_no_stop_waiting(
    clusters: dict[str, Cluster],
) -> None:
    """A controller that lost a job never told the accounting; what the queue has not is over."""
    slurm = FakeSlurm()
    slurm.history["99999"] = "\x1f".join(("99999", "PENDING", "None assigned", "0:0"))
    place = place_of(slurm, clusters, "99999", handed_over=False)
    await place.cancel()
    assert slurm.count("scancel") == 1 and place.record.native_state == ""


async def test_a_stop_without_accounting(clusters: dict[str, Cluster]) -> None:
    """The queue's word is enough where the history cannot be asked."""
    slurm = FakeSlurm()
    slurm.answers["sacct"] = lambda _command: golden("sacct_database_down")
    await place_of(slurm, clusters, "99999", handed_over=True).cancel()


async def test_a_requeued_job_is_an_end_with_a_reason(clusters: dict[str, Cluster]) -> None:
    """What was in memory is gone: the person hears so, with the scheduler's own state."""
    slurm = FakeSlurm()
    slurm.queue["7"] = _ROW.format(id="7", state="PENDING", reason="BeginTime")
    verdict = await place_of(slurm, clusters, "7", handed_over=True).verdict()
    assert verdict is not None and verdict.native_state == "PENDING"
    assert isinstance(verdict.error, StartFailed)
    assert "put back into the queue" in verdict.error.message and "Start it again" in str(verdict.error)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("TIMEOUT", "its time was up (TIMEOUT)"),
        ("OUT_OF_MEMORY", "used more memory than it had asked for (OUT_OF_MEMORY)"),
        ("NODE_FAIL", "its node failed (NODE_FAIL)"),
        ("PREEMPTED", "to make room for a job that goes first (PREEMPTED)"),
        ("CANCELLED", "Cancelled (CANCELLED)"),
        ("BOOT_FAIL", "The node failed to start (BOOT_FAIL)"),
        ("DEADLINE", "could not meet its deadline (DEADLINE)"),
    ],
)
async def test_every_end_is_explained(clusters: dict[str, Cluster], state: str, words: str) -> None:
    """Plain words, the scheduler's own beside them."""
    slurm = FakeSlurm()
    slurm.queue["7"] = _ROW.format(id="7", state=state, reason="None")
    verdict = await place_of(slurm, clusters, "7", handed_over=True).verdict()
    assert verdict is not None and words in str(verdict.error)


@pytest.mark.parametrize("attach", list(Attach))
def test_a_job_is_entered_as_it_was_made(clusters: dict[str, Cluster], attach: Attach) -> None:
    """One with an sshd of its own is entered by srun, whatever a changed cluster file says."""
    compute = clusters["alpha"].compute
    assert compute is not None
    changed = {"alpha": replace(clusters["alpha"], compute=replace(compute, attach=attach))}
    place = place_of(FakeSlurm(), changed, "7", handed_over=True)
    place.record.host_public_key = "the job's own"
    assert place._way_in is Attach.SRUN
    place.record.host_public_key, place.record.folder = "", "/home/alice/f"
    if attach is Attach.SRUN:
        with pytest.raises(ConfigError, match="another `attach`"):
            str(place._way_in)
    else:
        assert place._way_in is attach


async def test_a_job_not_handed_over_that_waits_is_alive(clusters: dict[str, Cluster]) -> None:
    """A job that goes back to the queue before its server began has lost nothing."""
    slurm = FakeSlurm()
    slurm.queue["7"] = _ROW.format(id="7", state="PENDING", reason="Resources")
    assert await place_of(slurm, clusters, "7", handed_over=False).verdict() is None


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_job_module, "_LOOK_AGAIN_S", 0.01)
    monkeypatch.setattr(in_job_module, "_LOOK_FOR_S", 0.05)


@pytest.mark.parametrize("answer", ["sbatch_munge_down", "sbatch_controller_down"])
async def test_a_login_node_that_can_submit_nothing(clusters: dict[str, Cluster], answer: str) -> None:
    """sbatch says that nothing was sent: another login node is tried, once; the job is submitted once."""
    slurm = FakeSlurm()
    answers = [golden(answer), CommandResult(exit_code=0, stdout="79\n")]
    slurm.answers["sbatch"] = lambda _command: answers.pop(0)
    place = place_of(slurm, clusters, "", handed_over=False)
    place.record.folder = "/home/alice/f"
    await place.submit(again=False)
    assert place.record.job_id == "79" and slurm.asked_on == ["login1", "login2"]


async def test_no_login_node_can_submit(clusters: dict[str, Cluster]) -> None:
    """Each is tried once, and the person reads what sbatch said."""
    slurm = FakeSlurm()
    slurm.answers["sbatch"] = lambda _command: golden("sbatch_controller_down")
    place = place_of(slurm, clusters, "", handed_over=False)
    place.record.folder = "/home/alice/f"
    with pytest.raises(SchedulerUnavailable, match="connect failure"):
        await place.submit(again=False)
    assert slurm.asked_on == ["login1", "login2"]


@pytest.mark.usefixtures("quick")
async def test_what_may_have_been_submitted_is_not_submitted_elsewhere(clusters: dict[str, Cluster]) -> None:
    """sbatch had no answer: the job is looked for, from another login node, and submitted on none."""
    slurm = FakeSlurm()
    slurm.answers["sbatch"] = lambda _command: golden("sbatch_controller_hangs")
    slurm.answers["squeue"] = lambda _command: CommandResult(exit_code=0, stdout="")
    place = place_of(slurm, clusters, "", handed_over=False)
    place.record.folder = "/home/alice/f"
    with pytest.raises(SchedulerUnavailable, match="timed out"):
        await place.submit(again=False)
    assert slurm.count("sbatch") == 1 and slurm.avoided == ["login1"]


def _away(_command: object) -> CommandResult:
    raise HostUnreachable("sbatch on login1 did not answer within 6 s.")


@pytest.mark.usefixtures("quick")
async def test_an_answer_that_was_lost_is_no_lost_job(clusters: dict[str, Cluster]) -> None:
    """sbatch took the job and the way back was cut: it is found by its name, and not submitted again."""
    slurm = FakeSlurm()
    slurm.answers["sbatch"] = _away
    slurm.answers["squeue"] = lambda _command: CommandResult(exit_code=0, stdout="77\n")
    place = place_of(slurm, clusters, "", handed_over=False)
    place.record.folder = "/home/alice/f"
    await place.submit(again=False)
    assert place.record.job_id == "77" and slurm.count("sbatch") == 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("queue", [CommandResult(exit_code=0, stdout=""), None])
async def test_an_answer_that_never_was_is_the_reason(
    clusters: dict[str, Cluster], queue: CommandResult | None
) -> None:
    """No such job, or nobody can tell for a while: the person reads what sbatch met."""
    slurm = FakeSlurm()
    slurm.answers["sbatch"] = _away
    slurm.answers["squeue"] = _away if queue is None else lambda _command: queue
    place = place_of(slurm, clusters, "", handed_over=False)
    place.record.folder = "/home/alice/f"
    with pytest.raises(HostUnreachable, match="sbatch on login1"):
        await place.submit(again=False)
    assert slurm.count("sbatch") == 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("found", ["78\n", ""])
async def test_a_bridge_that_died_while_it_submitted(clusters: dict[str, Cluster], found: str) -> None:
    """The next one asks the queue first, for as long as that takes, and submits only what is not there."""
    slurm = FakeSlurm()
    answers = [_away, _away, lambda _command: CommandResult(exit_code=0, stdout=found)]
    slurm.answers["squeue"] = lambda command: answers.pop(0)(command)
    slurm.answers["sbatch"] = lambda _command: CommandResult(exit_code=0, stdout="79\n")
    place = place_of(slurm, clusters, "", handed_over=False)
    place.record.folder = "/home/alice/f"
    await place.submit(again=True)
    assert (place.record.job_id, slurm.count("sbatch")) == (("78", 0) if found else ("79", 1))
