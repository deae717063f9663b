"""Certificates for people's own terminals, each recorded: made of a login that lives, and given back.

A terminal has a key of its own, which its owner's machine made, and a row of its own in the ledger, whose
id begins with that of the login: what is done about the one is done about the other. The bridge asks for
it, and proves with the login's key that it does; a hub without that login can ask for nothing.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from dataclasses import replace

import asyncssh

from hpchub.audit import Event, Outcome, Record
from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.core.terminal import LOG_OUT, is_terminal, key_proof, terminal_request
from hpchub.errors import InvalidRequest, NotAllowed
from hpchub.signer.authority import Authority
from hpchub.signer.certificates import PublicKey, parse_public_key
from hpchub.signer.ends import fingerprint_in
from hpchub.signer.holding import held_certificate, held_grant
from hpchub.signer.ledger import HeldGrant, Ledger
from hpchub.signer.minting import Minted
from hpchub.signer.policy import Grant, Plan, plan_terminal_certificate
from hpchub.signer.recorder import TrueReason

_NOT_THE_KEY = "That was not signed by the key of a login."


class Terminals:
    """What the authority does for people's own machines."""

    def __init__(self, authority: Authority, ledger: Ledger) -> None:
        self._authority = authority
        self._ledger = ledger

    async def mint(
        self, token: Secret, *, login_key: str, signature: str, public_key: str, source: str
    ) -> Minted:
        """The certificate for a terminal's key that a login earns now.

        Args:
            token: The login's grant.
            login_key: The key that the grant is for.
            signature: Of `terminal_request`, by that key, in base64.
            public_key: The terminal's.
            source: Where the terminal is, for the audit log.

        Raises:
            NotAllowed: The site gives none, the login has ended, its key did not sign, or the terminal's
                has a login already.
            InvalidRequest: A public key, or what the account would be called, is refused.
            RemoteError: The authority that signs is away or slow.
            SiteError: The certificate could not be signed or recorded.
        """
        told = {"profile": Profile.TERMINAL.value, "source": source}
        try:
            key = parse_public_key(public_key)
            told["fingerprint"] = key.fingerprint
            grant = self._authority.minting.parse_grant(token)
            terminal_id = grant.grant_id + secrets.token_hex(16)
            told |= {"user": grant.account, "factor": grant.factor, "grant_id": terminal_id}
            signer = parse_public_key(login_key)
            signed = terminal_request(token.reveal(), key.line)
            if signer.fingerprint != grant.fingerprint or not _has_signed(signer, signed, signature):
                raise NotAllowed(_NOT_THE_KEY)
            await self._refuse_ended(grant, key)
            plan = plan_terminal_certificate(
                self._authority.minting.policy,
                grant,
                fingerprint=key.fingerprint,
                now=int(time.time()),
                serial=secrets.randbelow(2**64 - 1) + 1,
            )
            issued = await self._authority.minting.issue(key, plan, told)
            self._hold(grant, issued.plan, self._held(grant, issued.plan, terminal_id, key, source), key)
        except Exception as error:
            failure = Record(event=Event.CERTIFICATE, outcome=Outcome.ERROR, **told)
            await self._authority.write_failure(failure, error)
            raise
        await self._authority.write(Record(event=Event.CERTIFICATE, outcome=Outcome.GRANTED, **told))
        return Minted(issued.certificate, issued.plan, issued.plan.valid_before)

    async def _refuse_ended(self, grant: Grant, key: PublicKey) -> None:
        await self._authority.minting.refuse_ended(grant)
        if why := self._ledger.refusal(grant.account, fingerprint=key.fingerprint):
            raise NotAllowed("That key may not be used.") from TrueReason(why)
        self._refuse_taken(key)

    def _refuse_taken(self, key: PublicKey) -> None:
        """A key stands for one login: nobody has shown that they hold it, and it may be somebody else's."""
        if self._ledger.grants(int(time.time()), fingerprint=key.fingerprint):
            raise NotAllowed("That key has a login already.", "Make another one.")

    def _hold(self, grant: Grant, plan: Plan, held: HeldGrant, key: PublicKey) -> None:
        """Enter it into the ledger, unless something was taken back while it was signed. Without a pause."""
        made = held_certificate(plan, key, held.grant_id)
        self._refuse_taken(key)
        why = self._ledger.refusal(grant.account, grant.grant_id, grant.fingerprint, grant.issued)
        if why := why or self._ledger.add_certificates([(made, grant.issued)])[0]:
            raise NotAllowed("Your login has ended.", "Log in again.") from TrueReason(why)
        self._ledger.add_grant(held)

    def holder(self, *, public_key: str, purpose: str, hub: str, challenge: str, signature: str) -> HeldGrant:
        """The terminal whose key has signed the challenge, for that purpose and the hub of that name.

        Raises:
            NotAllowed: It is no terminal's key, its login has ended, or it did not sign that.
            InvalidRequest: The public key is refused.
        """
        key = parse_public_key(public_key)
        if not _has_signed(key, key_proof(purpose, hub, challenge), signature):
            raise NotAllowed(_NOT_THE_KEY)
        held = self._ledger.grants(int(time.time()), fingerprint=key.fingerprint)
        terminal = next((one for one in held if is_terminal(one.grant_id)), None)
        if terminal is None:
            raise NotAllowed("The login of this key has ended.", "Log in again.")
        return terminal

    async def vouch(
        self, *, public_key: str, purpose: str, hub: str, challenge: str, signature: str
    ) -> HeldGrant:
        """As `holder`, and recorded. SiteError where that cannot be."""
        record = Record(
            event=Event.TERMINAL_PROOF,
            outcome=Outcome.ERROR,
            profile=Profile.TERMINAL.value,
            fingerprint=fingerprint_in(public_key),
        )
        try:
            terminal = self.holder(
                public_key=public_key, purpose=purpose, hub=hub, challenge=challenge, signature=signature
            )
        except Exception as error:
            await self._authority.write_failure(record, error)
            raise
        await self._authority.write(
            replace(record, outcome=Outcome.GRANTED, reason=purpose, user=terminal.account,
                    factor=terminal.factor, grant_id=terminal.grant_id)
        )  # fmt: skip
        return terminal

    async def log_out(self, *, public_key: str, hub: str, challenge: str, signature: str) -> None:
        """End what a terminal holds. Raises as `holder`, and SiteError where it cannot be recorded."""
        record = Record(
            event=Event.LOGOUT,
            outcome=Outcome.DONE,
            reason="by the person, at the terminal",
            profile=Profile.TERMINAL.value,
            fingerprint=fingerprint_in(public_key),
        )
        try:
            terminal = self.holder(
                public_key=public_key, purpose=LOG_OUT, hub=hub, challenge=challenge, signature=signature
            )
            self._authority.ending.ends.log_out_terminal(terminal)
        except Exception as error:
            await self._authority.write_failure(record, error)
            raise
        await self._authority.write(
            replace(record, user=terminal.account, factor=terminal.factor, grant_id=terminal.grant_id)
        )  # fmt: skip

    @staticmethod
    def _held(grant: Grant, plan: Plan, terminal_id: str, key: PublicKey, source: str) -> HeldGrant:
        return replace(
            held_grant(grant, key, source),
            grant_id=terminal_id,
            fingerprint=key.fingerprint,
            issued=int(time.time()),
            ceiling=plan.valid_before,
        )


def _has_signed(key: PublicKey, text: bytes, signature: str) -> bool:
    try:
        made = base64.b64decode(signature, validate=True)
    except (ValueError, binascii.Error) as error:
        raise InvalidRequest("A signature must be base64.") from error
    return bool(asyncssh.import_public_key(key.line).verify(text, made))
