"""step-ca as the authority, asked through a JWK provisioner of the signer's own.

Each request carries a token, good for one use, that is signed with the provisioner's key and says the whole
certificate. step-ca's default template would add every permission; the provisioner needs the one in
docs/howto/ca-elsewhere.md, which takes options and serial from that token.
https://smallstep.com/docs/step-ca/templates
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt

from hpchub.core.secret import Secret
from hpchub.errors import ConfigError, SiteError
from hpchub.private_files import read_private_file
from hpchub.signer.certificate_bytes import Contents, blob_of
from hpchub.signer.certificates import PublicKey
from hpchub.signer.issuer_http import Https

_TOKEN_S = 120
_ALGORITHMS = frozenset({"ES256", "ES384", "ES512", "EdDSA"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSettings:
    """Where it is, and who asks. `ca_file` is step-ca's own root."""

    url: str
    provisioner: str
    key_file: Path
    ca_file: Path


class StepIssuer:
    """One provisioner of one step-ca."""

    adjusts = False
    own_key = None

    def __init__(self, settings: StepSettings, public_key: str) -> None:
        self.public_key = public_key
        self._settings = settings
        self._key = _load_key(settings.key_file)
        self._server = Https("The certificate authority (step-ca)", settings.url, settings.ca_file)

    async def sign(self, public_key: PublicKey, contents: Contents) -> str:
        """step-ca's certificate."""
        body = {
            "publicKey": base64.b64encode(blob_of(public_key.line)).decode("ascii"),
            "ott": self._token(contents).reveal(),
            **_asked(contents),
        }
        answer = await self._server.call("POST", "/ssh/sign", body)
        kind = public_key.line.split(" ", 1)[0]
        return f"{kind}-cert-v01@openssh.com {self._server.parse(answer, 'crt')}"

    async def check(self) -> None:
        """Whether step-ca answers, and with the key that is trusted. Says nothing of the provisioner."""
        answer = await self._server.call("GET", "/ssh/roots")
        try:
            roots = json.loads(answer)["userKey"]
        except (ValueError, LookupError, TypeError, RecursionError):
            roots = []
        if self.public_key.split()[1] not in roots:
            raise SiteError("The certificate authority (step-ca) has another key than public_key says.")

    def _token(self, contents: Contents) -> Secret:
        """Vouches for this one certificate. step-ca remembers `jti`, and takes each token once."""
        now = int(time.time())
        claims = {
            "iss": self._settings.provisioner,
            "aud": f"{self._settings.url.rstrip('/')}/1.0/ssh/sign",
            "sub": contents.key_id,
            "iat": now,
            "nbf": now,
            "exp": now + _TOKEN_S,
            "jti": secrets.token_hex(32),
            "step": {"ssh": _asked(contents)},
            "hpchub": {
                "serial": str(contents.serial),  # as a number it would lose digits on its way through JSON
                "criticalOptions": dict(contents.critical_options),
                "extensions": dict.fromkeys(sorted(contents.extensions), ""),
            },
        }
        headers = {"kid": self._key.key_id}
        return Secret(jwt.encode(claims, self._key.key, algorithm=self._key.algorithm_name, headers=headers))


def _asked(contents: Contents) -> dict[str, Any]:
    return {
        "certType": contents.kind.name.lower(),
        "keyID": contents.key_id,
        "principals": list(contents.principals),
        "validAfter": _time(contents.valid_after),
        "validBefore": _time(contents.valid_before),
    }


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _load_key(path: Path) -> jwt.PyJWK:
    """The provisioner's private key. ConfigError where it is missing, loose, encrypted, or no key."""
    try:
        body = json.loads(read_private_file(path))
        key = jwt.PyJWK(body)
        usable = bool(key.key_id) and key.algorithm_name in _ALGORITHMS and "d" in body
    except (ValueError, TypeError, KeyError, jwt.PyJWTError):
        usable = False
    if not usable:
        raise ConfigError(
            f"{path} holds no private JWK (EC or Ed25519, with its kid) that can be read.",
            "Decrypt it once: step crypto jwe decrypt",
        )
    return key
