"""What the cluster itself says about jobs, asked as its operator."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from support.demo import Demo

_FIELD = re.compile(r"(?:^|\s)([A-Z][A-Za-z/:]*)=(\S*)")


def jobs_of(demo: Demo, user: str) -> dict[str, str]:
    """Ids of a user's unfinished jobs, by the job's name without the server's id at its end.

    Raises:
        AssertionError: A server has two jobs.
    """
    # %j is what hpchub named the job: a slug, so a row cannot be forged here.
    rows = demo.exec("ctl", ["squeue", "--noheader", "--format=%u %j %i"], check=True).stdout
    found = [row.split() for row in rows.splitlines()]
    jobs = [(name.rpartition("-")[0], job_id) for owner, name, job_id in found if owner == user]
    assert len(dict(jobs)) == len(jobs), jobs
    return dict(jobs)


@contextmanager
def partition_state(demo: Demo, name: str, state: str) -> Iterator[None]:
    """A partition in another state, and up again afterwards."""
    change = ["scontrol", "update", f"PartitionName={name}"]
    demo.exec("ctl", [*change, f"State={state}"], check=True)
    try:
        yield
    finally:
        demo.exec("ctl", [*change, "State=UP"], check=True)


def job_id_of(demo: Demo, user: str, server_name: str = "") -> str:
    """The job of a server of hpchub's. KeyError where it has none."""
    return jobs_of(demo, user)[f"hpchub-{server_name}" if server_name else "hpchub"]


def job_fields(demo: Demo, job_id: str) -> dict[str, str]:
    """`scontrol show job` as a mapping, GRES lines included."""
    shown = demo.exec("ctl", ["scontrol", "show", "job", "--details", "--oneliner", job_id], check=True)
    return dict(_FIELD.findall(shown.stdout))


def processes_of(demo: Demo, host: str, user: str) -> list[str]:
    """Command lines of a user's processes on a host."""
    listed = demo.exec(host, ["ps", "-o", "args=", "-u", user])
    return [line.strip() for line in listed.stdout.splitlines() if line.strip()]
