"""Stands before every proof and counts its failures, for all the signer's processes and over restarts.

An attempt is charged before it is looked at and refunded if it succeeds. One that has to wait is looked
at all the same, so that it costs the same work, and is refused whatever comes of it.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from hpchub.core.slugs import is_safe_account_name
from hpchub.signer.guessing import (
    Bucket,
    GuessLimits,
    Limit,
    Pair,
    Standing,
    account_key,
    address_key,
    at_present,
    charged,
    is_known,
    limit_of,
    refunded,
    refused,
    succeeded,
    wait_s,
)
from hpchub.signer.proofs import Accepted, Refused
from hpchub.signer.state import State

# An account's known addresses: enough for a person, few for a thief of the hub to hide among.
_MOST_KNOWN = 16
_PURGE_EVERY_S = 600

_ADDRESS, _UNKNOWN, _KNOWN = "address", "unknown", "known"


@dataclass(frozen=True, slots=True)
class _Attempt:
    account: str
    address: str
    known: bool
    limit: Limit | None


@dataclass(frozen=True, slots=True)
class Count:
    """One line for staff: whose failures, from where, and when the wait ends (Unix seconds, or 0).

    Either may be empty: a count over all addresses, or over all accounts. `share` is the part of that
    allowance which is used up, 0 to 1.
    """

    account: str
    address: str
    failures: int = 0
    refused: int = 0
    waits_until: float = 0
    known: bool = False
    share: float = 0


class Guard:
    """Counts in the signer's state file. Blocks: call it from a thread."""

    def __init__(self, state: State, limits: GuessLimits, now: Callable[[], float] = time.time) -> None:
        self._state = state
        self._limits = limits
        self._now = now
        self._purging = threading.Lock()
        self._purged = 0.0

    def check(self) -> None:
        """Return where failures can be counted; SiteError otherwise."""
        self._state.check()

    def attempt(
        self, username: str, source: str, check: Callable[[bool], Accepted | Refused]
    ) -> Accepted | Refused:
        """What `check` finds, or a refusal because of failures before.

        `check` is told whether its finding counts. Where it does not, it uses up no code.

        Raises:
            SiteError: The failures cannot be counted.
            HpchubError: Whatever `check` raises. The attempt then counts as none.
        """
        self._purge()
        attempt = self._charge(account_key(username), address_key(source))
        try:
            verdict = check(attempt.limit is None)
        except Exception:
            self._settle(attempt, right=False)
            raise
        if attempt.limit is not None:
            said = verdict.reason if isinstance(verdict, Refused) else "it was right"
            return Refused(f"{attempt.limit.reason}; {said}")
        if isinstance(verdict, Accepted):
            self._settle(attempt, right=True)
        return verdict

    def _charge(self, account: str, address: str) -> _Attempt:
        with self._state.transaction() as connection:
            now = self._now()
            pair = _read_pair(connection, account, address)
            known = is_known(pair, now)
            standing = at_present(self._limits, _read(connection, pair, account, address, known), now)
            limit = limit_of(self._limits, standing, now)
            after = refused(standing) if limit else charged(self._limits, standing, now)
            _write(connection, after, account, address, known)
        return _Attempt(account, address, known, limit)

    def _settle(self, attempt: _Attempt, *, right: bool) -> None:
        """Take back what was charged."""
        if attempt.limit is not None:
            return
        with self._state.transaction() as connection:
            now = self._now()
            pair = _read_pair(connection, attempt.account, attempt.address)
            standing = _read(connection, pair, attempt.account, attempt.address, attempt.known)
            standing = refunded(self._limits, at_present(self._limits, standing, now), known=attempt.known)
            if right:
                standing = Standing(
                    succeeded(self._limits, standing.pair, now), standing.address, standing.account
                )
            _write(connection, standing, attempt.account, attempt.address, attempt.known)
            if right:
                _keep_newest_known(connection, attempt.account)

    def counts(self, who: str = "") -> list[Count]:
        """What is counted now, of one account or address, or of everybody who has failed."""
        now = self._now()
        with self._state.transaction() as connection:
            pairs = connection.execute("SELECT * FROM guess_pairs ORDER BY account, address").fetchall()
            buckets = connection.execute("SELECT * FROM guess_buckets ORDER BY kind, name").fetchall()
        found = []
        for account, address, *rest in pairs:
            pair = at_present(self._limits, Standing(Pair(*rest), Bucket(), Bucket()), now).pair
            wanted = pair.failures > 0 if not who else _is_of(who, account, address)
            if wanted:
                found.append(self._count(account, address, pair, now))
        for kind, name, used, at in buckets:
            account, address = ("", name) if kind == _ADDRESS else (name, "")
            bucket = at_present(self._limits, Standing(Pair(), Bucket(used, at), Bucket()), now).address
            if bucket.used > 0 and (not who or _is_of(who, account, address)):
                found.append(Count(account, address, known=kind == _KNOWN, share=bucket.used))
        return found

    def lift(self, who: str) -> int:
        """Forget the failures of an account, or of an address; how many counts that were."""
        account, address = _keys(who)
        with self._state.transaction() as connection:
            cursor = connection.execute(
                "UPDATE guess_pairs SET failures = 0, refused = 0 WHERE (account = ? OR address = ?)"
                " AND (failures > 0 OR refused > 0)",
                (account, address),
            )
            lifted = cursor.rowcount
            cursor = connection.execute(
                "DELETE FROM guess_buckets WHERE (kind != ? AND name = ?) OR (kind = ? AND name = ?)",
                (_ADDRESS, account, _ADDRESS, address),
            )
            return lifted + cursor.rowcount

    def know(self, username: str, source: str) -> None:
        """Count an address as one from which the account has logged in."""
        account, address = account_key(username), address_key(source)
        with self._state.transaction() as connection:
            now = self._now()
            pair = succeeded(self._limits, _read_pair(connection, account, address), now)
            _write_pair(connection, pair, account, address)
            _keep_newest_known(connection, account)

    def _count(self, account: str, address: str, pair: Pair, now: float) -> Count:
        until = pair.last + wait_s(self._limits, pair.failures)
        return Count(
            account,
            address,
            failures=pair.failures,
            refused=pair.refused,
            waits_until=until if until > now else 0,
            known=is_known(pair, now),
        )

    def _purge(self) -> None:
        """Forget, now and then, what no longer bears on anybody."""
        now = self._now()
        with self._purging:
            if 0 <= now - self._purged < _PURGE_EVERY_S:
                return
            self._purged = now
        with self._state.transaction() as connection:
            connection.execute(
                "DELETE FROM guess_pairs WHERE last < ? AND known_until < ?",
                (now - self._limits.forget_after_s, now),
            )
            connection.execute("DELETE FROM guess_buckets WHERE at < ?", (now - self._limits.window_s,))


def _is_of(who: str, account: str, address: str) -> bool:
    wanted_account, wanted_address = _keys(who)
    return account == wanted_account if wanted_account else address == wanted_address


def _keys(who: str) -> tuple[str, str]:
    """The account that is meant, or the address; the other is empty, and no row has it."""
    return (account_key(who), "") if is_safe_account_name(who) else ("", address_key(who))


def _read_pair(connection: sqlite3.Connection, account: str, address: str) -> Pair:
    row = connection.execute(
        "SELECT failures, last, refused, known_until FROM guess_pairs WHERE account = ? AND address = ?",
        (account, address),
    ).fetchone()
    return Pair(*row) if row else Pair()


def _read(connection: sqlite3.Connection, pair: Pair, account: str, address: str, known: bool) -> Standing:
    def bucket(kind: str, name: str) -> Bucket:
        row = connection.execute(
            "SELECT used, at FROM guess_buckets WHERE kind = ? AND name = ?", (kind, name)
        ).fetchone()
        return Bucket(*row) if row else Bucket()

    return Standing(pair, bucket(_ADDRESS, address), bucket(_KNOWN if known else _UNKNOWN, account))


def _write(
    connection: sqlite3.Connection, standing: Standing, account: str, address: str, known: bool
) -> None:
    """All three rows, changed or not: what is written must not tell by its time what was decided."""
    _write_pair(connection, standing.pair, account, address)
    for kind, name, bucket in (
        (_ADDRESS, address, standing.address),
        (_KNOWN if known else _UNKNOWN, account, standing.account),
    ):
        connection.execute(
            "INSERT OR REPLACE INTO guess_buckets VALUES (?, ?, ?, ?)", (kind, name, bucket.used, bucket.at)
        )


def _write_pair(connection: sqlite3.Connection, pair: Pair, account: str, address: str) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO guess_pairs VALUES (?, ?, ?, ?, ?, ?)",
        (account, address, pair.failures, pair.last, pair.refused, pair.known_until),
    )


def _keep_newest_known(connection: sqlite3.Connection, account: str) -> None:
    connection.execute(
        "UPDATE guess_pairs SET known_until = 0 WHERE account = ? AND known_until > 0 AND address NOT IN"
        " (SELECT address FROM guess_pairs WHERE account = ? ORDER BY known_until DESC LIMIT ?)",
        (account, account, _MOST_KNOWN),
    )
