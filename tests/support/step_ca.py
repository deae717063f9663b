"""A stand-in for step-ca's SSH signing with a JWK provisioner, which no package registry carries.

It answers as its sources say (smallstep/certificates: api/ssh.go, authority/ssh.go, authority/authorize.go,
authority/provisioner/jwk.go; smallstep/crypto: sshutil, as of 2026): what a token must hold, that it works
once, what a template makes of it. Certificates are made by asyncssh, so not by the code that is tested.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncssh
import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from support.vault import permits

PROVISIONER = "hpchub"
# What its default template adds to every user's certificate (sshutil/templates.go).
_DEFAULT_EXTENSIONS = (
    "permit-X11-forwarding",
    "permit-agent-forwarding",
    "permit-port-forwarding",
    "permit-pty",
    "permit-user-rc",
)
_KID = "canary-kid"


def new_provisioner_key() -> dict[str, Any]:
    """A private JWK as `step crypto jwk create` writes it, decrypted."""
    key = ec.generate_private_key(ec.SECP256R1())
    body = jwt.algorithms.ECAlgorithm.to_jwk(key, as_dict=True)
    return {**body, "use": "sig", "alg": "ES256", "kid": _KID}


@dataclass
class StepCa:
    """`has_template`: whether its provisioner has our template, or step-ca's own default."""

    provisioner_key: dict[str, Any]
    key: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ecdsa-sha2-nistp256"))
    has_template: bool = True
    delay_s: float = 0
    url: str = ""
    used: set[str] = field(default_factory=set)
    tokens: list[str] = field(default_factory=list)

    @property
    def public_key(self) -> str:
        return self.key.export_public_key("openssh").decode().strip()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/ssh/sign", self._sign)
        app.router.add_get("/ssh/roots", self._roots)
        return app

    async def _roots(self, _request: web.Request) -> web.Response:
        return web.json_response({"userKey": [base64.b64encode(self.key.public_data).decode()]})

    async def _sign(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self.delay_s)
        body = await request.json()
        self.tokens.append(body["ott"])
        try:
            claims = self._authorize(body["ott"])
            for name, value in claims["step"]["ssh"].items():
                if body.get(name) not in (value, None):
                    raise ValueError(f"ssh certificate {name} does not match")
        except (jwt.PyJWTError, ValueError) as error:
            answer = {"status": 401, "message": "The request lacked necessary authorization."}
            return web.json_response({**answer, "why": str(error)}, status=401)
        signed = self._certificate(body, claims).export_certificate("openssh").decode()
        return web.json_response({"crt": signed.split()[1]}, status=201)

    def _authorize(self, token: str) -> dict[str, Any]:
        if jwt.get_unverified_header(token).get("kid") != _KID:
            raise ValueError("provisioner not found")
        claims = jwt.decode(
            token,
            jwt.PyJWK(self.provisioner_key).key.public_key(),
            algorithms=["ES256"],
            issuer=PROVISIONER,
            audience=[f"{self.url}/1.0/ssh/sign", f"{self.url}/ssh/sign"],
            options={"require": ["sub", "jti", "iat", "nbf", "exp"]},
        )
        if claims["jti"] in self.used:
            raise ValueError("token already used")
        self.used.add(claims["jti"])
        return dict(claims)

    def _certificate(self, body: dict[str, Any], claims: dict[str, Any]) -> Any:
        asked, ours = claims["step"]["ssh"], claims["hpchub"]
        options: dict[str, str] = ours["criticalOptions"] if self.has_template else {}
        extensions = ours["extensions"] if self.has_template else _DEFAULT_EXTENSIONS
        source = options.get("source-address")
        key = base64.b64decode(body["publicKey"])
        return self.key.generate_user_certificate(
            asyncssh.import_public_key(b"ssh-ed25519 " + base64.b64encode(key)),
            key_id=asked["keyID"],
            serial=int(ours["serial"]) if self.has_template else secrets.randbits(64),
            principals=asked["principals"],
            valid_after=_seconds(asked["validAfter"]),
            valid_before=_seconds(asked["validBefore"]),
            force_command=options.get("force-command"),
            source_address=source.split(",") if source else None,
            **permits(extensions),
        )


def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())
