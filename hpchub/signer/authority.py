"""The acts of the signer, each recorded whether it ends well or not: logins here, certificates in minting.py.

Nothing is granted before its record is on the disk.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeVar

from hpchub.audit import AuditLog, Event, Outcome, Record
from hpchub.core.secret import Secret
from hpchub.errors import (
    EnrolmentRequired,
    HpchubError,
    InvalidRequest,
    NotAllowed,
    RemoteError,
    SiteError,
)
from hpchub.signer.account_check import AccountCheck
from hpchub.signer.certificates import PublicKey, parse_public_key
from hpchub.signer.ending import Ending
from hpchub.signer.ends import Ends
from hpchub.signer.factor_changes import CHANGE_PURPOSE, FactorActs, login_purpose
from hpchub.signer.grants import GrantKey
from hpchub.signer.guard import Guard
from hpchub.signer.holding import held_grant
from hpchub.signer.issuer import Issuer
from hpchub.signer.ledger import Ledger
from hpchub.signer.metrics import SignerMetrics
from hpchub.signer.minting import Minting
from hpchub.signer.oidc_proof import OidcLogins, Presented
from hpchub.signer.policy import (
    Grant,
    Policy,
    plan_grant,
)
from hpchub.signer.proofs import Accepted, Proof, Refused
from hpchub.signer.recorder import Recorder, TrueReason
from hpchub.signer.recorder import failed as _failed
from hpchub.signer.second_factor import Enrolled, Mistyped, Offer, SecondFactors
from hpchub.signer.spnego_proof import SpnegoProof, Ticket, refuse_without_second_factor

_Result = TypeVar("_Result")

# Beyond these, a waiting login would outlast its client's patience.
_MAX_WAITING = 64

# What stands in the audit log for somebody who sets up an app.
_TOTP_FACTOR = "totp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What somebody typed, and the browser's address as the hub reports it."""

    username: str
    password: Secret
    code: Secret
    source: str


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
        self._oidc = oidc
        self._spnego = spnego
        self._audit = audit
        self._recorder = Recorder(audit)
        self._ledger = ledger
        self.ending = Ending(ends, grant_key, self.write)
        self.factors = FactorActs(second_factors, self.write)
        self.accounts = AccountCheck(proof)
        self.minting = Minting(issuer, grant_key, policy, ledger, self.accounts, self.ending, self.write)
        self._waiting = 0
        self._threads = ThreadPoolExecutor(proof.workers, thread_name_prefix="proof")

    def close(self) -> None:
        """End the threads once they are idle; what waits is given up."""
        self._threads.shutdown(cancel_futures=True)

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
        return await self._log_in(record, public_key, lambda key: self._prove(attempt, key))

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
            record, public_key, lambda key: self._prove_by_token(presented, key, told), told
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
            record, public_key, lambda key: self._prove_by_ticket(ticket, key, told), told
        )

    async def oidc_request(self) -> dict[str, Any]:
        """What the hub is to ask the OpenID provider for, as processes.md has it.

        Raises:
            NotAllowed: The site has none.
            RemoteError: The provider cannot be asked where its pages are.
        """
        return await self._oidc_logins().request()

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
        second_factors = self._enrolling()
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
            found = await asyncio.to_thread(self._enrolling().confirm, ticket, code)
            if isinstance(found, Mistyped):
                record = replace(record, user=found.account)
                raise InvalidRequest("That is not the code that the app shows now.", "Try the next one.")
        except Exception as error:
            await self.write(_failed(record, error))
            raise
        await self.write(replace(record, user=found.account, outcome=Outcome.GRANTED))
        return found

    def _enrolling(self) -> SecondFactors:
        if self._second_factors is None:
            raise NotAllowed("Second factors are not asked for here.")
        return self._second_factors

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
            second_factors = self._enrolling()
            began, verdict = await self._judge(attempt, CHANGE_PURPOSE)
            why = verdict.reason if isinstance(verdict, Refused) else self._ledger.refusal(verdict.account)
            if why or isinstance(verdict, Refused):
                await self._wait_with_refusal(began)
                raise _refused_login() from TrueReason(why)
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

    async def _prove(self, attempt: Attempt, key: PublicKey) -> Grant:
        """The grant that an attempt earns. Each refusal waits as long as the proof wants."""
        began, verdict = await self._judge(attempt, login_purpose(key.fingerprint))
        try:
            return await self._earned(verdict, key)
        except EnrolmentRequired:
            raise
        except NotAllowed:
            await self._wait_with_refusal(began)
            raise

    async def _judge(self, attempt: Attempt, purpose: str) -> tuple[float, Accepted | Refused]:
        """When the question began, and what password and second factor are worth."""

        def check(counts: bool) -> Accepted | Refused:
            verdict = self._proof.verify(attempt.username, attempt.password)
            if self._second_factors is None:
                return verdict
            return self._second_factors.judge(
                attempt.username, attempt.code, verdict, may_use_up=counts, purpose=purpose
            )

        def judge() -> tuple[float, Accepted | Refused]:
            began = time.monotonic()
            return began, self._guard.attempt(attempt.username, attempt.source, check)

        with self.metrics.proof_seconds.time():
            return await self._in_thread(judge)

    async def _wait_with_refusal(self, began: float) -> None:
        await asyncio.sleep(began + self._proof.refusal_s - time.monotonic())

    async def _prove_by_token(self, presented: Presented, key: PublicKey, told: dict[str, str]) -> Grant:
        with self.metrics.proof_seconds.time():
            verdict = await self._oidc_logins().judge(presented, key.line)
        if isinstance(verdict, Accepted):
            told |= {"user": verdict.account, "factor": verdict.factor}
        return await self._earned_elsewhere(verdict, key)

    async def _prove_by_ticket(self, ticket: Ticket, key: PublicKey, told: dict[str, str]) -> Grant:
        spnego = self._spnego
        if spnego is None:
            raise NotAllowed("Kerberos tickets are not taken here.")

        def judge() -> Accepted | Refused:
            verdict = spnego.verify(ticket.token)
            refuse_without_second_factor(verdict, self._second_factors, login_purpose(key.fingerprint))
            return verdict

        with self.metrics.proof_seconds.time():
            verdict = await self._in_thread(judge)
        if isinstance(verdict, Accepted):
            told |= {"user": verdict.account, "factor": verdict.factor}
        return await self._earned_elsewhere(verdict, key)

    async def _earned_elsewhere(self, verdict: Accepted | Refused, key: PublicKey) -> Grant:
        """As `_earned`, for who has typed no password here."""
        try:
            return await self._earned(verdict, key)
        except NotAllowed as error:
            raise NotAllowed("The hub does not let you in with that login.") from error.__cause__

    def _oidc_logins(self) -> OidcLogins:
        if self._oidc is None:
            raise NotAllowed("Logins at an OpenID provider are not taken here.")
        return self._oidc

    async def _earned(self, verdict: Accepted | Refused, key: PublicKey) -> Grant:
        if isinstance(verdict, Refused):
            raise _refused_login() from TrueReason(verdict.reason)
        if why := self._ledger.refusal(verdict.account, fingerprint=key.fingerprint):
            raise _refused_login() from TrueReason(why)
        try:
            grant = plan_grant(
                self._policy,
                account=verdict.account,
                factor=verdict.factor,
                fingerprint=key.fingerprint,
                now=int(time.time()),
                grant_id=secrets.token_hex(16),
            )
        except NotAllowed as error:
            raise _refused_login() from error
        if verdict.must_enrol:
            ticket = await asyncio.to_thread(
                self._enrolling().begin, grant.account, has_second=verdict.has_second
            )
            raise EnrolmentRequired(
                "Set up a second factor first.", "The hub's login page leads there.", ticket=ticket.reveal()
            )
        return grant

    async def _in_thread(self, call: Callable[[], _Result]) -> _Result:
        if self._waiting >= _MAX_WAITING:
            raise RemoteError("Too many people are logging in just now.", "Try again in a minute.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        finally:
            self._waiting -= 1

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


def _refused_login() -> NotAllowed:
    return NotAllowed("That username and password do not match.", "Check both and try again.")
