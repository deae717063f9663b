"""Enters certificates into the ledger for many requests at once: one transaction for all that come together.

Whether something was taken back while a certificate was being signed is asked in that same transaction,
so that nothing that is revoked leaves unknown to the revocation.
"""

from __future__ import annotations

import asyncio

from hpchub.errors import SiteError
from hpchub.signer.certificates import PublicKey
from hpchub.signer.ledger import HeldCertificate, HeldGrant, Ledger
from hpchub.signer.policy import Grant, Plan


class Holding:
    """Between requests and the ledger. Belongs to one event loop."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: list[tuple[HeldCertificate, int | None, asyncio.Future[str]]] = []

    async def add(self, made: HeldCertificate, issued: int | None) -> str:
        """Why the certificate may not leave; empty where it is in the ledger, and may.

        Args:
            made: What was signed.
            issued: When its grant was, in Unix seconds; None for those that no login earned.

        Raises:
            SiteError: The ledger cannot be written. Nothing may leave then.
        """
        loop = asyncio.get_running_loop()
        added: asyncio.Future[str] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._add_all)
        self._waiting.append((made, issued, added))
        return await added

    def _add_all(self) -> None:
        batch, self._waiting = self._waiting, []
        try:
            refusals = self._ledger.add_certificates([(made, issued) for made, issued, _ in batch])
        except SiteError as error:
            for *_, added in batch:
                if not added.done():
                    refusal = SiteError(error.message, error.hint)
                    refusal.__cause__ = error.__cause__
                    added.set_exception(refusal)
            return
        for (*_, added), why in zip(batch, refusals, strict=True):
            if not added.done():  # whoever asked has left; the ledger has it all the same
                added.set_result(why)


def held_grant(grant: Grant, key: PublicKey, source: str) -> HeldGrant:
    """What the ledger keeps of a login."""
    return HeldGrant(
        grant_id=grant.grant_id,
        account=grant.account,
        factor=grant.factor,
        source=source,
        public_key=key.line,
        fingerprint=key.fingerprint,
        issued=grant.issued,
        ceiling=grant.ceiling,
    )


def held_certificate(plan: Plan, key: PublicKey, grant_id: str) -> HeldCertificate:
    """What the ledger keeps of a certificate; no grant where no login earned it."""
    return HeldCertificate(
        serial=str(plan.serial),
        key_id=plan.key_id,
        profile=plan.profile.value,
        account=plan.account,
        grant_id=grant_id,
        public_key=key.line,
        fingerprint=plan.fingerprint,
        valid_before=plan.valid_before,
    )
