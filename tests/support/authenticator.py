"""A security key in software, with the browser that speaks to it: answers as WebAuthn's `toJSON` has them.

Each answer can be made wrong in one place.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fido2.cose import ES256
from fido2.utils import sha256, websafe_decode, websafe_encode
from fido2.webauthn import (
    AttestationObject,
    AttestedCredentialData,
    AuthenticatorData,
    CollectedClientData,
)

_FLAG = AuthenticatorData.FLAG


@dataclass
class SoftKey:
    """One key pair for one site. `origin` is the page's that the browser shows."""

    origin: str
    rp_id: str
    count: int = 1
    flags: AuthenticatorData.FLAG = _FLAG.UP | _FLAG.UV
    cross_origin: bool = False
    private: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1()), repr=False
    )
    credential_id: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    def register(self, options: str) -> str:
        """The answer to `navigator.credentials.create`."""
        asked = json.loads(options)
        public = ES256.from_cryptography_key(self.private.public_key())  # type: ignore[no-untyped-call]
        credential = AttestedCredentialData.create(b"\0" * 16, self.credential_id, public)
        data = AuthenticatorData.create(
            sha256(self.rp_id.encode()), self.flags | _FLAG.AT, self.count, bytes(credential)
        )
        client = self._client(CollectedClientData.TYPE.CREATE, asked)
        return self._answer(
            {
                "clientDataJSON": client.b64,
                "attestationObject": websafe_encode(bytes(AttestationObject.create("none", data, {}))),
            }
        )

    def press(self, options: str, **changed: Any) -> str:
        """The answer to `navigator.credentials.get`; the key counts on. `changed` replaces its parts."""
        asked = json.loads(options)
        self.count += 1
        data = AuthenticatorData.create(sha256(self.rp_id.encode()), self.flags, self.count)
        client = self._client(changed.pop("kind", CollectedClientData.TYPE.GET), asked)
        signature = self.private.sign(bytes(data) + client.hash, ec.ECDSA(hashes.SHA256()))
        response = {
            "clientDataJSON": client.b64,
            "authenticatorData": websafe_encode(bytes(data)),
            "signature": websafe_encode(signature),
        }
        return self._answer(response | changed)

    def is_asked(self, options: str) -> bool:
        """Whether this key is among those that the browser is to ask."""
        asked = json.loads(options)["allowCredentials"]
        return self.credential_id in {websafe_decode(one["id"]) for one in asked}

    def _client(self, kind: str, asked: dict[str, Any]) -> CollectedClientData:
        return CollectedClientData.create(
            kind, asked["challenge"], self.origin, cross_origin=self.cross_origin
        )

    def _answer(self, response: dict[str, Any]) -> str:
        name = websafe_encode(self.credential_id)
        return json.dumps(
            {
                "id": name,
                "rawId": name,
                "type": "public-key",
                "response": response,
                "clientExtensionResults": {},
            }
        )
