"""Whether an account that has logged in may still log in at the site, where the proof can tell."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol, runtime_checkable

from hpchub.signer.proofs import Proof

# Commands and tunnels get their certificates right after each other: one question serves both.
_FRESH_S = 30.0

# Each question to PAM is a process; those of accounts that nobody asks about are spread over this long.
_EVERY_S = 600.0


@runtime_checkable
class ChecksAccounts(Protocol):
    """A proof that can look at an account without a password: PAM's account management, a file's lock."""

    def account_problem(self, account: str) -> str:
        """Why the account may not log in now, for the audit log; empty where it may. Blocks.

        Raises:
            SiteError, RemoteError: It cannot be told.
        """


class AccountCheck:
    """Asks the proof, not more often than needed. For proofs that cannot tell, every account is fine."""

    def __init__(self, proof: Proof) -> None:
        self._proof = proof if isinstance(proof, ChecksAccounts) else None
        self._fine_at: dict[str, float] = {}

    def is_fine(self, account: str) -> None:
        """Note that the account has just proven itself."""
        self._fine_at[account] = time.monotonic()

    async def problem(self, account: str) -> str:
        """Why the account may not log in, or "". One that was fine half a minute ago is fine.

        Raises:
            SiteError, RemoteError: It cannot be told: nothing is to be granted then.
        """
        return await self._problem(account, _FRESH_S)

    async def overdue_problem(self, account: str) -> str:
        """As `problem`, for an account that nobody has asked about for long: it may hold open connections."""
        return await self._problem(account, _EVERY_S)

    async def _problem(self, account: str, fresh_s: float) -> str:
        if self._proof is None or time.monotonic() - self._fine_at.get(account, -fresh_s) < fresh_s:
            return ""
        problem = await asyncio.to_thread(self._proof.account_problem, account)
        if not problem:
            self.is_fine(account)
        else:
            self._fine_at.pop(account, None)
        return problem
