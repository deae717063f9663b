"""One server's life while the store cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, event

from hpchub.bridge import keeper as keeper_module
from hpchub.bridge.store import Store
from hpchub.core.server import Phase
from hpchub.errors import StoreUnavailable

from .places import (
    SlowToSubmit,
    WellBehaved,
)
from .world import World, a_record, end, ready, until


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
