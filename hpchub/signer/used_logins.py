"""Remembers which logins of an OpenID provider were used: each counts once, in whatever process."""

from __future__ import annotations

import time
from collections.abc import Callable

from hpchub.signer.state import State

# Longer than any id_token is taken (oidc_token.py), and long enough for clocks that are set back.
_KEEP_S = 3600


class UsedLogins:
    """In the signer's state file. Blocks: call it from a thread."""

    def __init__(self, state: State, now: Callable[[], float] = time.time) -> None:
        self._state = state
        self._now = now

    def use(self, nonce: str) -> bool:
        """Whether this is the first time, for any token with that nonce.

        Not the token's own text is kept: the same token can be written in more than one way.

        Raises:
            SiteError: It cannot be kept. Nothing may be granted then.
        """
        now = self._now()
        with self._state.transaction() as connection:
            connection.execute("DELETE FROM used_logins WHERE used_at < ?", (now - _KEEP_S,))
            cursor = connection.execute("INSERT OR IGNORE INTO used_logins VALUES (?, ?)", (nonce, now))
            return cursor.rowcount == 1
