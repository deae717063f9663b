"""A job that waits: what the person is told meanwhile"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from hpchub.bridge import watcher as watcher_module
from hpchub.bridge.in_job import InJob
from hpchub.bridge.outlook import Outlook
from hpchub.bridge.progress import Progress
from hpchub.bridge.store import ServerRecord
from hpchub.bridge.watcher import Watcher
from hpchub.core.choices import choose
from hpchub.core.cluster import Cluster
from hpchub.core.job import JobId
from hpchub.core.server import Phase
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
