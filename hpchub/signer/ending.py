"""The acts that end logins, each recorded: by staff, by logging out, because the site has locked an account.

Unlike a grant, an end does not wait for its record: where the audit log cannot be written, it is in force
all the same, and whoever asked is told that it is unrecorded.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace

from hpchub.audit import Event, Outcome, Record
from hpchub.core.secret import Secret
from hpchub.errors import HpchubError, InvalidRequest
from hpchub.signer.ends import LOCKED, REVOKED, Ends, Taken, fingerprint_in
from hpchub.signer.grants import GrantKey
from hpchub.signer.ledger import HeldGrant

_NO_REASON = "no reason given"

_SERIAL = re.compile(r"[1-9][0-9]{0,19}", re.ASCII)
_KEY_ID = re.compile(r"hpchub:[A-Za-z0-9._:=@-]{1,121}", re.ASCII)

_log = logging.getLogger(__name__)


class Ending:
    """Revoke, undo, log out, lock, and what the bridge says that it has closed."""

    def __init__(self, ends: Ends, grant_key: GrantKey, write: Callable[[Record], Awaitable[None]]) -> None:
        self.ends = ends
        self._grant_key = grant_key
        self._write = write

    async def revoke(self, target: str, *, reason: str, by: str) -> Taken:
        """Take back all that a user, serial, key id or key names.

        Raises:
            InvalidRequest: It names nothing.
            SiteError: It is in force, but could not be recorded; or the ledger cannot be written.
        """
        record = self._revocation(target, reason, by)
        try:
            taken = self.ends.revoke(target)
        except HpchubError as error:
            await self._write(replace(record, outcome=_outcome(error), reason=error.message))
            raise
        _log.warning("login.revoked user=%s logins=%d", taken.account or "-", len(taken.grants))
        await self._write(replace(record, user=taken.account or record.user))
        await self._write_ended(taken.grants, REVOKED)
        return taken

    async def undo(self, target: str, *, reason: str, by: str) -> None:
        """Let a user log in again, or a key be used again. InvalidRequest where that cannot be."""
        record = self._revocation(target, f"undone: {reason or _NO_REASON}", by)
        try:
            self.ends.undo(target)
        except HpchubError as error:
            await self._write(replace(record, outcome=_outcome(error), reason=error.message))
            raise
        await self._write(record)

    async def log_out(self, token: Secret) -> None:
        """End the login of a grant, unless it has ended already. NotAllowed where the grant is not ours."""
        record = Record(event=Event.LOGOUT, outcome=Outcome.DONE, reason="by the person")
        try:
            grant = self._grant_key.parse(token)
        except HpchubError as error:
            await self._write(replace(record, outcome=_outcome(error), reason=str(error.__cause__ or error)))
            raise
        if self.ends.log_out(grant.account, grant.grant_id, grant.fingerprint, grant.ceiling):
            await self._write(
                replace(record, user=grant.account, factor=grant.factor, fingerprint=grant.fingerprint,
                        grant_id=grant.grant_id)
            )  # fmt: skip

    async def lock(self, account: str, problem: str) -> None:
        """End all that an account holds, because the site does not let it log in any more."""
        taken = self.ends.end_account(account, LOCKED)
        _log.warning("login.locked user=%s logins=%d reason=%s", account, len(taken.grants), problem)
        await self._write_ended(taken.grants, f"{LOCKED}: {problem}")

    async def disconnected(self, user: str, why: str, connections: int) -> None:
        """Record that the bridge has closed connections."""
        reason = f"{why}: {connections} connections"
        await self._write(Record(event=Event.DISCONNECTED, outcome=Outcome.DONE, user=user, reason=reason))

    async def _write_ended(self, grants: list[HeldGrant], why: str) -> None:
        await asyncio.gather(
            *(
                self._write(
                    Record(
                        event=Event.ENDED,
                        outcome=Outcome.DONE,
                        reason=why,
                        user=grant.account,
                        factor=grant.factor,
                        fingerprint=grant.fingerprint,
                        grant_id=grant.grant_id,
                    )
                )
                for grant in grants
            )
        )

    def _revocation(self, target: str, reason: str, by: str) -> Record:
        record = Record(event=Event.REVOCATION, outcome=Outcome.DONE, reason=reason or _NO_REASON, source=by)
        if _SERIAL.fullmatch(target):
            return replace(record, serial=target)
        key_id = target if _KEY_ID.fullmatch(target) else ""
        return replace(record, user=target, key_id=key_id, fingerprint=fingerprint_in(target))


def _outcome(error: HpchubError) -> Outcome:
    return Outcome.REFUSED if isinstance(error, InvalidRequest) or error.status < 500 else Outcome.ERROR
