"""Rows of many servers, written at once: few transactions, nothing lost, nobody held back by another."""

from __future__ import annotations

import asyncio
import time

import pytest
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError

from hpchub.bridge.group_commit import GroupCommit
from hpchub.bridge.store import ServerRecord, Store


def a_record(server_id: str) -> ServerRecord:
    return ServerRecord(
        id=server_id, user="alice", server_name="", cluster="alpha", options={}, base_url="/",
        created_at=time.time(),
    )  # fmt: skip


async def test_a_crowd_shares_its_commits(store: Store) -> None:
    """A hundred rows that come together take two transactions: the first one's, and all others'."""
    commits: list[object] = []
    event.listen(store._engine, "commit", commits.append)
    rows = GroupCommit(store)
    await asyncio.gather(rows.insert(a_record("first")), *(rows.insert(a_record(f"{n}")) for n in range(99)))
    assert len(store.unfinished()) == 100 and len(commits) <= 2


async def test_what_changes_while_it_is_written_is_written_again(store: Store) -> None:
    """An update that returns has put into the file what the record held when it was asked for."""
    rows, record = GroupCommit(store), a_record("a")
    await rows.insert(record)

    async def change(job_id: str) -> None:
        record.job_id = job_id
        await rows.update(record)
        found = store.find("a")
        assert found is not None and int(found.job_id) >= int(job_id)

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(change(str(number)))
            await asyncio.sleep(0.001)
    found = store.find("a")
    assert found is not None and found.job_id == "19"


async def test_one_bad_row_keeps_no_other_out(store: Store) -> None:
    """Where a group cannot be committed, each row is tried alone, and only the bad one's caller hears."""
    rows = GroupCommit(store)
    await rows.insert(a_record("taken"))
    held = asyncio.create_task(rows.insert(a_record("held")))  # the others wait together behind it
    await asyncio.sleep(0)
    good, bad = (asyncio.create_task(rows.insert(a_record(name))) for name in ("good", "taken"))
    await asyncio.gather(held, good)
    with pytest.raises(IntegrityError):
        await bad
    assert {record.id for record in store.unfinished()} == {"taken", "held", "good"}


async def test_a_fault_of_ours_reaches_who_waits(store: Store) -> None:
    """Whatever goes wrong in the writer, no start waits for it for ever."""
    rows, record = GroupCommit(store), a_record("a")
    record.options = {"never": object()}  # no JSON
    async with asyncio.timeout(5):
        with pytest.raises(Exception, match="not JSON serializable"):
            await rows.insert(record)
        await rows.insert(a_record("b"))
