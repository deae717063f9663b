"""The acts of the signer, each recorded whether it ends well or not: logins here, certificates in minting.py.

What a login has to prove is in proving.py.

Nothing is granted before its record is on the disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from hpchub.audit import AuditLog, Event, Outcome, Record
from hpchub.core.secret import Secret
from hpchub.errors import HpchubError, InvalidRequest, SiteError
from hpchub.signer.account_check import AccountCheck
from hpchub.signer.certificates import PublicKey, parse_public_key
from hpchub.signer.ending import Ending
from hpchub.signer.ends import Ends
from hpchub.signer.factor_changes import CHANGE_PURPOSE, FactorActs
from hpchub.signer.grants import GrantKey
from hpchub.signer.guard import Guard
from hpchub.signer.holding import held_grant
from hpchub.signer.issuer import Issuer
from hpchub.signer.ledger import Ledger
from hpchub.signer.metrics import SignerMetrics
from hpchub.signer.minting import Minting
from hpchub.signer.oidc_proof import OidcLogins, Presented
from hpchub.signer.policy import Grant, Policy
from hpchub.signer.proofs import Proof, Refused
from hpchub.signer.proving import Attempt, Proving, refused_login
from hpchub.signer.recorder import Recorder, TrueReason
from hpchub.signer.recorder import failed as _failed
from hpchub.signer.second_factor import Enrolled, Mistyped, Offer, SecondFactors
from hpchub.signer.spnego_proof import SpnegoProof, Ticket

# What stands in the audit log for somebody who sets up an app.
_TOTP_FACTOR = "totp"


@dataclass(frozen=True, slots=True)
class Login:
    """A granted login."""

    grant: Grant
    token: Secret


class Authority:
    """Holds the keys. `close` it when done: it owns the threads in which proofs run."""

    def __init__(
        self,
        issuer: Issuer,
        grant_key: GrantKey,
        policy: Policy,
        proof: Proof,
        guard: Guard,
        audit: AuditLog,
        ledger: Ledger,
        ends: Ends,
        second_factors: SecondFactors | None = None,
        metrics: SignerMetrics | None = None,
        *,
        oidc: OidcLogins | None = None,
        spnego: SpnegoProof | None = None,
    ) -> None:
        self.metrics = metrics or SignerMetrics()
        self._issuer = issuer
        self._grant_key = grant_key
        self._policy = policy
        self._proof = proof
        self._guard = guard
        self._second_factors = second_factors
        self._spnego = spnego
        self._audit = audit
        self._recorder = Recorder(audit)
        self._ledger = ledger
        self.ending = Ending(ends, grant_key, self.write)
        self.factors = FactorActs(second_factors, self.write)
        self.accounts = AccountCheck(proof)
        self.minting = Minting(issuer, grant_key, policy, ledger, self.accounts, self.ending, self.write)
        self._proving = Proving(
            proof, guard, policy, ledger, self.metrics, second_factors, oidc=oidc, spnego=spnego
        )

    def close(self) -> None:
        """End the threads once they are idle; what waits is given up."""
        self._proving.close()

    @property
    def factor_kinds(self) -> list[str]:
        """The kinds of second factor that anybody may need to log in; empty where none is asked for."""
        return [kind.value for kind in self._second_factors.settings.kinds] if self._second_factors else []

    @property
    def principals(self) -> tuple[str, ...]:
        """The forms that principals may have, the usual one first."""
        return self._policy.principals

    async def log_in(self, attempt: Attempt, public_key: str) -> Login:
        """The grant that an attempt earns for one public key.

        Raises:
            NotAllowed: Refused, always in the same words.
            EnrolmentRequired: The password is right, and a second factor has to be set up first.
            InvalidRequest: The public key is refused.
            RemoteError: Too many logins wait, or the site's check does not answer.
            SiteError: The attempt could not be checked or recorded.
        """
        record = Record(
            event=Event.LOGIN, outcome=Outcome.ERROR, user=attempt.username, source=attempt.source
        )
        return await self._log_in(record, public_key, lambda key: self._proving.by_password(attempt, key))

    async def log_in_with_token(self, presented: Presented, public_key: str) -> Login:
        """The grant that an OpenID provider's id_token earns for the key that is in its nonce.

        Nobody guesses a signature, so no failures are counted.

        Raises:
            NotAllowed: Refused, always in the same words.
            InvalidRequest: The public key is refused.
            RemoteError: The provider's keys cannot be had.
            SiteError: The attempt could not be checked or recorded.
        """
        record = Record(event=Event.LOGIN, outcome=Outcome.ERROR, source=presented.source)
        told: dict[str, str] = {}
        return await self._log_in(
            record, public_key, lambda key: self._proving.by_token(presented, key, told), told
        )

    async def log_in_with_ticket(self, ticket: Ticket, public_key: str) -> Login:
        """The grant that a Kerberos ticket earns, once, for one public key.

        Nobody guesses a ticket, so no failures are counted.

        Raises:
            NotAllowed: Refused, always in the same words, but for who has to give a second factor too.
            InvalidRequest: The public key is refused.
            RemoteError: Too many logins wait, or there is no answer in time.
            SiteError: The attempt could not be checked or recorded.
        """
        record = Record(event=Event.LOGIN, outcome=Outcome.ERROR, source=ticket.source)
        told: dict[str, str] = {}
        return await self._log_in(
            record, public_key, lambda key: self._proving.by_ticket(ticket, key, told), told
        )

    async def oidc_request(self) -> dict[str, Any]:
        """What the hub is to ask the OpenID provider for, as processes.md has it.

        Raises:
            NotAllowed: The site has none.
            RemoteError: The provider cannot be asked where its pages are.
        """
        return await self._proving.oidc_logins().request()

    async def _log_in(
        self,
        record: Record,
        public_key: str,
        prove: Callable[[PublicKey], Awaitable[Grant]],
        told: Mapping[str, str] = MappingProxyType({}),
    ) -> Login:
        """`told` is what is known of whoever is refused: `prove` may write into it."""
        try:
            key = parse_public_key(public_key)
            record = replace(record, fingerprint=key.fingerprint)
            grant = await prove(key)
        except Exception as error:
            record = replace(record, user=told.get("user", record.user), factor=told.get("factor", ""))
            await self.write(_failed(record, error))
            raise
        record = replace(record, user=grant.account, factor=grant.factor, grant_id=grant.grant_id)
        login = Login(grant, self._grant_key.render(grant))
        self._ledger.add_grant(held_grant(grant, key, record.source))
        self.accounts.is_fine(grant.account)
        await self.write(replace(record, outcome=Outcome.GRANTED))
        return login

    async def missing(self) -> dict[str, str]:
        """What keeps the signer from granting anything, and why; empty where nothing does."""
        missing: dict[str, str] = {}
        checks = {
            "audit_log": self._audit.check,
            "proof": self._proof.check,
            "state": self._guard.check,
            "krl_file": self.ending.ends.check,
        }
        if self._spnego is not None:
            checks["spnego"] = self._spnego.check
        for name, check in checks.items():
            try:
                await asyncio.to_thread(check)
            except HpchubError as error:
                missing[name] = error.message
        try:
            await self._issuer.check()
        except HpchubError as error:
            missing["ca"] = error.message
        return missing

    async def record_unreadable(self, event: Event, error: HpchubError) -> None:
        """Record an attempt whose body could not be read."""
        await self.write(_failed(Record(event=event, outcome=Outcome.ERROR), error))

    async def offer(self, ticket: Secret) -> Offer:
        """What an app needs to become a second factor. NotAllowed where the ticket is none of ours."""
        second_factors = self._proving.enrolling()
        return await asyncio.to_thread(second_factors.offer, ticket)

    async def enrol(self, ticket: Secret, code: Secret, source: str) -> Enrolled:
        """Have a second factor count, and its recovery codes.

        Raises:
            NotAllowed: The ticket is none of ours or has expired.
            InvalidRequest: The code is not the app's.
            SiteError: It could not be kept or recorded.
        """
        record = Record(event=Event.ENROLMENT, outcome=Outcome.ERROR, source=source, factor=_TOTP_FACTOR)
        try:
            found = await asyncio.to_thread(self._proving.enrolling().confirm, ticket, code)
            if isinstance(found, Mistyped):
                record = replace(record, user=found.account)
                raise InvalidRequest("That is not the code that the app shows now.", "Try the next one.")
        except Exception as error:
            await self.write(_failed(record, error))
            raise
        await self.write(replace(record, user=found.account, outcome=Outcome.GRANTED))
        return found

    async def ticket(self, attempt: Attempt) -> Secret:
        """A ticket with which somebody changes their second factors, for the same proof as a login.

        Raises:
            NotAllowed: Refused, in the words of a login.
            RemoteError, SiteError: As for `log_in`.
        """
        record = Record(
            event=Event.FACTOR_CHANGE, outcome=Outcome.ERROR, user=attempt.username, source=attempt.source
        )
        try:
            second_factors = self._proving.enrolling()
            began, verdict = await self._proving.judge(attempt, CHANGE_PURPOSE)
            why = verdict.reason if isinstance(verdict, Refused) else self._ledger.refusal(verdict.account)
            if why or isinstance(verdict, Refused):
                await self._proving.wait_with_refusal(began)
                raise refused_login() from TrueReason(why)
            ticket = await asyncio.to_thread(
                second_factors.begin, verdict.account, has_second=verdict.has_second
            )
        except Exception as error:
            await self.write(_failed(record, error))
            raise
        await self.write(
            replace(record, user=verdict.account, factor=verdict.factor, outcome=Outcome.GRANTED)
        )
        return ticket

    async def write_failure(self, record: Record, error: Exception) -> None:
        """Record an act that failed, with the true reason."""
        await self.write(_failed(record, error))

    async def write(self, record: Record) -> None:
        """Record, and count. SiteError where it cannot be written."""
        try:
            await self._recorder.write(record)
        except SiteError:
            self.metrics.audit_failures.inc()
            raise
        self.metrics.count(record)
