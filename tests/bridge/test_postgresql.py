"""The store on a real PostgreSQL server that ends sessions, restarts and stays away."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from sqlalchemy.exc import OperationalError

from hpchub.bridge import claim, patient_connection
from hpchub.bridge import keeper as keeper_module
from hpchub.bridge.keeper import Keeper
from hpchub.bridge.seal import Seal
from hpchub.bridge.store import ServerRecord, Store
from hpchub.errors import ConfigError, StoreTaken, StoreUnavailable
from support.postgresql import PostgresServer


@pytest.fixture
def url(postgresql: PostgresServer) -> str:
    return postgresql.new_database()


@pytest.fixture
def store(url: str, seal: Seal, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A bridge's store, claimed; who waits for a claim does not wait long."""
    monkeypatch.setattr(claim, "_PATIENCE_S", 0.3)
    store = Store(url, seal)
    store.claim()
    store.upgrade()
    yield store
    store.close()


def a_record() -> ServerRecord:
    return ServerRecord(
        id=secrets.token_hex(16), user="alice", server_name="", cluster="alpha", options={},
        base_url="/user/alice/", created_at=time.time(),
    )  # fmt: skip


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  what is waited for is a row in a database
            await asyncio.sleep(0.02)


def refuses(url: str, seal: Seal) -> bool:
    """Whether a second bridge is refused."""
    second = Store(url, seal)
    try:
        second.claim()
    except StoreTaken:
        return True
    finally:
        second.close()
    return False


def test_a_lost_session_is_replaced(store: Store, url: str, seal: Seal, postgresql: PostgresServer) -> None:
    """Sessions that were cut, and a server that was restarted: the bridge goes on, with its claim."""
    record = a_record()
    store.write([record], [])
    for lose in (postgresql.end_sessions, lambda: (postgresql.stop(), postgresql.start())):
        lose()
        record.job_id += "4"
        store.write([], [record])
        assert store.find(record.id) == record and refuses(url, seal)
    assert record.job_id == "44"


def test_our_own_old_session_is_no_other_bridge(
    store: Store, url: str, seal: Seal, postgresql: PostgresServer
) -> None:
    """A connection that only we have lost leaves a session with our claim: it is ended, and no other is."""
    old = store._engine.connect()
    old.detach()  # the pool has lost it; the server still has its session
    record = a_record()
    store.write([record], [])
    assert store.find(record.id) == record and refuses(url, seal)
    with pytest.raises(OperationalError, match="terminat"):
        old.exec_driver_sql("SELECT 1")
    old.close()


def test_a_claim_that_another_bridge_took(
    store: Store, url: str, seal: Seal, postgresql: PostgresServer
) -> None:
    """Between two sessions of ours another bridge came: nothing of ours is written over its rows."""
    record = a_record()
    store.write([record], [])
    second = Store(url, seal)
    postgresql.end_sessions()
    second.claim()
    record.job_id = "42"
    for rows in (([], [record]), ([record], [])):
        with pytest.raises(StoreTaken, match="another bridge is using it"):
            store.write(*rows)
    with pytest.raises(StoreTaken):
        store.check()
    found = second.find(record.id)
    assert found is not None and found.job_id == ""
    second.close()


async def test_the_database_is_away(
    store: Store, postgresql: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lives is written when it is back; what is new is refused in words, and is not there later."""
    monkeypatch.setattr(keeper_module, "_RETRY_S", 0.02)
    keeper = Keeper(store)
    record, new = a_record(), a_record()
    await keeper.add(record)
    with postgresql.away():
        record.job_id = "42"
        await keeper.save(record)
        with pytest.raises(StoreUnavailable, match="begins nothing new"):
            await keeper.add(new)
        with pytest.raises(StoreUnavailable, match="begins nothing new"):
            await keeper.save_first(record)
        with pytest.raises(StoreUnavailable, match="cannot read"):
            await keeper.find(record.id)
        with pytest.raises(ConfigError, match="cannot be used"):
            store.check()
    await until(lambda: store.find(record.id) == record)
    assert store.unfinished() == [record]
    await keeper.add(new)
    await keeper.close()


@pytest.mark.parametrize("which", ["server", "session"])
async def test_the_database_is_silent(
    url: str, seal: Seal, postgresql: PostgresServer, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """A server, or our session there, that is connected and answers nothing is as one that is away: who
    waits hears of it, nobody else is thought to have the claim, and all is written afterwards.
    """
    monkeypatch.setattr(claim, "_PATIENCE_S", 0.3)
    monkeypatch.setattr(keeper_module, "_RETRY_S", 0.02)
    monkeypatch.setattr(patient_connection, "LONGEST_ANSWER_S", 0.5)
    store = Store(f"{url}&connect_timeout=2", seal)
    store.claim()
    store.upgrade()
    keeper = Keeper(store)
    record = a_record()
    await keeper.add(record)
    with postgresql.frozen() if which == "server" else postgresql.frozen_sessions():
        record.job_id = "42"
        async with asyncio.timeout(20):
            await keeper.save(record)
            with pytest.raises(StoreUnavailable, match="begins nothing new"):
                await keeper.add(a_record())
            with pytest.raises(ConfigError, match="cannot be used") as away:
                await asyncio.to_thread(store.check)
            assert not isinstance(away.value, StoreTaken)
    await until(lambda: store.unfinished() == [record])
    await keeper.close()
    store.close()


async def test_an_answer_lost_behind_the_commit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that was refused although its row was written is not taken up by the next bridge."""
    monkeypatch.setattr(keeper_module, "_RETRY_S", 0.02)
    keeper = Keeper(store)
    write = store.write

    def lossy(new: Sequence[ServerRecord], changed: Sequence[ServerRecord]) -> None:
        write(new, changed)
        if new:
            raise OperationalError("COMMIT", None, ConnectionError("server closed the connection"))

    monkeypatch.setattr(store, "write", lossy)
    with pytest.raises(StoreUnavailable):
        await keeper.add(a_record())
    assert len(store.unfinished()) == 1
    await until(lambda: not store.unfinished())
    await keeper.close()
