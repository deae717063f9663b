"""What the signer answers, as the processes that call it see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hpchub.core.secret import Secret
from hpchub.errors import UnexpectedOutput

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantedLogin:
    """What a login earned: worthless without the private key of the public key it was made for."""

    username: str
    grant: Secret
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcRequest:
    """What to ask the site's OpenID provider for, and where; `max_age_s` is 0 where it does not matter.

    `auth_methods`: how its token endpoint lets clients prove themselves. `names_itself`: it adds `iss` to
    what it sends back (RFC 9207).
    """

    issuer: str
    client_id: str
    scope: str
    acr_values: str
    max_age_s: int
    authorization_endpoint: str
    token_endpoint: str
    auth_methods: tuple[str, ...]
    names_itself: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedFactor:
    """What an app needs to become somebody's second factor, as a QR code's text and to be typed."""

    username: str
    uri: Secret
    seed: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldFactor:
    """A security key, as its owner knows it. Unix seconds; `used_at` is 0 where it was never used."""

    key_id: str
    name: str
    added_at: float
    used_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldFactors:
    """What somebody has, and of which kinds more may be added."""

    username: str
    kinds: tuple[str, ...]
    has_app: bool
    keys: tuple[HeldFactor, ...]
    codes_left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """One line in OpenSSH's form, and what sshd will log of it. Public, like the key inside.

    `expires_at` is when the login behind it ends; until then another can be had. Unix seconds.
    `principal` is what the certificate calls the account.
    """

    certificate: str = field(repr=False)
    serial: int
    key_id: str
    account: str
    principal: str
    valid_before: int
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """Logins that have not ended, certificates of service accounts, and users who may not log in since when.

    Rows as processes.md has them; Unix seconds.
    """

    logins: Sequence[Mapping[str, Any]]
    queries: Sequence[Mapping[str, Any]]
    revoked: Mapping[str, int]


def read_login(answer: Mapping[str, Any]) -> GrantedLogin:
    """What a login earned. UnexpectedOutput where the answer has none."""
    return GrantedLogin(
        username=field_of(answer, "username", str),
        grant=Secret(field_of(answer, "grant", str)),
        expires_at=field_of(answer, "expires_at", int),
    )


def read_certificate(answer: Mapping[str, Any]) -> Certificate:
    """A certificate that was minted. UnexpectedOutput where the answer has none."""
    return Certificate(
        certificate=field_of(answer, "certificate", str),
        serial=field_of(answer, "serial", int),
        key_id=field_of(answer, "key_id", str),
        account=field_of(answer, "account", str),
        principal=field_of(answer, "principal", str),
        valid_before=field_of(answer, "valid_before", int),
        expires_at=field_of(answer, "expires_at", int),
    )


def read_held(answer: Mapping[str, Any]) -> HeldFactors:
    """Somebody's second factors. UnexpectedOutput where the answer has none."""
    try:
        keys = tuple(HeldFactor(**row) for row in field_of(answer, "keys", list))
    except TypeError as error:
        raise UnexpectedOutput("the signer", "security keys that cannot be read") from error
    return HeldFactors(
        username=field_of(answer, "username", str),
        kinds=tuple(map(str, field_of(answer, "kinds", list))),
        has_app=field_of(answer, "has_app", bool),
        keys=keys,
        codes_left=field_of(answer, "codes_left", int),
    )


def read_codes(answer: Mapping[str, Any]) -> tuple[Secret, ...]:
    """Recovery codes, of which there may be none. UnexpectedOutput where the answer has no such field."""
    return tuple(Secret(str(one)) for one in field_of(answer, "recovery_codes", list))


def field_of(answer: Mapping[str, Any], name: str, kind: type[_Value]) -> _Value:
    """A field, which must be of that kind. UnexpectedOutput where there is none."""
    value = answer.get(name)
    if not isinstance(value, kind):
        raise UnexpectedOutput("the signer", f"an answer without {name}")
    return value
