"""Closes people's connections when their login has ended: sshd closes none by itself.

A login ends at its ceiling, by logging out, by `hpchub revoke`, or because the site has locked the account.
The bridge knows of the first two; it asks the signer once a second about the rest. That works after either
of them restarts: ends are numbered in the signer's ledger, and a bridge that begins asks for all of them.

Servers run on. What becomes of them, and why, is in docs/adr/0012.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from hpchub.bridge.service_account import WithServiceAccounts
from hpchub.bridge.sessions import Sessions
from hpchub.errors import HpchubError
from hpchub.signer.client import SignerClient
from hpchub.ssh.pool import Pool

log = logging.getLogger(__name__)

_PAUSE_S = 1.0

LOGGED_OUT, CEILING, REFUSED = "logged out", "ceiling", "refused"


class Ends:
    """One bridge's. `begin` and `close` it."""

    def __init__(
        self,
        sessions: Sessions,
        pool: Pool,
        signer: SignerClient,
        service_accounts: WithServiceAccounts,
        *,
        keep_tunnels: bool = False,
    ) -> None:
        """`keep_tunnels`: who logs out or reaches the ceiling keeps the connections of running servers."""
        self._sessions = sessions
        self._pool = pool
        self._signer = signer
        self._service_accounts = service_accounts
        self._keep_tunnels = keep_tunnels
        self._number = 0
        self._expired: set[str] = set()
        self._signer_away = False
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Look, once a second."""
        self._task = asyncio.create_task(self._watch(), name="ends")

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def log_out(self, user: str) -> None:
        """End a user's session, and close their connections."""
        try:
            await self._sessions.close(user)
        finally:
            await self._disconnect(user, LOGGED_OUT)

    async def look(self) -> None:
        """Close what has ended since the last look."""
        await self._look_at_ceilings()
        while self._sessions.refused:
            await self._end_session(self._sessions.refused.pop(), REFUSED)
        try:
            ended, number = await self._signer.ends(self._number)
        except HpchubError as error:
            if not self._signer_away:
                log.warning("ends.unknown error=%s", error)
            self._signer_away = True
            return
        self._signer_away = False
        for fingerprint, why in ended.items():
            try:
                await self._end(fingerprint, why)
            except Exception:
                # The last resort: one person's trouble must not keep the others' connections open.
                log.exception("ends.crashed key=%s", fingerprint)
        self._number = number  # last: what was interrupted is heard again

    async def _look_at_ceilings(self) -> None:
        """Once each; the session stays, since clocks that jump also jump back."""
        expired = self._sessions.expired()
        for user in expired - self._expired:
            await self._disconnect(user, CEILING)
        self._expired = expired

    async def _end(self, fingerprint: str, why: str) -> None:
        owner = self._sessions.owner_of(fingerprint)
        if owner is None:
            self._sessions.end_opening(fingerprint)
            for account in sorted(await self._service_accounts.forget(fingerprint)):
                await self._disconnect(account, why)
            return
        user, is_now = owner
        if not is_now and why == LOGGED_OUT:
            return  # replaced by a newer login of the same person
        if is_now:
            await self._end_session(user, why)
        else:
            await self._disconnect(user, why)

    async def _end_session(self, user: str, why: str) -> None:
        try:
            await self._sessions.forget(user)
        finally:
            await self._disconnect(user, why)

    async def _disconnect(self, user: str, why: str) -> None:
        keep = self._keep_tunnels and why in {LOGGED_OUT, CEILING}
        connections = await self._pool.drop_user(user, keep_servers=keep)
        log.info("session.ended user=%s why=%s connections=%d", user, why, connections)
        if not connections:
            return
        try:
            await self._signer.disconnected(user, why, connections)
        except HpchubError as error:
            log.warning("ends.unrecorded user=%s error=%s", user, error)

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("ends.look_crashed pause_s=%g", _PAUSE_S)
            await asyncio.sleep(_PAUSE_S)
