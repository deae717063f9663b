"""One bridge for one store: a lock on an SQLite file, or one in a session at a PostgreSQL server.

PostgreSQL ends an advisory lock with the session that took it. All that a bridge reads and writes goes
through the one session that holds its lock, so nobody writes without the claim: after a lost connection
the next session takes the lock again before it does anything else, or it is refused.
"""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from hpchub.errors import StoreTaken

# Any number will do that nobody else in this database takes: "hpch", and 1 for the bridge.
LOCK = (0x68706368, 1)

# The session of a bridge that was killed a moment ago may need as long to end.
_PATIENCE_S = 2.0
_STEP_S = 0.1

# How long others wait for the session before they hear that the database does not answer.
_LONGEST_WAIT_S = 10.0

# A server that has vanished is noticed within half a minute, and by the server so is a bridge: its lock
# would else be held for the two hours that Linux takes. Only a server that can be written to will do.
_CONNECTION = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
    "target_session_attrs": "read-write",
    "options": "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
    " -c tcp_user_timeout=15000",
}


def claim_file(path: Path) -> IO[str]:
    """The lock on an SQLite file, held until it is closed.

    Raises:
        BlockingIOError: Another bridge has it.
        OSError: The lock's file cannot be written.
    """
    claim = path.with_name(path.name + ".lock").open("a")
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        claim.close()
        raise
    return claim


def claiming_engine(url: URL) -> Engine:
    """An engine of one session at a PostgreSQL server, which raises StoreTaken where another bridge is.

    What the URL's query says of the connection comes before what is usual here.
    """
    settings = {name: value for name, value in _CONNECTION.items() if name not in url.query}
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args=settings,
        pool_size=1,
        max_overflow=0,
        pool_timeout=_LONGEST_WAIT_S,
        pool_pre_ping=True,
    )
    event.listen(engine, "do_connect", lambda _dialect, _record, args, named: _connect(*args, **named))
    event.listen(engine, "connect", _SessionClaim(url).take)
    return engine


def _connect(*args: Any, **named: Any) -> Any:
    from hpchub.bridge.patient_connection import PatientConnection  # needs psycopg, which not everybody has

    return PatientConnection.connect(*args, **named)


class _SessionClaim:
    """Takes the lock in each new session, and knows the one before, which may not have ended yet."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._session: tuple[int, str] = (0, "")

    def take(self, connection: Any, _record: object) -> None:
        """Take the lock in a new session, given as the driver's own connection."""
        deadline = time.monotonic() + _PATIENCE_S
        with connection.cursor() as cursor:
            while not self._taken(cursor):
                connection.commit()
                if time.monotonic() > deadline:
                    raise self._refusal(cursor)
                time.sleep(_STEP_S)
            cursor.execute(
                "SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()"
            )
            self._session = cursor.fetchone()
        connection.commit()

    def _taken(self, cursor: Any) -> bool:
        # A connection that only we have lost is still a session there, and has our lock.
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid = %s AND backend_start::text = %s AND pid <> pg_backend_pid()",
            self._session,
        )
        cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", LOCK)
        return bool(cursor.fetchone()[0])

    def _refusal(self, cursor: Any) -> Exception:
        cursor.execute(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND classid = %s AND objid = %s AND database = (SELECT oid FROM pg_database"
            " WHERE datname = current_database())",
            LOCK,
        )
        if cursor.fetchone() != (self._session[0],):
            return taken(self._url)
        hung = ConnectionError("its last session with this bridge hangs, and has not ended yet")
        return OperationalError("pg_try_advisory_lock", None, hung)


def taken(url: URL) -> StoreTaken:
    """The refusal of a second bridge."""
    name = url.render_as_string(hide_password=True)
    return StoreTaken(
        f"The database {name} cannot be used: another bridge is using it.",
        "A database is for one bridge. Servers that run are that bridge's to look after.",
    )
