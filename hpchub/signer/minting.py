"""Certificates that logins and service accounts earn: each is in the ledger and the log before it leaves."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hpchub.audit import Event, Outcome, Record
from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.errors import InvalidRequest, NotAllowed
from hpchub.signer.account_check import AccountCheck
from hpchub.signer.certificate_bytes import blob_of
from hpchub.signer.certificates import PublicKey, fingerprint_of, parse_public_key
from hpchub.signer.ending import Ending
from hpchub.signer.grants import GrantKey
from hpchub.signer.holding import Holding, held_certificate
from hpchub.signer.issuer import Issued, Issuer, issue
from hpchub.signer.ledger import Ledger
from hpchub.signer.policy import (
    Grant,
    Plan,
    Policy,
    ceiling_of,
    plan_certificate,
    plan_query_certificate,
)
from hpchub.signer.recorder import TrueReason, failed

# What stands in the audit log for the proof of whoever asks for a query certificate: the kernel says
# that it is our own account, or root, that called our socket.
_SOCKET_FACTOR = "socket"


@dataclass(frozen=True, slots=True)
class Minted:
    """A signed certificate, as one line, the plan that it follows, and when its login ends."""

    certificate: str
    plan: Plan
    expires_at: int


class Minting:
    """Signs what the policy plans, through one issuer. `policy` is the site's."""

    def __init__(
        self,
        issuer: Issuer,
        grant_key: GrantKey,
        policy: Policy,
        ledger: Ledger,
        accounts: AccountCheck,
        ending: Ending,
        write: Callable[[Record], Awaitable[None]],
    ) -> None:
        self.policy = policy
        self._issuer = issuer
        self._fingerprint = fingerprint_of(blob_of(issuer.public_key))
        self._grant_key = grant_key
        self._ledger = ledger
        self._holding = Holding(ledger)
        self._accounts = accounts
        self._ending = ending
        self._write = write

    def parse_grant(self, token: Secret) -> Grant:
        """What a grant says. NotAllowed where it is none of ours."""
        return self._grant_key.parse(token)

    async def mint(self, token: Secret, public_key: str, profile: str, form: str = "") -> Minted:
        """The certificate that a grant earns now, its principal of one of the policy's forms.

        Raises:
            NotAllowed: The grant is not ours, is for another key, or has reached its ceiling.
            InvalidRequest: The public key, the profile or the form is refused.
            RemoteError: The authority that signs is away or slow.
            SiteError: The certificate could not be signed or recorded.
        """
        # A dict: a frozen record made anew at each step would cost a tenth of the whole.
        told = {"profile": profile}
        try:
            key = parse_public_key(public_key)
            told["fingerprint"] = key.fingerprint
            grant = self.parse_grant(token)
            told |= {"user": grant.account, "factor": grant.factor, "grant_id": grant.grant_id}
            await self.refuse_ended(grant)
            plan = plan_certificate(
                self.policy,
                grant,
                profile=_parse_profile(profile),
                form=form,
                fingerprint=key.fingerprint,
                now=int(time.time()),
                serial=secrets.randbelow(2**64 - 1) + 1,
            )
            issued = await self.issue(key, plan, told)
            held = held_certificate(issued.plan, key, grant.grant_id)
            if why := await self._holding.add(held, grant.issued):
                raise NotAllowed("Your login has ended.", "Log in again.") from TrueReason(why)
        except Exception as error:
            await self._write(failed(Record(event=Event.CERTIFICATE, outcome=Outcome.ERROR, **told), error))
            raise
        await self._write(Record(event=Event.CERTIFICATE, outcome=Outcome.GRANTED, **told))
        return Minted(issued.certificate, issued.plan, ceiling_of(self.policy, grant))

    async def issue(self, key: PublicKey, plan: Plan, told: dict[str, str]) -> Issued:
        """The certificate, of which neither ledger nor log know yet.

        `told`, what the record says of it, gets who signs and its serial: first the planned one, then the one
        that it has.

        Raises:
            RemoteError: The authority that signs is away or slow.
            SiteError: What was signed is not what was planned.
        """
        told |= {"serial": str(plan.serial), "key_id": plan.key_id, "authority": self._fingerprint}
        issued = await issue(self._issuer, key, plan, int(time.time()))
        told["serial"] = str(issued.plan.serial)
        return issued

    async def mint_query(self, account: str, public_key: str, form: str = "") -> Minted:
        """The certificate with which a service account asks for the states of jobs.

        There is no login behind it: who reaches our socket may have it, for the accounts that the
        site has named.

        Raises:
            NotAllowed: The site has not named that account.
            InvalidRequest: The public key is refused.
            RemoteError: The authority that signs is away or slow.
            SiteError: The certificate could not be signed or recorded.
        """
        told = {"profile": Profile.QUERY.value, "user": account}
        try:
            key = parse_public_key(public_key)
            told |= {"fingerprint": key.fingerprint, "factor": _SOCKET_FACTOR}
            plan = plan_query_certificate(
                self.policy,
                account=account,
                form=form,
                fingerprint=key.fingerprint,
                now=int(time.time()),
                serial=secrets.randbelow(2**64 - 1) + 1,
            )
            if why := self._ledger.refusal(account, fingerprint=key.fingerprint):
                raise NotAllowed("That account may have no certificate.") from TrueReason(why)
            issued = await self.issue(key, plan, told)
            if why := await self._holding.add(held_certificate(issued.plan, key, ""), None):
                raise NotAllowed("That account may have no certificate.") from TrueReason(why)
        except Exception as error:
            await self._write(failed(Record(event=Event.CERTIFICATE, outcome=Outcome.ERROR, **told), error))
            raise
        await self._write(Record(event=Event.CERTIFICATE, outcome=Outcome.GRANTED, **told))
        return Minted(issued.certificate, issued.plan, issued.plan.valid_before)

    async def refuse_ended(self, grant: Grant) -> None:
        """NotAllowed where the grant was taken back, or its account may not log in at the site any more."""
        why = self._ledger.refusal(grant.account, grant.grant_id, grant.fingerprint, grant.issued)
        if not why and (problem := await self._accounts.problem(grant.account)):
            await self._ending.lock(grant.account, problem)
            why = problem
        if why:
            raise NotAllowed("Your login has ended.", "Log in again.") from TrueReason(why)


def _parse_profile(text: str) -> Profile:
    try:
        return Profile(text)
    except ValueError as error:
        allowed = f"Choose {', '.join(Profile)}."
        raise InvalidRequest(f"There is no such profile. {allowed}", fields={"profile": allowed}) from error
