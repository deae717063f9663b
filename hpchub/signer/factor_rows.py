"""The rows of second factors in the signer's state file, as far as they need no key."""

from __future__ import annotations

import sqlite3

from hpchub.signer.guessing import account_key
from hpchub.signer.security_keys import keys_of, remove_keys
from hpchub.signer.state import State


def has_app(connection: sqlite3.Connection, account: str) -> bool:
    """Whether an account has an app that shows codes."""
    found = connection.execute("SELECT 1 FROM second_factors WHERE account = ?", (account,)).fetchone()
    return found is not None


def has_factor(connection: sqlite3.Connection, account: str) -> bool:
    """Whether an account has a second factor of any kind."""
    return has_app(connection, account) or bool(keys_of(connection, account))


def forget_second_factor(state: State, account: str) -> bool:
    """Forget somebody's second factor and recovery codes; whether there was one. It needs no key."""
    with state.transaction() as connection:
        return _forget(connection, account_key(account))


def use_step(connection: sqlite3.Connection, account: str, step: int) -> None:
    """No code of that step, or of one before, counts again."""
    connection.execute("UPDATE second_factors SET last_step = ? WHERE account = ?", (step, account))


def use_recovery_code(connection: sqlite3.Connection, account: str, digest: bytes) -> None:
    """It does not count again."""
    connection.execute("DELETE FROM recovery_codes WHERE account = ? AND digest = ?", (account, digest))


def _forget(connection: sqlite3.Connection, key: str) -> bool:
    connection.execute("DELETE FROM recovery_codes WHERE account = ?", (key,))
    connection.execute("DELETE FROM enrolments WHERE account = ?", (key,))
    keys = remove_keys(connection, key)
    return connection.execute("DELETE FROM second_factors WHERE account = ?", (key,)).rowcount + keys > 0
