"""What a certificate of ours may be for, and what it may call its account."""

from __future__ import annotations

import re
from enum import StrEnum

PLAIN_PRINCIPAL = "{account}"

# One of these is in every form but the plain one. No account's name holds them, so that a principal is
# never another account's own name.
PRINCIPAL_MARKS = frozenset(":@+")
_PRINCIPAL = re.compile(r"[A-Za-z0-9._:@+-]{1,96}", re.ASCII)
_PRINCIPAL_FORM = re.compile(r"[A-Za-z0-9._:@+-]{0,32}\{account\}[A-Za-z0-9._:@+-]{0,32}", re.ASCII)


class Profile(StrEnum):
    """Commands and tunnels need certificates of their own: sshd's `force-command` stops neither
    kind of forwarding, so a certificate that may do both could not be confined to one.

    `query` is for a site's service account alone: it asks for the states of jobs, and does nothing else.
    `terminal` is for a person's own machine, outside the hub, where the site gives such certificates.
    """

    CONTROL = "control"
    TUNNEL = "tunnel"
    QUERY = "query"
    TERMINAL = "terminal"


def is_principal_form(text: str) -> bool:
    """Whether a text says how principals are made of accounts: `{account}`, or say `hpchub:{account}`."""
    return text == PLAIN_PRINCIPAL or (
        _PRINCIPAL_FORM.fullmatch(text) is not None and not PRINCIPAL_MARKS.isdisjoint(text)
    )


def principal_of(form: str, account: str) -> str:
    """The principal that a form makes of an account."""
    return form.replace(PLAIN_PRINCIPAL, account)


def may_be_called(account: str, principal: str) -> bool:
    """Whether some form makes this principal of the account; for those who do not know the site's forms."""
    return principal == account or (
        _PRINCIPAL.fullmatch(principal) is not None
        and account in principal
        and not PRINCIPAL_MARKS.isdisjoint(principal)
    )


def account_of(form: str, principal: str) -> str:
    """The account of which a form would make this principal; empty where there is none."""
    before, _, after = form.partition(PLAIN_PRINCIPAL)
    rest = principal.removeprefix(before)
    account = rest.removesuffix(after)
    return account if account and principal_of(form, account) == principal else ""
