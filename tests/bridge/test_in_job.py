"""What a job's place makes of the scheduler's answers when a job ends oddly."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest
from golden.reader import golden

from hpchub.bridge.in_job import InJob
from hpchub.bridge.progress import Progress
from hpchub.bridge.store import ServerRecord
from hpchub.bridge.watcher import Watcher
from hpchub.core.choices import choose
from hpchub.core.cluster import Cluster
from hpchub.core.command import CommandResult
from hpchub.errors import StartFailed
from hpchub.schedulers.slurm import Slurm

from .slurm import FakeSlurm

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


async def test_a_job_not_handed_over_that_waits_is_alive(clusters: dict[str, Cluster]) -> None:
    """A job that goes back to the queue before its server began has lost nothing."""
    slurm = FakeSlurm()
    slurm.queue["7"] = _ROW.format(id="7", state="PENDING", reason="Resources")
    assert await place_of(slurm, clusters, "7", handed_over=False).verdict() is None
