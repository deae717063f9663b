"""What a proof earns: a password with its second factor, an id_token, a Kerberos ticket. Records nothing."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from hpchub.core.secret import Secret
from hpchub.errors import EnrolmentRequired, NotAllowed, RemoteError
from hpchub.signer.certificates import PublicKey
from hpchub.signer.factor_changes import login_purpose
from hpchub.signer.guard import Guard
from hpchub.signer.ledger import Ledger
from hpchub.signer.metrics import SignerMetrics
from hpchub.signer.oidc_proof import OidcLogins, Presented
from hpchub.signer.policy import Grant, Policy, plan_grant
from hpchub.signer.proofs import Accepted, Proof, Refused
from hpchub.signer.recorder import TrueReason
from hpchub.signer.second_factor import SecondFactors
from hpchub.signer.spnego_proof import SpnegoProof, Ticket, refuse_without_second_factor

_Result = TypeVar("_Result")

# Beyond these, a waiting login would outlast its client's patience.
_MAX_WAITING = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What somebody typed, and the browser's address as the hub reports it."""

    username: str
    password: Secret
    code: Secret
    source: str


class Proving:
    """Asks the site's proofs, within the limits on guessing. `close` it when done: it owns their threads."""

    def __init__(
        self,
        proof: Proof,
        guard: Guard,
        policy: Policy,
        ledger: Ledger,
        metrics: SignerMetrics,
        second_factors: SecondFactors | None,
        *,
        oidc: OidcLogins | None,
        spnego: SpnegoProof | None,
    ) -> None:
        self._proof = proof
        self._guard = guard
        self._policy = policy
        self._ledger = ledger
        self._metrics = metrics
        self._second_factors = second_factors
        self._oidc = oidc
        self._spnego = spnego
        self._waiting = 0
        self._threads = ThreadPoolExecutor(proof.workers, thread_name_prefix="proof")

    def close(self) -> None:
        """End the threads once they are idle; what waits is given up."""
        self._threads.shutdown(cancel_futures=True)

    def enrolling(self) -> SecondFactors:
        """Where second factors are kept. NotAllowed where the site asks for none."""
        if self._second_factors is None:
            raise NotAllowed("Second factors are not asked for here.")
        return self._second_factors

    async def by_password(self, attempt: Attempt, key: PublicKey) -> Grant:
        """The grant that an attempt earns. Each refusal waits as long as the proof wants."""
        began, verdict = await self.judge(attempt, login_purpose(key.fingerprint))
        try:
            return await self._earned(verdict, key)
        except EnrolmentRequired:
            raise
        except NotAllowed:
            await self.wait_with_refusal(began)
            raise

    async def judge(self, attempt: Attempt, purpose: str) -> tuple[float, Accepted | Refused]:
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

        with self._metrics.proof_seconds.time():
            return await self._in_thread(judge)

    async def wait_with_refusal(self, began: float) -> None:
        """Until a refusal has taken as long as each does; `began` is what `judge` said."""
        await asyncio.sleep(began + self._proof.refusal_s - time.monotonic())

    async def by_token(self, presented: Presented, key: PublicKey, told: dict[str, str]) -> Grant:
        """The grant that an id_token earns; who it names goes into `told`, whether they may log in or not."""
        with self._metrics.proof_seconds.time():
            verdict = await self.oidc_logins().judge(presented, key.line)
        if isinstance(verdict, Accepted):
            told |= {"user": verdict.account, "factor": verdict.factor}
        return await self._earned_elsewhere(verdict, key)

    async def by_ticket(self, ticket: Ticket, key: PublicKey, told: dict[str, str]) -> Grant:
        """As `by_token`, with a Kerberos ticket."""
        spnego = self._spnego
        if spnego is None:
            raise NotAllowed("Kerberos tickets are not taken here.")

        def judge() -> Accepted | Refused:
            verdict = spnego.verify(ticket.token)
            refuse_without_second_factor(verdict, self._second_factors, login_purpose(key.fingerprint))
            return verdict

        with self._metrics.proof_seconds.time():
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

    def oidc_logins(self) -> OidcLogins:
        """The provider's. NotAllowed where the site has none."""
        if self._oidc is None:
            raise NotAllowed("Logins at an OpenID provider are not taken here.")
        return self._oidc

    async def _earned(self, verdict: Accepted | Refused, key: PublicKey) -> Grant:
        if isinstance(verdict, Refused):
            raise refused_login() from TrueReason(verdict.reason)
        if why := self._ledger.refusal(verdict.account, fingerprint=key.fingerprint):
            raise refused_login() from TrueReason(why)
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
            raise refused_login() from error
        if verdict.must_enrol:
            ticket = await asyncio.to_thread(
                self.enrolling().begin, grant.account, has_second=verdict.has_second
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


def refused_login() -> NotAllowed:
    """The same words, whatever the reason is."""
    return NotAllowed("That username and password do not match.", "Check both and try again.")
