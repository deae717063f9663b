"""What the signer remembers: who holds what, and what was taken back. One SQLite file in its state folder.

Grants and certificates are kept for as long as they could matter, so that one of them can be taken back
and its key with it. What was taken back is refused even where the grant itself is not in the ledger.
Only what is taken back is forced onto the disk at once: the audit log has the rest.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hpchub.core.slugs import caseless
from hpchub.errors import ConfigError, SiteError

LEDGER = "ledger.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS grants (
    grant_id TEXT PRIMARY KEY, account TEXT NOT NULL, factor TEXT NOT NULL, source TEXT NOT NULL,
    public_key TEXT NOT NULL, fingerprint TEXT NOT NULL, issued INTEGER NOT NULL, ceiling INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS grants_caseless ON grants (account COLLATE NOCASE);
CREATE INDEX IF NOT EXISTS grants_fingerprint ON grants (fingerprint);
CREATE TABLE IF NOT EXISTS certificates (
    serial TEXT PRIMARY KEY, key_id TEXT NOT NULL, profile TEXT NOT NULL, account TEXT NOT NULL,
    grant_id TEXT NOT NULL, public_key TEXT NOT NULL, fingerprint TEXT NOT NULL,
    valid_before INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS certificates_caseless ON certificates (account COLLATE NOCASE);
CREATE INDEX IF NOT EXISTS certificates_fingerprint ON certificates (fingerprint);
DROP INDEX IF EXISTS certificates_key_id;
CREATE TABLE IF NOT EXISTS refusals (
    kind TEXT NOT NULL, value TEXT NOT NULL, at INTEGER NOT NULL, until INTEGER, why TEXT NOT NULL,
    PRIMARY KEY (kind, value));
CREATE TABLE IF NOT EXISTS revoked (
    kind TEXT NOT NULL, value TEXT NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (kind, value));
CREATE TABLE IF NOT EXISTS ends (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, fingerprint TEXT NOT NULL, why TEXT NOT NULL,
    until INTEGER NOT NULL);
UPDATE OR REPLACE refusals SET value = lower(value) WHERE kind IN ('account', 'before');
"""


class Refuse(StrEnum):
    """What a refusal is about. `before`: an account's grants that were issued before then."""

    BEFORE = "before"
    ACCOUNT = "account"
    GRANT = "grant"
    KEY = "key"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldGrant:
    """A grant in the ledger. Times are Unix seconds; `public_key` is a line without comment."""

    grant_id: str
    account: str
    factor: str
    source: str
    public_key: str
    fingerprint: str
    issued: int
    ceiling: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldCertificate:
    """A certificate in the ledger; `grant_id` is empty for those that no login earned."""

    serial: str
    key_id: str
    profile: str
    account: str
    grant_id: str
    public_key: str
    fingerprint: str
    valid_before: int


class Ledger:
    """One file. Every method raises SiteError where it cannot be read or written; each is quick."""

    def __init__(self, path: Path) -> None:
        """Open it, or make it. ConfigError where that cannot be done."""
        try:
            self._connection = sqlite3.connect(path, timeout=2.0, isolation_level=None)
            path.chmod(0o600)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"The signer's ledger {path} cannot be used: {error}.") from error
        self._connection.row_factory = sqlite3.Row

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    # -- who holds what -------------------------------------------------------------------------

    def add_grant(self, grant: HeldGrant) -> None:
        """A login was granted."""
        with self._asked() as ask:
            ask.execute(
                "INSERT INTO grants VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (grant.grant_id, grant.account, grant.factor, grant.source, grant.public_key,
                 grant.fingerprint, grant.issued, grant.ceiling),
            )  # fmt: skip

    def add_certificates(self, signed: Sequence[tuple[HeldCertificate, int | None]]) -> list[str]:
        """Certificates were signed, each on a grant that was issued then (None: on no grant).

        Returns:
            For each why it may not leave, because something was taken back meanwhile; or "", and it is held.
        """
        with self._asked() as ask:
            ask.execute("BEGIN IMMEDIATE")
            try:
                refusals = []
                for made, issued in signed:
                    why = self._refused(ask, made.account, made.grant_id, made.fingerprint, issued)
                    if not why:
                        self._insert(ask, made)
                    refusals.append(why)
            except BaseException:
                ask.execute("ROLLBACK")
                raise
            ask.execute("COMMIT")
        return refusals

    def _insert(self, ask: sqlite3.Connection, made: HeldCertificate) -> None:
        ask.execute(
            "INSERT INTO certificates VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (made.serial, made.key_id, made.profile, made.account, made.grant_id, made.public_key,
             made.fingerprint, made.valid_before),
        )  # fmt: skip

    def grants(self, now: int, **where: str) -> list[HeldGrant]:
        """Those that have not ended in any way; by account, grant_id or fingerprint."""
        with self._asked() as ask:
            rows = ask.execute(
                f"SELECT * FROM grants WHERE ceiling > ? {_and(where)}",  # noqa: S608  our own words
                (now, *where.values()),
            )
            held = [HeldGrant(**row) for row in rows]
            return [
                one
                for one in held
                if not self._refused(ask, one.account, one.grant_id, one.fingerprint, one.issued)
            ]

    def certificates(self, now: int, **where: str) -> list[HeldCertificate]:
        """Those that are valid after `now`; by serial, key_id, account, grant_id or fingerprint."""
        with self._asked() as ask:
            rows = ask.execute(
                f"SELECT * FROM certificates WHERE valid_before > ? {_and(where)}",  # noqa: S608  our own words
                (now, *where.values()),
            )
            return [HeldCertificate(**row) for row in rows]

    # -- what was taken back --------------------------------------------------------------------

    def refusal(
        self, account: str, grant_id: str = "", fingerprint: str = "", issued: int | None = None
    ) -> str:
        """Why nothing may be granted on this; empty where nothing stands against it.

        Args:
            account: Whose. Refused itself where staff have revoked it, and not undone that.
            grant_id: Of the grant, if there is one.
            fingerprint: Of the key.
            issued: When the grant was, in Unix seconds.
        """
        with self._asked() as ask:
            return self._refused(ask, account, grant_id, fingerprint, issued)

    def _refused(
        self, ask: sqlite3.Connection, account: str, grant_id: str, fingerprint: str, issued: int | None
    ) -> str:
        row = ask.execute(
            "SELECT why FROM refusals WHERE (kind = 'account' AND value = ?1)"
            " OR (kind = 'grant' AND value = ?2) OR (kind = 'key' AND value = ?3)"
            " OR (kind = 'before' AND value = ?1 AND at > ?4)",
            (caseless(account), grant_id, fingerprint, 2**62 if issued is None else issued),
        ).fetchone()
        return "" if row is None else str(row["why"])

    @contextmanager
    def taking_back(self) -> Iterator[TakeBack]:
        """One transaction: all of it is on the disk when the block ends, or none."""
        with self._asked() as ask:
            ask.execute("PRAGMA synchronous = FULL")
            try:
                ask.execute("BEGIN IMMEDIATE")
                try:
                    yield TakeBack(ask)
                except BaseException:
                    ask.execute("ROLLBACK")
                    raise
                ask.execute("COMMIT")
            finally:
                ask.execute("PRAGMA synchronous = NORMAL")

    def blocked(self) -> dict[str, int]:
        """Accounts that staff have revoked, without capitals, and since when, in Unix seconds."""
        with self._asked() as ask:
            return dict(ask.execute("SELECT value, at FROM refusals WHERE kind = 'account'").fetchall())

    def revoked(self, now: int) -> dict[str, list[str]]:
        """What the KRL holds now, by kind: serial, key_id, key, fingerprint."""
        found: dict[str, list[str]] = {}
        with self._asked() as ask:
            for row in ask.execute("SELECT kind, value FROM revoked WHERE until > ? ORDER BY 1, 2", (now,)):
                found.setdefault(row["kind"], []).append(row["value"])
        return found

    def ends(self, after: int) -> tuple[list[tuple[str, str]], int]:
        """Keys whose login has ended early beyond the first `after`, each with why; and the newest number."""
        with self._asked() as ask:
            newest = int(ask.execute("SELECT coalesce(max(seq), 0) FROM ends").fetchone()[0])
            rows = ask.execute(
                "SELECT fingerprint, why FROM ends WHERE seq > ? ORDER BY seq",
                (0 if after > newest else after,),
            )
            return [(row["fingerprint"], row["why"]) for row in rows], newest

    def prune(self, now: int) -> None:
        """Forget what can matter no more."""
        with self._asked() as ask:
            ask.execute("DELETE FROM grants WHERE ceiling <= ?", (now,))
            ask.execute(
                "DELETE FROM certificates WHERE valid_before <= ?"
                " AND grant_id NOT IN (SELECT grant_id FROM grants)",
                (now,),
            )
            ask.execute("DELETE FROM refusals WHERE until <= ?", (now,))
            ask.execute("DELETE FROM revoked WHERE until <= ?", (now,))
            ask.execute("DELETE FROM ends WHERE until <= ? AND seq < (SELECT max(seq) FROM ends)", (now,))

    @contextmanager
    def _asked(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._connection
        except sqlite3.Error as error:
            raise SiteError(
                f"The signer's ledger cannot be used: {error}. Nothing is granted without it.",
                "Tell the site's staff.",
            ) from error


class TakeBack:
    """What can be written within `Ledger.taking_back`. Times are Unix seconds."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def refuse(self, kind: Refuse, value: str, why: str, *, at: int, until: int | None) -> None:
        """Refuse it from now on; `until` None is until that is undone."""
        self._connection.execute(
            "INSERT OR REPLACE INTO refusals VALUES (?, ?, ?, ?, ?)",
            (kind.value, _compared(kind, value), at, until, why),
        )

    def allow(self, kind: Refuse, value: str) -> bool:
        """Refuse it no more; whether it was."""
        done = self._connection.execute(
            "DELETE FROM refusals WHERE kind = ? AND value = ?", (kind.value, _compared(kind, value))
        )
        return done.rowcount > 0

    def revoke(self, kind: str, value: str, until: int) -> None:
        """Have the KRL name it until then."""
        self._connection.execute(
            "INSERT INTO revoked VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET until = max(until, excluded.until)",
            (kind, value, until),
        )

    def unrevoke(self, value: str) -> None:
        """Have the KRL name it no more."""
        self._connection.execute("DELETE FROM revoked WHERE value = ?", (value,))

    def end(self, fingerprint: str, why: str, until: int) -> None:
        """Tell whoever asks for ends of this one."""
        self._connection.execute(
            "INSERT INTO ends (fingerprint, why, until) VALUES (?, ?, ?)", (fingerprint, why, until)
        )


def _compared(kind: Refuse, value: str) -> str:
    """Account names count without their capitals; fingerprints and ids as they are."""
    return caseless(value) if kind in {Refuse.ACCOUNT, Refuse.BEFORE} else value


def _and(where: dict[str, str]) -> str:
    """Conditions on columns, whose names are keywords in this package's own calls."""
    # NOCASE is what `caseless` does: account names are ASCII.
    return "".join(f" AND {name} = ?{' COLLATE NOCASE' * (name == 'account')}" for name in where)
