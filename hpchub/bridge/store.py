"""What must outlive the bridge: one row for each server, written at every step of its life.

What is secret in a row, a waiting server's environment and a session's grant, is sealed by a key that
is in no file (`seal`). The methods block; the service calls them in a thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    create_engine,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.engine import URL, Connection, RowMapping, make_url
from sqlalchemy.exc import SQLAlchemyError

from hpchub.bridge.claim import claim_file, claiming_engine, taken
from hpchub.bridge.seal import Seal
from hpchub.core.secret import Secret
from hpchub.core.server import Phase
from hpchub.errors import ConfigError

metadata = MetaData()

# What people and clusters name has no length here: PostgreSQL would refuse the row.
servers = Table(
    "servers",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("user", String(64), nullable=False, index=True),
    Column("server_name", Text, nullable=False),
    Column("cluster", String(64), nullable=False),
    Column("options", JSON, nullable=False),
    Column("base_url", Text, nullable=False),
    Column("phase", String(16), nullable=False),
    Column("login_node", Text, nullable=False),
    Column("folder", Text, nullable=False),
    Column("host_public_key", Text, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("native_state", Text, nullable=False),
    Column("handed_over", Boolean, nullable=False),
    Column("error", JSON, nullable=True),
    Column("created_at", Float, nullable=False),
    Column("environ", Text, nullable=True),
)

sessions = Table(
    "sessions",
    metadata,
    Column("user", String(64), primary_key=True),
    Column("public_key", String(1024), nullable=False),
    Column("grant", Text, nullable=False),
    Column("expires_at", Float, nullable=False),
)


@dataclass(slots=True, kw_only=True)
class ServerRecord:
    """One server, as its row holds it. `created_at` is in Unix seconds.

    `environ` is the environment to hand over, as JSON; None once that is done.
    """

    id: str
    user: str
    server_name: str
    cluster: str
    options: dict[str, Any]
    base_url: str
    created_at: float
    phase: Phase = Phase.CONNECTING
    login_node: str = ""
    folder: str = ""
    host_public_key: str = ""
    job_id: str = ""
    node: str = ""
    native_state: str = ""
    handed_over: bool = False
    error: dict[str, Any] | None = None
    environ: Secret | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """One person's session: the public half of its key, in OpenSSH's form, and its end in Unix seconds."""

    user: str
    public_key: str
    grant: Secret = field(repr=False)
    expires_at: float


class Store:
    """Servers and sessions in an SQLite file, or in a database of a PostgreSQL server."""

    def __init__(self, url: str, seal: Seal) -> None:
        """ConfigError where the URL names another kind of database, or its driver is not installed."""
        self._seal = seal
        self._claim: IO[str] | None = None
        self._one_writer = threading.Lock()
        named = make_url(url)
        try:
            match named.get_backend_name():
                case "sqlite":
                    self._engine = create_engine(named)
                case "postgresql":
                    self._engine = claiming_engine(named)
                case other:
                    raise _unusable(named, f"there are sqlite and postgresql, and no {other}")
        except (SQLAlchemyError, ImportError) as error:
            raise _unusable(named, error) from error

    @property
    def can_be_taken(self) -> bool:
        """Whether a claim can be lost while we run: with the connection to a server."""
        return self._engine.dialect.name == "postgresql"

    def claim(self) -> None:
        """Keep every other bridge away, until `close` or our end. A file is kept for its machine only.

        Raises:
            StoreTaken: Another bridge has it.
            ConfigError: The database cannot be used.
        """
        if self.can_be_taken:
            self._connect()
            return
        path = self._engine.url.database
        if not path or path == ":memory:":
            return
        try:
            self._claim = claim_file(Path(path))
        except BlockingIOError as error:
            raise taken(self._engine.url) from error
        except OSError as error:
            raise _unusable(self._engine.url, error) from error

    def upgrade(self, revision: str = "head") -> None:
        """Bring the schema up to a revision of `migrations`; a new database gets all of it.

        Raises:
            ConfigError: The database cannot be used.
        """
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
        try:
            with self._engine.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, revision)
            if self._engine.dialect.name == "sqlite":
                # A commit then waits for the disk once, and costs a third. Said once, the file remembers it.
                with self._engine.connect() as connection:
                    connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        except (SQLAlchemyError, CommandError) as error:
            raise _unusable(self._engine.url, error) from error

    def write(self, new: Sequence[ServerRecord], changed: Sequence[ServerRecord]) -> None:
        """Insert new servers, and write others' rows as they stand now: all of them, or none."""
        with self._writing() as connection:
            if new:
                connection.execute(insert(servers), [self._row(record) for record in new])
            if changed:
                rows = [{**self._row(record), "of": record.id} for record in changed]
                connection.execute(update(servers).where(servers.c.id == bindparam("of")), rows)

    def unfinished(self) -> list[ServerRecord]:
        """Every server that has not ended."""
        query = select(servers).where(servers.c.phase != Phase.ENDED).order_by(servers.c.created_at)
        with self._engine.connect() as connection:
            return [self._record(row) for row in connection.execute(query).mappings()]

    def find(self, server_id: str) -> ServerRecord | None:
        """One server, ended or not."""
        with self._engine.connect() as connection:
            row = connection.execute(select(servers).where(servers.c.id == server_id)).mappings().first()
            return None if row is None else self._record(row)

    def last(self, user: str, server_name: str) -> ServerRecord | None:
        """Of a person's servers of that name the one that was started last, ended or not."""
        named = (servers.c.user == _storable(user)) & (servers.c.server_name == _storable(server_name))
        query = select(servers).where(named).order_by(servers.c.created_at.desc()).limit(1)
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
            return None if row is None else self._record(row)

    def save_session(self, session: SessionRecord) -> None:
        """Write a person's session in the place of the one before."""
        row = {name.name: getattr(session, name.name) for name in fields(session)}
        with self._writing() as connection:
            connection.execute(delete(sessions).where(sessions.c.user == session.user))
            connection.execute(insert(sessions).values(**row | {"grant": self._seal.close(session.grant)}))

    def drop_session(self, user: str) -> None:
        """Forget a person's session."""
        with self._writing() as connection:
            connection.execute(delete(sessions).where(sessions.c.user == user))

    def sessions(self) -> list[SessionRecord]:
        """Every session whose grant can be read."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(sessions)).mappings().all()
        return [
            SessionRecord(**{**row, "grant": grant})
            for row in rows
            if (grant := self._seal.open(row["grant"]))
        ]

    def check(self) -> None:
        """Return where the database answers; ConfigError where it does not.

        Raises:
            StoreTaken: The claim was lost, and another bridge has it.
        """
        try:
            with self._engine.connect() as connection:
                connection.execute(select(servers.c.id).limit(1))
        except SQLAlchemyError as error:
            raise _unusable(self._engine.url, error) from error

    def close(self) -> None:
        """Give the connections back, and the claim."""
        self._engine.dispose()
        if self._claim is not None:
            self._claim.close()

    def _connect(self) -> None:
        try:
            self._engine.connect().close()
        except SQLAlchemyError as error:
            raise _unusable(self._engine.url, error) from error

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction. SQLite's own way to wait for another writer is to sleep and look again."""
        with self._one_writer, self._engine.begin() as connection:
            yield connection

    def _row(self, record: ServerRecord) -> dict[str, Any]:
        row = {name.name: _storable(getattr(record, name.name)) for name in fields(record)}
        return row | {"environ": None if record.environ is None else self._seal.close(record.environ)}

    def _record(self, row: RowMapping) -> ServerRecord:
        sealed = row["environ"]
        environ = None if sealed is None else self._seal.open(sealed)
        return ServerRecord(**{**row, "phase": Phase(row["phase"]), "environ": environ})


def _storable(value: Any) -> Any:
    """The value; a text without what PostgreSQL refuses, since clusters may print anything."""
    if not isinstance(value, str):
        return value
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _unusable(url: URL, error: Exception | str) -> ConfigError:
    reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
    return ConfigError(f"The database {url.render_as_string(hide_password=True)} cannot be used: {reason}.")
