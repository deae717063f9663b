"""Jobs that Slurm itself ends: noticed at once, explained in plain words, and nothing of them is left."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from websockets.exceptions import ConnectionClosed

from support.demo import Demo
from support.servers import Server, ServerOf, until
from support.slurm import job_fields, job_id_of, jobs_of

pytestmark = pytest.mark.live

# slurmctld looks at time limits every 30 s, and gives a job 30 s more to end (KillWait).
_SLURM_LOOKS_S = 75.0
# From Slurm's final word to the hub's: two looks, of which a busy machine may delay one.
_AT_ONCE_S = 8.0


def test_time_is_up(demo: Demo, server_of: ServerOf) -> None:
    """A job whose time limit is reached."""
    server = server_of("alice").start(placement="compute", partition="short", time="00:10:00")
    job_id = job_id_of(demo, "alice")
    demo.exec("ctl", ["scontrol", "update", f"JobId={job_id}", "EndTime=now+1"], check=True)
    said = _why_ended(demo, server, job_id, "TIMEOUT")
    assert f"Job {job_id} ended: Ended, because its time was up (TIMEOUT)." in said


def test_too_much_memory(demo: Demo, server_of: ServerOf) -> None:
    """A job that holds more memory than it had asked for. Without cgroups, Slurm 22.05 calls that FAILED."""
    server = server_of("bob").start(placement="compute", memory="400M")
    job_id = job_id_of(demo, "bob")
    with pytest.raises(ConnectionClosed), server.kernel() as kernel:
        kernel.run("held = b'x' * (600 << 20); import time; time.sleep(60)")
    said = _why_ended(demo, server, job_id, "FAILED")
    assert "because it used more memory than it had asked for (FAILED, JobLaunchFailure)." in said
    assert "exceeded memory limit" in said, "the log's end is shown"


def test_preempted(demo: Demo, server_of: ServerOf) -> None:
    """A job that has to make room for one of a partition that goes first."""
    server = server_of("bob").start(placement="compute", partition="gpu", gpus=1)
    job_id = job_id_of(demo, "bob")
    with _goes_first(demo, "cpu"):
        both_gpus = ["--partition=cpu", "--nodelist=c2", "--gres=gpu:2", "--mem=100M", "--time=5"]
        other = demo.exec(
            "login1", ["sbatch", "--parsable", "--output=/dev/null", *both_gpus, "--wrap=sleep 1"],
            user="alice", check=True,
        )  # fmt: skip
        said = _why_ended(demo, server, job_id, "PREEMPTED")
        demo.exec("ctl", ["scancel", other.stdout.strip()], check=True)
    assert f"Job {job_id} ended: Ended, to make room for a job that goes first (PREEMPTED)." in said


@contextmanager
def _goes_first(demo: Demo, partition: str) -> Iterator[None]:
    """Jobs of this partition may push those of others aside, until the end of the block."""
    change = ["scontrol", "update", f"PartitionName={partition}"]
    demo.exec("ctl", [*change, "PriorityTier=10"], check=True)
    try:
        yield
    finally:
        demo.exec("ctl", [*change, "PriorityTier=1"], check=True)


def _why_ended(demo: Demo, server: Server, job_id: str, state: str) -> str:
    """What the person reads where the server was, once Slurm has given the job this final state.

    Raises:
        AssertionError: The hub noticed late, or something is left on the cluster.
    """
    until(lambda: job_fields(demo, job_id)["JobState"] == state, f"Slurm calls it {state}", _SLURM_LOOKS_S)
    ended = time.monotonic()
    until(lambda: not server.model(), "the hub has let go", _AT_ONCE_S)
    print(f"{state}: the hub knew after {time.monotonic() - ended:.1f} s")
    assert jobs_of(demo, server.user) == {}
    said = re.search(r'role="alert">(.*?)</p>', server.page_in_its_place(), re.DOTALL)
    assert said, f"nothing is said on the page:\n{server.page_in_its_place()}"
    return html.unescape(said[1])
