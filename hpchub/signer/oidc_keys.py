"""Fetches what an OpenID provider says of itself, and its public keys, and keeps them.

A key that is not known is fetched, so that a provider may change its keys whenever it likes; but not more
often than every few seconds, so that nobody can make us flood it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import jwt

from hpchub.errors import ConfigError, RemoteError
from hpchub.signer.oidc_settings import OidcSettings, is_safe_url
from hpchub.signer.server_proof import CannotTell

# What may sign an id_token, whatever its header or the provider's documents say: the kind and curve of the
# key that goes with it. No `none`, and nothing that verifies with what it signs with.
ALGORITHMS: Mapping[str, tuple[str, str | None]] = {
    "RS256": ("RSA", None),
    "RS384": ("RSA", None),
    "RS512": ("RSA", None),
    "PS256": ("RSA", None),
    "PS384": ("RSA", None),
    "PS512": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}

_WELL_KNOWN = "/.well-known/openid-configuration"
_MAX_BYTES = 256 * 1024
_MAX_KEYS = 100
_PUBLIC_FIELDS = ("kty", "n", "e", "crv", "x", "y")

_AGAIN_S = 10.0  # the soonest that the provider is asked again, whatever came of it
_FRESH_S = 3600.0  # then a key that the provider has withdrawn is forgotten, if the provider answers
_STALE_S = 24 * 3600.0  # and then in any case


class UnknownKey(Exception):
    """The provider has no key of that name that could have made such a signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """What the provider says of itself. `names_itself`: it adds `iss` to what it sends back (RFC 9207)."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    auth_methods: tuple[str, ...]
    names_itself: bool


@dataclass(frozen=True, slots=True)
class _Fetched:
    provider: Provider
    keys: tuple[Mapping[str, Any], ...]
    at: float


class ProviderKeys:
    """One provider's. Belongs to one event loop; holds no connection."""

    def __init__(self, settings: OidcSettings, now: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._now = now
        self._fetched: _Fetched | None = None
        self._asked_at = -_AGAIN_S
        self._asking = asyncio.Lock()

    async def provider(self) -> Provider:
        """What the provider says of itself. RemoteError where it cannot be told."""
        return (await self._known()).provider

    async def key(self, kid: str | None, algorithm: str) -> jwt.PyJWK:
        """The public key that a signature names.

        Raises:
            UnknownKey: There is none, or more than one that it might be.
            RemoteError: The provider does not answer.
        """
        known = await self._known()
        found = _fitting(known.keys, kid, algorithm)
        if not found and (newer := await self._newer_than(known)):
            found = _fitting(newer.keys, kid, algorithm)
        if len(found) != 1:
            raise UnknownKey(
                "no key of the provider's" if not found else "more than one key that it might be"
            )
        try:
            return jwt.PyJWK.from_dict({name: found[0].get(name) for name in _PUBLIC_FIELDS}, algorithm)
        except jwt.PyJWTError as error:
            raise UnknownKey("a key of the provider's that cannot be read") from error

    async def _known(self) -> _Fetched:
        """What was fetched last, or what is fetched now because that is too old."""
        known = self._fetched
        if known is not None and self._now() - known.at < _FRESH_S:
            return known
        try:
            newer = await self._newer_than(known)
        except RemoteError:
            if known is None or self._now() - known.at >= _STALE_S:
                raise
            return known
        if newer is not None:
            return newer
        if known is not None and self._now() - known.at < _STALE_S:
            return known
        raise _away() from CannotTell("OpenID provider: it did not answer a moment ago")

    async def _newer_than(self, known: _Fetched | None) -> _Fetched | None:
        """What the provider says now; None where it was asked a moment ago."""
        async with self._asking:
            if self._fetched is not known:
                return self._fetched
            if self._now() - self._asked_at < _AGAIN_S:
                return None
            try:
                fetched = await self._fetch()
            finally:
                self._asked_at = self._now()
            self._fetched = fetched
            return fetched

    async def _fetch(self) -> _Fetched:
        timeout = aiohttp.ClientTimeout(total=self._settings.timeout_s)
        try:
            connector = aiohttp.TCPConnector(ssl=tls_context(self._settings))
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                url = self._settings.issuer.rstrip("/") + _WELL_KNOWN
                provider = _parse_provider(await _get(session, url), self._settings.issuer)
                keys = _parse_keys(await _get(session, provider.jwks_uri))
        except TimeoutError:
            raise _away() from CannotTell("OpenID provider: no answer in time")
        except (aiohttp.ClientError, OSError) as error:
            raise _away() from CannotTell(f"OpenID provider: {type(error).__name__}: {error}")
        except (ValueError, RecursionError) as error:
            raise _away() from CannotTell(f"OpenID provider: {error}")
        return _Fetched(provider, keys, self._now())


def tls_context(settings: OidcSettings) -> ssl.SSLContext:
    """Who may vouch for the provider. ConfigError where `ca_file` cannot be used."""
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        raise ConfigError(f"{settings.ca_file} holds no certificates that can be read.") from error


async def _get(session: aiohttp.ClientSession, url: str) -> Mapping[str, Any]:
    # A redirect could lead out of TLS, or into the site's own network.
    async with session.get(url, allow_redirects=False, headers={"Accept": "application/json"}) as response:
        if response.status != 200:
            raise ValueError(f"{url} answers {response.status}")
        content = bytearray()
        async for chunk in response.content.iter_any():
            content += chunk
            if len(content) > _MAX_BYTES:
                raise ValueError(f"{url} answers more than {_MAX_BYTES} bytes")
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError(f"{url} answers no JSON object")  # noqa: TRY004  one kind for `_fetch`
    return found


def _parse_provider(found: Mapping[str, Any], issuer: str) -> Provider:
    if found.get("issuer") != issuer:
        raise ValueError(f"it calls itself {found.get('issuer')!r:.200}, and not {issuer!r}")
    urls = {}
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
        url = found.get(name)
        if not isinstance(url, str) or not is_safe_url(url):
            raise ValueError(f"its {name} is no address that may be used")
        urls[name] = url
    methods = found.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    return Provider(
        **urls,
        auth_methods=tuple(str(method) for method in methods) if isinstance(methods, list) else (),
        names_itself=found.get("authorization_response_iss_parameter_supported") is True,
    )


def _parse_keys(found: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    keys = found.get("keys")
    if not isinstance(keys, list) or len(keys) > _MAX_KEYS:
        raise ValueError("its keys are no list of keys")
    return tuple(key for key in keys if isinstance(key, dict) and key.get("use", "sig") == "sig")


def _fitting(keys: tuple[Mapping[str, Any], ...], kid: str | None, algorithm: str) -> list[Mapping[str, Any]]:
    """Keys of that name, and of the kind that the algorithm needs. The name is compared, and nothing else."""
    kind, curve = ALGORITHMS[algorithm]
    return [
        key
        for key in keys
        if (kid is None or key.get("kid") == kid)
        and key.get("kty") == kind
        and (curve is None or key.get("crv") == curve)
        and key.get("alg", algorithm) == algorithm
    ]


def _away() -> RemoteError:
    return RemoteError("The site's OpenID provider cannot be asked now.", "Try again later.")
