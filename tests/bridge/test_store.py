"""What outlives the bridge: the table, its migrations, and what is never in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, insert, select, text

from hpchub.bridge import claim
from hpchub.bridge.seal import Seal
from hpchub.bridge.store import ServerRecord, SessionRecord, Store, metadata, servers, sessions
from hpchub.core.secret import Secret
from hpchub.core.server import Phase
from hpchub.errors import ConfigError, StartFailed, StoreTaken, to_wire
from hpchub.ssh.key_agent import KeyAgent
from support.postgresql import PostgresServer

from .conftest import an_agent


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/bridge.db"
    server: PostgresServer = request.getfixturevalue("postgresql")
    return server.new_database()


@pytest.fixture
def store(url: str, seal: Seal) -> Iterator[Store]:
    store = Store(url, seal)
    store.upgrade()
    yield store
    store.close()


def record(**values: object) -> ServerRecord:
    usual = {
        "id": "f" * 32,
        "user": "alice",
        "server_name": "",
        "cluster": "alpha",
        "options": {"placement": "login", "resources": None},
        "base_url": "/user/alice/",
        "created_at": 1700000000.25,
    }
    return ServerRecord(**(usual | values))  # type: ignore[arg-type]


def test_the_migrations_make_what_the_code_expects(url: str, seal: Seal) -> None:
    """From an empty database, twice, and nothing is left to migrate."""
    for _ in range(2):
        store = Store(url, seal)
        store.upgrade()
        with store._engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        store.close()


def test_an_sqlite_file_keeps_a_write_ahead_log(tmp_path: Path, seal: Seal) -> None:
    """A commit then waits for the disk once. The mode stays in the file."""
    url = f"sqlite:///{tmp_path}/new.db"
    with create_engine(url).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "delete"
    store = Store(url, seal)
    store.upgrade()
    store.close()
    with create_engine(url).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_rows_of_the_first_schema_come_along(url: str, seal: Seal) -> None:
    """An upgrade forgets no server: what the first version wrote is read by this one."""
    store = Store(url, seal)
    store.upgrade("0001")
    old = record(job_id="42", phase=Phase.READY, handed_over=True)
    values = {name.name: getattr(old, name.name) for name in fields(old) if name.name != "environ"}
    with store._engine.begin() as connection:
        connection.execute(insert(servers).values(**values))
    store.upgrade()
    assert store.unfinished() == [old]
    store.close()


def test_columns_and_record_are_the_same() -> None:
    """A field without a column would be forgotten by a restart."""
    for table, kind in ((servers, ServerRecord), (sessions, SessionRecord)):
        assert {column.name for column in table.columns} == {field.name for field in fields(kind)}


def test_rows_round_trip(store: Store) -> None:
    """Every field comes back as it went, errors with quotes, newlines and other scripts included."""
    error = StartFailed("it 'died'\n", "\x00Ünïcode \U0001f4a5", log_tail="a\nb", log_path="\udcff")
    full = record(
        phase=Phase.QUEUED, login_node="login1", folder="/home/a b/'x", host_public_key="ssh-ed25519 A",
        job_id="42", node="c1", native_state="PENDING", handed_over=True, error=to_wire(error),
        environ=Secret('{"A": "canary"}'),
    )  # fmt: skip
    store.write([full], [])
    assert store.find(full.id) == full
    full.phase, full.error = Phase.ENDED, None
    store.write([], [full])
    assert store.find(full.id) == full


def test_any_text_can_be_stored(store: Store) -> None:
    """What a cluster prints makes no row that cannot be written, whatever its length and characters."""
    odd = record(node="c\0" * 9999, native_state="\udcff", folder="/h" * 9999, base_url="/%20" * 9999)
    store.write([odd], [])
    found = store.find(odd.id)
    assert found is not None and (found.folder, found.base_url) == (odd.folder, odd.base_url)
    assert found.node == "c\N{REPLACEMENT CHARACTER}" * 9999 and found.native_state == "?"


def test_find_and_unfinished(store: Store) -> None:
    """Ended servers are found by id alone, the others in the order of their start."""
    phases = list(Phase)
    for number, phase in enumerate(phases):
        store.write([record(id=f"{number}", phase=phase, created_at=float(-number))], [])
    unfinished = [found.id for found in store.unfinished()]
    assert unfinished == [str(n) for n in reversed(range(len(phases))) if phases[n] is not Phase.ENDED]
    ended = store.find(str(phases.index(Phase.ENDED)))
    assert ended is not None and ended.phase is Phase.ENDED
    assert store.find("no such") is None and store.find("' OR 1=1 --") is None


def test_last(store: Store) -> None:
    """The newest of a person's servers of that name, ended or not; names that look odd are no others'."""
    for number, (user, name) in enumerate((("alice", ""), ("alice", "x"), ("bob", ""), ("alice", ""))):
        store.write([record(id=f"{number}", user=user, server_name=name, created_at=float(number))], [])
    store.write([record(id="old", phase=Phase.ENDED, created_at=-1.0)], [])
    found = [store.last(user, name) for user, name in (("alice", ""), ("alice", "x"), ("bob", ""))]
    assert [one and one.id for one in found] == ["3", "1", "2"]
    odd = ("no such", "' OR 1=1 --", "\0", "\udcff", "%", "ALICE")
    assert [store.last(text, "") or store.last("alice", text) for text in odd] == [None] * len(odd)


@pytest.mark.parametrize(
    "unusable",
    [
        "sqlite:////no/such/folder/x.db",
        "nosuchdatabase://hub:canary@db/hub",
        "mysql://hub:canary@db/hub",
        "postgresql://hub:canary@/hub?host=/no/such/folder",
    ],
)
def test_a_database_that_cannot_be_used(unusable: str, seal: Seal) -> None:
    """ConfigError says which, and hides its password."""
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        Store(unusable, seal).upgrade()
    assert "canary" not in str(caught.value) and unusable.partition(":")[0] in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"canary, and no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_a_corrupt_file_is_refused(content: bytes, seal: Seal, tmp_path: Path) -> None:
    """It is named, and left as it is for whoever looks into it."""
    path = tmp_path / "corrupt.db"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"corrupt\.db cannot be used"):
        Store(f"sqlite:///{path}", seal).upgrade()
    assert path.read_bytes() == content


def test_two_bridges_on_one_store(
    store: Store, url: str, seal: Seal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is refused; when the first has ended it may."""
    monkeypatch.setattr(claim, "_PATIENCE_S", 0.2)
    store.claim()
    second = Store(url, seal)
    with pytest.raises(StoreTaken, match="another bridge is using it"):
        second.claim()
    store.close()
    second.claim()
    second.close()


def test_a_newer_schema_is_refused(store: Store) -> None:
    """A bridge that was set back a version says so, and touches nothing."""
    with store._engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="9999"):
        store.upgrade()


def a_session(user: str = "alice", **values: object) -> SessionRecord:
    usual = {"public_key": "ssh-ed25519 AAAA", "grant": Secret("canary grant"), "expires_at": 1700000000.5}
    return SessionRecord(user=user, **(usual | values))  # type: ignore[arg-type]


def test_sessions(store: Store) -> None:
    """One for each person, the newest; a dropped one is gone, and the others stay."""
    store.save_session(a_session())
    store.save_session(a_session(expires_at=1800000000.0))
    store.save_session(a_session("bob"))
    assert sorted(store.sessions(), key=lambda one: one.user) == [
        a_session(expires_at=1800000000.0),
        a_session("bob"),
    ]
    store.drop_session("alice")
    store.drop_session("nobody")
    assert [session.user for session in store.sessions()] == ["bob"]


async def test_the_store_holds_no_secret(store: Store, url: str, agent: KeyAgent) -> None:
    """Grant and environment are sealed: who has the rows alone reads neither, nor does another agent."""
    waiting = record(environ=Secret('{"JUPYTERHUB_API_TOKEN": "canary token"}'))
    store.write([waiting], [])
    store.save_session(a_session())
    with store._engine.connect() as connection:
        rows = [row for table in (servers, sessions) for row in connection.execute(select(table)).all()]
    assert len(rows) == 2 and "canary" not in repr(rows)
    store.close()

    again = Store(url, await Seal.of(agent))
    assert again.find(waiting.id) == waiting and again.sessions() == [a_session()]
    again.close()

    with an_agent(agent.socket.with_name("other.sock")) as other:
        stranger = Store(url, await Seal.of(other))
    found = stranger.find(waiting.id)
    assert found is not None and found.environ is None and stranger.sessions() == []
    stranger.close()
