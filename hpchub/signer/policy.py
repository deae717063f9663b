"""What is granted to whom, and for how long. Pure: time and randomness are arguments.

Everything that may stand in a grant or a certificate is decided here; the other modules carry it out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hpchub.core.certificate import (
    PLAIN_PRINCIPAL,
    Profile,
    account_of,
    is_principal_form,
    may_be_called,
    principal_of,
)
from hpchub.core.slugs import caseless, is_safe_account_name
from hpchub.errors import InvalidRequest, NotAllowed
from hpchub.remote.slurm_query import FORCED_COMMAND

BACKDATE_S = 60  # a login node's clock may be behind ours
TUNNEL_COMMAND = "/bin/false"
PORT_FORWARDING = "permit-port-forwarding"
PTY = "permit-pty"

# sshd prints the key id into its log as it is, so nothing that could end or confuse a line.
_KEY_ID = re.compile(r"[A-Za-z0-9._:=@-]{1,128}", re.ASCII)
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}", re.ASCII)
_GRANT_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_FACTOR = re.compile(r"[a-z][a-z0-9+-]{0,31}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalPolicy:
    """What the site gives to people's own terminals. No `source_addresses` is from anywhere: laptops move.

    `principal` is the form of their principals, one of the policy's; the first of them where it is empty.
    """

    lifetime_s: int
    port_forwarding: bool = True
    source_addresses: tuple[str, ...] = ()
    principal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The site's own choices. Seconds; addresses and networks in CIDR notation.

    `query_accounts` are the service accounts that may ask for the states of jobs, and may do nothing else.
    `terminal` is None where people's own terminals get no certificates.
    `principals` are the forms that principals may have; a cluster that names none gets the first.
    """

    certificate_lifetime_s: int
    login_ceiling_s: int
    source_addresses: tuple[str, ...]
    query_accounts: tuple[str, ...] = ()
    principals: tuple[str, ...] = (PLAIN_PRINCIPAL,)
    terminal: TerminalPolicy | None = None

    def __post_init__(self) -> None:
        if not self.principals or not all(is_principal_form(form) for form in self.principals):
            raise ValueError("a form of principals that no certificate may have")
        if not all(is_safe_account_name(account) for account in self.query_accounts):
            raise ValueError("an account for queries whose name may not stand in a certificate")
        if not self.source_addresses:
            raise ValueError("a certificate without a source address could be used from anywhere")
        if self.certificate_lifetime_s <= 0 or self.login_ceiling_s <= 0:
            raise ValueError("a lifetime or ceiling must be more than nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The signer's statement: this account, this key, until this ceiling. Times are Unix seconds."""

    account: str
    fingerprint: str
    factor: str
    issued: int
    ceiling: int
    grant_id: str

    def __post_init__(self) -> None:
        if (
            not is_safe_account_name(self.account)
            or not _FINGERPRINT.fullmatch(self.fingerprint)
            or not _FACTOR.fullmatch(self.factor)
            or not _GRANT_ID.fullmatch(self.grant_id)
            or not 0 < self.issued < self.ceiling
        ):
            raise ValueError("a grant with a field out of its range")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Every field of one certificate. Times are Unix seconds."""

    account: str
    principal: str
    profile: Profile
    serial: int
    key_id: str
    fingerprint: str
    valid_after: int
    valid_before: int
    source_addresses: tuple[str, ...]
    force_command: str | None
    extensions: frozenset[str]

    def __post_init__(self) -> None:
        if not is_safe_account_name(self.account):  # no comma, no wildcard, not empty, not root
            raise ValueError("a certificate of an unsafe account")
        if not may_be_called(self.account, self.principal):
            raise ValueError("a certificate with an unsafe principal")
        if not _KEY_ID.fullmatch(self.key_id) or not 0 < self.serial < 2**64:
            raise ValueError("a certificate with an unusable key id or serial")
        terminal = self.profile is Profile.TERMINAL
        if not 0 < self.valid_after < self.valid_before or not (self.source_addresses or terminal):
            raise ValueError("a certificate without bounds")
        if not self.extensions <= ({PORT_FORWARDING, PTY} if terminal else {PORT_FORWARDING}):
            raise ValueError("a certificate that permits more than forwarding")
        if self.profile is Profile.QUERY and (self.force_command != FORCED_COMMAND or self.extensions):
            raise ValueError("a certificate for queries that permits more than queries")


def plan_grant(
    policy: Policy, *, account: str, factor: str, fingerprint: str, now: int, grant_id: str
) -> Grant:
    """The grant of one proven login.

    Raises:
        NotAllowed: The account's name may never stand in a certificate, or it is a service account.
    """
    if not is_safe_account_name(account) or caseless(account) in map(caseless, policy.query_accounts):
        raise NotAllowed("That account may not log in here.")
    return Grant(
        account=account,
        fingerprint=fingerprint,
        factor=factor,
        issued=now,
        ceiling=now + policy.login_ceiling_s,
        grant_id=grant_id,
    )


def ceiling_of(policy: Policy, grant: Grant) -> int:
    """When a login ends, in Unix seconds: a site that lowers its ceiling ends older logins sooner."""
    return min(grant.ceiling, grant.issued + policy.login_ceiling_s)


def plan_principal(policy: Policy, account: str, form: str) -> str:
    """What a certificate calls an account, in one of the policy's forms, the first where `form` is empty.

    Raises:
        InvalidRequest: The site does not have that form, or by another of its forms that would be
            somebody else. It says nothing against the login, which may have other certificates.
    """
    form = form or policy.principals[0]
    if form not in policy.principals:
        raise InvalidRequest(
            f"The signer makes no certificates for {form!r}.",
            "Name it in principals of the signer's settings, or correct principal in the cluster file.",
        )
    principal = principal_of(form, account)
    others = {account_of(other, principal) for other in policy.principals} - {account}
    if any(is_safe_account_name(other) for other in others):
        raise InvalidRequest("That account's principal could be taken for somebody else's.")
    return principal


def plan_certificate(
    policy: Policy,
    grant: Grant,
    *,
    profile: Profile,
    fingerprint: str,
    now: int,
    serial: int,
    form: str = "",
) -> Plan:
    """The certificate that a grant earns now.

    A ceiling that the site has lowered since the login counts for that login too.

    Raises:
        NotAllowed: The login has reached its ceiling, the grant is for another key, or no login earns
            the profile.
        InvalidRequest: As `plan_principal`.
    """
    if profile is Profile.QUERY:
        raise NotAllowed("Certificates for queries are not earned by a login.")
    if profile is Profile.TERMINAL:
        raise NotAllowed("Certificates for terminals are asked for in another way.")
    if fingerprint != grant.fingerprint:
        raise NotAllowed("This login belongs to another key.", "Log in again.")
    ceiling = _live_ceiling(policy, grant, now)
    tunnel = profile is Profile.TUNNEL
    return Plan(
        account=grant.account,
        principal=plan_principal(policy, grant.account, form),
        profile=profile,
        serial=serial,
        key_id=f"hpchub:{grant.account}:{profile.value}:{serial:016x}",
        fingerprint=fingerprint,
        valid_after=now - BACKDATE_S,
        valid_before=min(now + policy.certificate_lifetime_s, ceiling),
        source_addresses=policy.source_addresses,
        # sshd's force-command stops no forwarding, and a missing extension stops no command.
        force_command=TUNNEL_COMMAND if tunnel else None,
        extensions=frozenset({PORT_FORWARDING}) if tunnel else frozenset(),
    )


def plan_terminal_certificate(
    policy: Policy, grant: Grant, *, fingerprint: str, now: int, serial: int
) -> Plan:
    """The certificate for a person's own terminal: a shell and, where the site says so, forwarding.

    It never outlives the login that it comes of.

    Raises:
        NotAllowed: The site gives none, the login has reached its ceiling, or the key is the login's own.
        InvalidRequest: As `plan_principal`.
    """
    terminal = policy.terminal
    if terminal is None:
        raise NotAllowed(
            "This site gives no certificates to people's own terminals.",
            "Its staff would write [terminal] into the signer's settings.",
        )
    if fingerprint == grant.fingerprint:
        raise NotAllowed("A terminal needs a key of its own.")
    ceiling = _live_ceiling(policy, grant, now)
    return Plan(
        account=grant.account,
        principal=plan_principal(policy, grant.account, terminal.principal),
        profile=Profile.TERMINAL,
        serial=serial,
        key_id=f"hpchub:{grant.account}:{Profile.TERMINAL.value}:{serial:016x}",
        fingerprint=fingerprint,
        valid_after=now - BACKDATE_S,
        valid_before=min(now + terminal.lifetime_s, ceiling),
        source_addresses=terminal.source_addresses,
        force_command=None,
        extensions=frozenset({PTY, PORT_FORWARDING} if terminal.port_forwarding else {PTY}),
    )


def _live_ceiling(policy: Policy, grant: Grant, now: int) -> int:
    """When a login ends. NotAllowed where it has."""
    ceiling = ceiling_of(policy, grant)
    if now >= ceiling:
        raise NotAllowed("Your login has ended.", "Log in again.")
    return ceiling


def plan_query_certificate(
    policy: Policy, *, account: str, fingerprint: str, now: int, serial: int, form: str = ""
) -> Plan:
    """The certificate with which a service account asks for the states of jobs. It can do nothing else.

    Raises:
        NotAllowed: The site has not named that account for it.
        InvalidRequest: As `plan_principal`.
    """
    if account not in policy.query_accounts:
        raise NotAllowed(
            "That account may not ask for the states of jobs.",
            "Where it should, name it in query_accounts of the signer's settings.",
        )
    return Plan(
        account=account,
        principal=plan_principal(policy, account, form),
        profile=Profile.QUERY,
        serial=serial,
        key_id=f"hpchub:{account}:{Profile.QUERY.value}:{serial:016x}",
        fingerprint=fingerprint,
        valid_after=now - BACKDATE_S,
        valid_before=now + policy.certificate_lifetime_s,
        source_addresses=policy.source_addresses,
        force_command=FORCED_COMMAND,
        extensions=frozenset(),
    )
