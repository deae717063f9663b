"""What a security key is to sign: made by the signer, for one account and one purpose, good once.

A challenge proves by itself that it is ours and when it ends, so that whoever opens the login page writes
nothing into the signer's state. Only one that comes back is remembered, until it would have ended anyway.
"""

from __future__ import annotations

import hmac
import secrets
import sqlite3
import struct
from collections.abc import Callable

from hpchub.signer.factor_key import FactorKey

CHALLENGE_S = 5 * 60

_NONCE_BYTES = 16
_END = struct.Struct(">Q")
_TAG_BYTES = 32


class Challenges:
    """Makes and spends them. `account` is a name as `account_key` has it."""

    def __init__(self, key: FactorKey, now: Callable[[], float]) -> None:
        self._key = key
        self._now = now

    def make(self, account: str, purpose: str) -> bytes:
        """A challenge that this account can answer for this purpose, within five minutes."""
        body = secrets.token_bytes(_NONCE_BYTES) + _END.pack(int(self._now()) + CHALLENGE_S)
        return body + self._tag(account, purpose, body)

    def spend(self, connection: sqlite3.Connection, challenge: bytes, account: str, purpose: str) -> str:
        """Why a challenge is no good, or "" for the first time that a good one comes."""
        body, tag = challenge[:-_TAG_BYTES], challenge[-_TAG_BYTES:]
        if len(body) != _NONCE_BYTES + _END.size or not hmac.compare_digest(
            tag, self._tag(account, purpose, body)
        ):
            return "a challenge that was not made for this"
        nonce, (ends_at,) = body[:_NONCE_BYTES], _END.unpack(body[_NONCE_BYTES:])
        if ends_at < self._now():
            return "a challenge that has expired"
        connection.execute("DELETE FROM spent_challenges WHERE ends_at < ?", (self._now(),))
        done = connection.execute("INSERT OR IGNORE INTO spent_challenges VALUES (?, ?)", (nonce, ends_at))
        return "" if done.rowcount else "a challenge that was answered before"

    def _tag(self, account: str, purpose: str, body: bytes) -> bytes:
        return self._key.tag(f"challenge\0{purpose}\0{account}\0".encode() + body)
