"""hpchub.bridge.outlook: a job's place in the queue, and what the person who waits is told"""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from golden.reader import golden, record
from hypothesis import given
from hypothesis import strategies as st

from hpchub.bridge.outlook import Outlook, places_in
from hpchub.core.job import JobId, PendingJob
from hpchub.schedulers.slurm import Slurm

NOW = time.mktime((2026, 3, 4, 12, 0, 0, 0, 0, -1))


def job(job_id: str, priority: int, *partitions: str) -> PendingJob:
    return PendingJob(job_id=JobId(job_id), partitions=partitions or ("cpu",), priority=priority)


@pytest.mark.parametrize(
    ("outlook", "said"),
    [
        (Outlook(), ""),
        (Outlook(reason="Pending."), ""),
        (Outlook(queue_place=3, partition="cpu"), " About 3 before it in partition cpu."),
        (Outlook(queue_place=0, partition="cpu"), " Nobody before it in partition cpu."),
        (Outlook(expected_start=int(NOW) - 1), ""),
    ],
)
def test_words(outlook: Outlook, said: str) -> None:
    """Only what is known is said, and no start that is over."""
    assert outlook.words(NOW) == said


def test_a_start_has_its_date_where_it_is_not_today() -> None:
    """The time of day for today, the day as well for others; the zone with both."""
    zone = time.strftime("%Z", time.localtime(NOW))
    today = Outlook(queue_place=3, partition="cpu", expected_start=int(NOW) + 9000).words(NOW)
    assert today == f" About 3 before it in partition cpu. Expected start: 14:30 {zone}."
    later = Outlook(expected_start=int(NOW) + 86400).words(NOW)
    assert later == f" Expected start: 05 Mar, 12:00 {zone}."


def test_places_in_a_real_queue() -> None:
    """Higher priorities go first, held jobs stand in no line, and other partitions do not matter."""
    jobs = record("account_pending")["jobs"]
    result = golden("account_pending")
    pending = Slurm().parse_pending(replace(result, stdout=result.stdout.removeprefix("mark\n")))
    places = places_in(pending)
    assert [places.get(jobs[name]) for name in ("next", "bobs", "bobs_either", "held", "running")] == [
        ("cpu", 0), ("cpu", 1), ("cpu", 2), None, None,
    ]  # fmt: skip


def test_of_two_alike_the_older_goes_first() -> None:
    """As Slurm does; an array's tasks have the array's number."""
    pending = [job("41_[1-9]", 7), job("42", 7), job("43+1", 7), job("40", 7, "gpu"), job("39", 0)]
    assert places_in(pending)[JobId("42")] == ("cpu", 1)


def test_a_job_that_has_started_has_no_place() -> None:
    """An older place is not kept."""
    outlook = Outlook(queue_place=3, partition="cpu", expected_start=1)
    assert outlook.placed(places_in([job("42", 7)]).get(JobId("9"))) == Outlook(expected_start=1)
    assert outlook.placed(("gpu", 0)) == Outlook(queue_place=0, partition="gpu", expected_start=1)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 5)), unique_by=lambda pair: pair[0], min_size=1))
def test_no_two_jobs_share_a_place(rows: list[tuple[int, int]]) -> None:
    """In one partition the places of those that are not held are 0, 1, 2 and so on."""
    pending = [job(str(number), priority) for number, priority in rows]
    places = places_in(pending)
    assert set(places) == {one.job_id for one in pending if one.priority}
    assert sorted(before for _, before in places.values()) == list(range(len(places)))
