"""The signer's own SQLite file, `state_dir/state.sqlite`, mode 0600: what must outlive its process.

Several processes and threads may share it: each transaction takes the file's one write lock first.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpchub.errors import ConfigError, SiteError
from hpchub.private_files import check_private_file, check_private_folder

STATE_FILE = "state.sqlite"
_BUSY_S = 10.0
_VERSION = 1


class State:
    """The open file. `close` it when done. Every use blocks: call it from a thread."""

    def __init__(self, state_dir: Path) -> None:
        """Open the file, made where it is not there yet.

        Raises:
            ConfigError: It is not private to us, or no database of ours.
        """
        check_private_folder(state_dir)
        self.path = state_dir / STATE_FILE
        self._lock = threading.Lock()
        try:
            # SQLite does not wait for others while it turns to WAL: two that start at once would fail.
            with _one_at_a_time(state_dir):
                _make_private(self.path)
                self._connection = _open(self.path)
        except sqlite3.Error as error:
            raise ConfigError(f"{self.path} cannot be used: {error}.") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of what is done inside, or none of it; on the disk at the end.

        Raises:
            SiteError: The file cannot be read or written. Nothing may be granted then.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                if self._connection.in_transaction:
                    self._connection.rollback()
                raise SiteError(
                    "The signer's state cannot be kept, and nothing is granted uncounted.",
                    "Tell the site's staff.",
                ) from error

    def check(self) -> None:
        """Return where the file can be written; SiteError otherwise."""
        with self.transaction() as connection:
            connection.execute(f"PRAGMA user_version={_VERSION}")


_TABLES = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS guess_pairs (
    account TEXT NOT NULL, address TEXT NOT NULL, failures INTEGER NOT NULL, last REAL NOT NULL,
    refused INTEGER NOT NULL, known_until REAL NOT NULL, PRIMARY KEY (account, address)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS guess_buckets (
    kind TEXT NOT NULL, name TEXT NOT NULL, used REAL NOT NULL, at REAL NOT NULL, PRIMARY KEY (kind, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS second_factors (
    account TEXT PRIMARY KEY, seed BLOB NOT NULL, last_step INTEGER NOT NULL, enrolled_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS recovery_codes (
    account TEXT NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (account, digest)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS enrolments (
    account TEXT PRIMARY KEY, name TEXT NOT NULL, ticket BLOB NOT NULL, seed BLOB NOT NULL,
    expires_at REAL NOT NULL, tries INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS used_logins (nonce TEXT PRIMARY KEY, used_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS factor_key_check (id INTEGER PRIMARY KEY CHECK (id = 1), sealed BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS security_keys (
    key_id TEXT PRIMARY KEY, account TEXT NOT NULL, name TEXT NOT NULL, credential BLOB NOT NULL,
    sign_count INTEGER NOT NULL, added_at REAL NOT NULL, used_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS security_keys_account ON security_keys (account);
CREATE TABLE IF NOT EXISTS spent_challenges (nonce BLOB PRIMARY KEY, ends_at REAL NOT NULL) WITHOUT ROWID;
PRAGMA user_version={_VERSION};
COMMIT;
"""


def _open(path: Path) -> sqlite3.Connection:
    # SQLite gives the files beside it (-wal, -shm) the mode of this one.
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        # What is deleted (a code, an old seed) is overwritten.
        connection.execute("PRAGMA secure_delete=ON")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in {0, _VERSION}:
            raise ConfigError(f"{path} was written by another version of hpchub ({version}).")
        connection.executescript(_TABLES)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make_private(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        check_private_file(path)
    except OSError as error:
        raise ConfigError(f"The file {path} cannot be made: {error.strerror}.") from error
