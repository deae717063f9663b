"""One login at an OpenID provider, as the hub sees it: what it asks for, and what it gets for a code.

Authorization code with PKCE (RFC 7636), a state that only this browser has, and a nonce that names the key
which the signer is to certify. Nothing that comes back is believed here: the signer verifies it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlencode

import aiohttp

from hpchub.core.login_nonce import login_nonce, new_salt
from hpchub.core.secret import Secret
from hpchub.errors import ConfigError, NotAllowed, RemoteError, UnexpectedOutput
from hpchub.private_files import read_private_file
from hpchub.signer.answers import OidcRequest

_TIMEOUT_S = 15.0
_MAX_BYTES = 256 * 1024
_MAX_CODE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A login that the browser was sent away for. It is kept in the browser's own cookie, signed."""

    state: str
    verifier: str = field(repr=False)
    salt: str
    key_id: str = field(repr=False)
    public_key: str
    next_url: str

    def to_text(self) -> str:
        """For the cookie."""
        return json.dumps(asdict(self))


def begin(key_id: str, public_key: str, next_url: str) -> Begun:
    """A new login, for a key that waits at the bridge."""
    return Begun(
        state=secrets.token_urlsafe(32),
        verifier=secrets.token_urlsafe(48),
        salt=new_salt(),
        key_id=key_id,
        public_key=public_key,
        next_url=next_url,
    )


def parse_begun(text: str) -> Begun:
    """What `to_text` wrote. ValueError where it is anything else: an older hub's, say."""
    try:
        fields = json.loads(text)
        if not all(isinstance(value, str) for value in fields.values()):
            raise ValueError("a field that is no text")
        return Begun(**fields)
    except (AttributeError, TypeError) as error:
        raise ValueError("no login of ours") from error


def authorization_url(request: OidcRequest, begun: Begun, callback_url: str) -> str:
    """Where the browser is sent to."""
    challenge = hashlib.sha256(begun.verifier.encode("ascii")).digest()
    asked = {
        "response_type": "code",
        "client_id": request.client_id,
        "redirect_uri": callback_url,
        "scope": request.scope,
        "state": begun.state,
        "nonce": login_nonce(begun.public_key, begun.salt),
        "code_challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode("ascii"),
        "code_challenge_method": "S256",
    }
    if request.acr_values:
        asked["acr_values"] = request.acr_values
    if request.max_age_s:
        asked["max_age"] = str(request.max_age_s)
    joint = "&" if "?" in request.authorization_endpoint else "?"
    return f"{request.authorization_endpoint}{joint}{urlencode(asked)}"


def code_of(request: OidcRequest, begun: Begun, returned: Mapping[str, str]) -> Secret:
    """The code with which the browser came back.

    Raises:
        NotAllowed: It came back to another login, from another provider, or without a code.
    """
    if not hmac.compare_digest(begun.state.encode(), returned.get("state", "").encode()):
        raise NotAllowed("That login did not begin in this browser, or another one has begun since.")
    issuer = returned.get("iss", "")
    if issuer != request.issuer and (issuer or request.names_itself):
        raise NotAllowed("That login did not come from the site's OpenID provider.")
    code = returned.get("code", "")
    if not code or len(code) > _MAX_CODE or "error" in returned:
        raise NotAllowed("The site's OpenID provider did not log you in.")
    return Secret(code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who we are to the provider. A public client has no secret."""

    callback_url: str
    secret_file: Path | None = None
    ca_file: Path | None = None

    def secret(self) -> Secret | None:
        """Read anew each time, so that a change counts at once. ConfigError where it cannot be used."""
        if self.secret_file is None:
            return None
        try:
            text = read_private_file(self.secret_file).decode("utf-8").removesuffix("\n")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{self.secret_file} is not text.") from error
        if not text or not text.isprintable():
            raise ConfigError(f"{self.secret_file} must hold the client's secret, and nothing else.")
        return Secret(text)


async def fetch_id_token(request: OidcRequest, begun: Begun, client: Client, code: Secret) -> Secret:
    """What the provider gives for a code.

    Raises:
        NotAllowed: The code is not one of this login, was used before, or has expired.
        RemoteError: The provider does not answer.
        SiteError: It does not know us, or answers with something else.
    """
    form = {
        "grant_type": "authorization_code",
        "code": code.reveal(),
        "redirect_uri": client.callback_url,
        "code_verifier": begun.verifier,
    }
    headers = {"Accept": "application/json"}
    secret = client.secret()
    if secret is not None and "client_secret_basic" in request.auth_methods:
        headers["Authorization"] = _basic(request.client_id, secret)
    else:
        form["client_id"] = request.client_id
        if secret is not None:
            form["client_secret"] = secret.reveal()
    status, answer = await _post(request.token_endpoint, form, headers, _tls(client.ca_file))
    if status == 400 and answer.get("error") == "invalid_grant":
        raise NotAllowed("The site's OpenID provider did not log you in.")
    token = answer.get("id_token")
    if status != 200 or not isinstance(token, str):
        # Its own error code, and nothing else: the rest may be a token.
        raise UnexpectedOutput("the OpenID provider's token endpoint", f"{status} {answer.get('error', '')}")
    return Secret(token)


async def _post(
    url: str, form: Mapping[str, str], headers: Mapping[str, str], tls: ssl.SSLContext
) -> tuple[int, dict[str, Any]]:
    content = bytearray()
    try:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=tls), timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)
            ) as session,
            session.post(url, data=form, headers=headers, allow_redirects=False) as response,
        ):
            status = response.status
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > _MAX_BYTES:
                    raise UnexpectedOutput("the OpenID provider's token endpoint", "far too much")
        answer = json.loads(content)
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        # Not chained: the exception may carry what was sent.
        kind = type(error).__name__
        raise RemoteError(f"The site's OpenID provider does not answer ({kind}).") from None
    except (ValueError, RecursionError):
        answer = {}
    return status, answer if isinstance(answer, dict) else {}


def _basic(client_id: str, secret: Secret) -> str:
    """RFC 6749, section 2.3.1: both are encoded as a form's values are, and then as HTTP has it."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret.reveal())}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigError(f"{ca_file} holds no certificates that can be read.") from error
