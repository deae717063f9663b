"""What must outlive the bridge: one row for each server, written at every step of its life.

Rows never hold a secret: the server's environment and the session keys stay in memory.
The methods block; the service calls them in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

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
    create_engine,
    insert,
    select,
    update,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from hpchub.core.server import Phase
from hpchub.errors import ConfigError

metadata = MetaData()

servers = Table(
    "servers",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("user", String(64), nullable=False, index=True),
    Column("server_name", String(255), nullable=False),
    Column("cluster", String(64), nullable=False),
    Column("options", JSON, nullable=False),
    Column("base_url", String(512), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("login_node", String(255), nullable=False),
    Column("folder", String(1024), nullable=False),
    Column("host_public_key", String(1024), nullable=False),
    Column("job_id", String(64), nullable=False),
    Column("node", String(255), nullable=False),
    Column("native_state", String(64), nullable=False),
    Column("handed_over", Boolean, nullable=False),
    Column("error", JSON, nullable=True),
    Column("created_at", Float, nullable=False),
)


@dataclass(slots=True, kw_only=True)
class ServerRecord:
    """One server, as its row holds it. `created_at` is in Unix seconds."""

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


class Store:
    """The servers table behind any database that SQLAlchemy speaks to."""

    def __init__(self, url: str) -> None:
        """ConfigError where the URL names a database whose driver is not installed."""
        try:
            self._engine = create_engine(url)
        except (SQLAlchemyError, ImportError) as error:
            raise _unusable(make_url(url), error) from error

    def upgrade(self) -> None:
        """Bring the schema up to date; a new database gets all of it.

        Raises:
            ConfigError: The database cannot be used.
        """
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
        try:
            with self._engine.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except (SQLAlchemyError, CommandError) as error:
            raise _unusable(self._engine.url, error) from error

    def add(self, record: ServerRecord) -> None:
        """Insert a new server."""
        with self._engine.begin() as connection:
            connection.execute(insert(servers).values(**asdict(record)))

    def save(self, record: ServerRecord) -> None:
        """Write a server's row as it stands now."""
        with self._engine.begin() as connection:
            connection.execute(update(servers).where(servers.c.id == record.id).values(**asdict(record)))

    def unfinished(self) -> list[ServerRecord]:
        """Every server that has not ended."""
        query = select(servers).where(servers.c.phase != Phase.ENDED).order_by(servers.c.created_at)
        with self._engine.connect() as connection:
            return list(_records(connection.execute(query).mappings()))

    def find(self, server_id: str) -> ServerRecord | None:
        """One server, ended or not."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(servers).where(servers.c.id == server_id)).mappings()
            return next(iter(_records(rows)), None)

    def check(self) -> None:
        """Return where the database answers; ConfigError where it does not."""
        try:
            with self._engine.connect() as connection:
                connection.execute(select(servers.c.id).limit(1))
        except SQLAlchemyError as error:
            raise _unusable(self._engine.url, error) from error

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()


def _unusable(url: URL, error: Exception) -> ConfigError:
    reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
    return ConfigError(f"The database {url.render_as_string(hide_password=True)} cannot be used: {reason}.")


def _records(rows: Iterable[Any]) -> Iterable[ServerRecord]:
    names = [field.name for field in fields(ServerRecord)]
    for row in rows:
        values = {name: row[name] for name in names}
        yield ServerRecord(**{**values, "phase": Phase(values["phase"])})
