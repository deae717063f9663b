"""`[second_factor]` of `signer.toml`: who needs one, and of which kinds."""

from __future__ import annotations

import grp
import os
import pwd
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hpchub.core.slugs import caseless, is_safe_account_name
from hpchub.core.toml_table import Table
from hpchub.signer.webauthn_settings import WebAuthnSettings, read_webauthn

_GROUP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}", re.ASCII)
_ISSUER = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}", re.ASCII)  # a colon would end it in the app


class Required(StrEnum):
    """Of whom a second factor is asked. Whoever has one is asked for it, unless nobody is."""

    NONE = "none"
    SOME = "some"
    ALL = "all"


class FactorKind(StrEnum):
    """What people may set up. Recovery codes come with either."""

    TOTP = "totp"
    WEBAUTHN = "webauthn"


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorSettings:
    """The site's choice. `groups` and `users` belong to `some`; `issuer` is what apps show.

    What somebody has of a kind that is not among `kinds` leads them to where they set up another one.
    """

    required: Required = Required.NONE
    kinds: tuple[FactorKind, ...] = (FactorKind.TOTP,)
    webauthn: WebAuthnSettings | None = None
    groups: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    issuer: str = "hpchub"
    key_file: Path | None = None


def is_required(settings: FactorSettings, account: str) -> bool:
    """Whether somebody without a second factor needs one. An account that nobody knows does."""
    if settings.required is not Required.SOME:
        return settings.required is Required.ALL
    if caseless(account) in map(caseless, settings.users):
        return True
    if not settings.groups:
        return False
    try:
        member_of = set(os.getgrouplist(account, pwd.getpwnam(account).pw_gid))
        return any(grp.getgrnam(group).gr_gid in member_of for group in settings.groups)
    except KeyError:
        return True


def read_second_factor(table: Table, folder: Path) -> FactorSettings:
    """The table's settings; relative paths count from `folder`."""
    required = table.choice("required", Required, Required.NONE)
    groups = table.texts("groups", _GROUP)
    users = table.texts("users", re.compile(".*", re.DOTALL))
    for user in users:
        if not is_safe_account_name(user):
            table.fault("users", f"{user!r} is no account that may log in")
    if required is Required.SOME and not groups and not users:
        table.fault("required", "is some, of whom? Write groups or users")
    if required is not Required.SOME and (groups or users):
        table.fault("groups" if groups else "users", 'says nothing without required = "some"')
    kinds, webauthn = _read_kinds(table)
    settings = FactorSettings(
        required=required,
        kinds=kinds,
        webauthn=webauthn,
        groups=groups,
        users=users,
        issuer=table.text("issuer", "hpchub", _ISSUER),
        key_file=folder / table.text("key_file") if table.has("key_file") else None,
    )
    table.finish()
    return settings


def _read_kinds(table: Table) -> tuple[tuple[FactorKind, ...], WebAuthnSettings | None]:
    """What may be set up; and how security keys are, which may be there for those set up before."""
    known = re.compile("|".join(FactorKind), re.ASCII)
    kinds = tuple(FactorKind(text) for text in table.texts("kinds", known)) or (FactorKind.TOTP,)
    if not table.has("webauthn"):
        if FactorKind.WEBAUTHN in kinds:
            table.fault("kinds", "names webauthn: write [second_factor.webauthn] with rp_id")
        return kinds, None
    return kinds, read_webauthn(table.table("webauthn"))
