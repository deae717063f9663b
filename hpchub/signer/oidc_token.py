"""Whether an id_token is one that the provider made, for us, for this login, a moment ago.

https://openid.net/specs/openid-connect-core-1_0.html#IDTokenValidation; each claim is required here, for
PyJWT checks most of them only where they happen to be there.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from hpchub.signer.oidc_keys import ALGORITHMS
from hpchub.signer.oidc_settings import OidcSettings

MAX_TOKEN_LENGTH = 16 * 1024

_REQUIRED = ("iss", "aud", "exp", "iat", "sub", "nonce")
_LEEWAY_S = 30
# The key that it is bound to lives no longer without a login (bridge/sessions.py), with a moment to spare.
_MOST_AGE_S = 600
_LAST_S = 2**40
_MOST_KID = 256
_MOST_SUBJECT = 255  # OpenID Connect Core, section 2


class BadToken(Exception):
    """Why an id_token does not count, for the audit log: never any of what it says."""


@dataclass(frozen=True, slots=True)
class Header:
    """The two fields that count. What else a header says (jku, jwk, x5u, x5c) is for nobody to follow."""

    algorithm: str
    kid: str | None


def read_header(token: str) -> Header:
    """Which key to look for. BadToken where no such token can be right."""
    if len(token) > MAX_TOKEN_LENGTH or not token.isascii():
        raise BadToken("the id_token is too long, or no token")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise BadToken("the id_token is no token") from error
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise BadToken("the id_token is not signed with an algorithm that counts")
    if kid is not None and (not isinstance(kid, str) or len(kid) > _MOST_KID):
        raise BadToken("the id_token names no key")
    # The provider signs other tokens with the same key: access tokens (at+jwt), logout tokens.
    if not isinstance(kind, str) or kind.upper() != "JWT":
        raise BadToken("that is a token, but no id_token")
    return Header(algorithm, kid)


def read_claims(
    token: str, key: jwt.PyJWK, algorithm: str, settings: OidcSettings, nonce: str, now: float
) -> Mapping[str, Any]:
    """What the provider says of the person.

    Args:
        token: The id_token.
        key: The provider's, of the name in its header.
        algorithm: The one in its header, which is one of ours.
        settings: The site's.
        nonce: What this login had the provider put into it.
        now: Unix seconds.

    Raises:
        BadToken: It is not for us, not of now, not for this login, or not signed by that key.
    """
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=settings.client_id,
            issuer=settings.issuer,
            leeway=_LEEWAY_S,
            options={"require": list(_REQUIRED), "enforce_minimum_key_length": True},
        )
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadToken(f"the id_token is refused: {type(error).__name__}") from error
    _check_audience(claims, settings)
    _check_subject(claims)
    if not _is_same(claims["nonce"], nonce):
        raise BadToken("the id_token is for another login, or another key")
    if _seconds(claims, "iat") < now - _MOST_AGE_S - _LEEWAY_S:
        raise BadToken("the id_token is too old")
    _check_authentication(claims, settings, now)
    return claims


def _check_audience(claims: Mapping[str, Any], settings: OidcSettings) -> None:
    """OpenID Connect Core, section 3.1.3.7, steps 3 to 5, every `should` a must."""
    audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    if not set(audiences) <= {settings.client_id, *settings.other_audiences}:
        raise BadToken("the id_token is for others too, who are not among other_audiences")
    if ("azp" in claims or len(audiences) > 1) and claims.get("azp") != settings.client_id:
        raise BadToken("the id_token was made for another client (azp)")


def _check_subject(claims: Mapping[str, Any]) -> None:
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= _MOST_SUBJECT or not subject.isprintable():
        raise BadToken("the id_token has no usable subject")


def _check_authentication(claims: Mapping[str, Any], settings: OidcSettings, now: float) -> None:
    """That a provider was asked for a second factor proves nothing: it has to say that there was one."""
    if settings.acr_values and claims.get("acr") not in settings.acr_values:
        raise BadToken("the provider does not say that the person was authenticated as acr_values wants it")
    if settings.max_age_s:
        at = _seconds(claims, "auth_time")
        if not now - settings.max_age_s - _LEEWAY_S <= at <= now + _LEEWAY_S:
            raise BadToken("the person was authenticated too long ago (auth_time)")


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    # Python reads NaN from JSON, which is neither before nor after any time, and integers of any length.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _LAST_S:
        raise BadToken(f"the id_token has no {name}")
    return value


def _is_same(found: object, wanted: str) -> bool:
    return isinstance(found, str) and hmac.compare_digest(found.encode("utf-8", "replace"), wanted.encode())
