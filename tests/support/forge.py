"""An OpenID provider of a few lines, that says and signs whatever a test wants, true or forged."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

CLIENT_ID = "hpchub"


@cache
def rsa_key(number: int, bits: int = 2048) -> rsa.RSAPrivateKey:
    """The same for the same number: to make one takes long."""
    del number
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


class Forge:
    """Its documents may be changed at any time. `asked` counts requests by path."""

    def __init__(self) -> None:
        self.issuer = ""
        self.kid = ""
        self.key: rsa.RSAPrivateKey
        self.jwks: list[Any] = []
        self.discovery: dict[str, Any] = {}
        self.delay_s = 0.0
        self.status = 200
        self.redirect = ""
        self.padding = ""
        self.asked: dict[str, int] = {}
        self.exchanged = b"{}"
        self.sent: list[dict[str, str]] = []

    def rotate(self, *, keep: bool = False) -> None:
        """Sign with a new key from now on."""
        number = int(self.kid.removeprefix("key-") or 0) + 1
        self.key, self.kid = rsa_key(number), f"key-{number}"
        public = RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True) | {"kid": self.kid, "use": "sig"}
        self.jwks = [*(self.jwks if keep else []), public]

    def pem(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def claims(self, nonce: str, /, **changed: Any) -> dict[str, Any]:
        """Those of alice. A claim changed to None is left out."""
        now = int(time.time())
        usual = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "sub": "subject-1",
            "iat": now,
            "exp": now + 300,
            "nonce": nonce,
            "preferred_username": "alice",
            "groups": ["hpc"],
        }
        return {name: value for name, value in (usual | changed).items() if value is not None}

    def token(self, nonce: str, /, *, header: dict[str, Any] | None = None, **changed: Any) -> str:
        """An id_token signed with our key."""
        made = {"kid": self.kid} | (header or {})
        # Not jwt.encode, which knows what some claims should be.
        return jwt.PyJWS().encode(json.dumps(self.claims(nonce, **changed)).encode(), self.key, "RS256", made)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked[request.path] = self.asked.get(request.path, 0) + 1
        await asyncio.sleep(self.delay_s)
        if self.redirect:
            raise web.HTTPFound(self.redirect)
        found = {"keys": self.jwks} if request.path == "/jwks" else self.discovery
        return web.json_response(found | {"padding": self.padding}, status=self.status)

    async def exchange(self, request: web.Request) -> web.Response:
        """The token endpoint: it answers what the test has put there, and keeps what it was sent."""
        await asyncio.sleep(self.delay_s)
        if self.redirect:
            raise web.HTTPFound(self.redirect)
        form = await request.post()
        self.sent.append({name: str(value) for name, value in form.items()} | dict(request.headers))
        return web.Response(body=self.exchanged, status=self.status, content_type="application/json")


def segment(value: dict[str, Any] | bytes) -> str:
    """One part of a token."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@asynccontextmanager
async def a_forge(tls: ssl.SSLContext | None = None) -> AsyncIterator[Forge]:
    """A running one, on loopback."""
    forge = Forge()
    app = web.Application()
    app.router.add_get("/{path:.*}", forge.answer)
    app.router.add_post("/token", forge.exchange)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        forge.issuer = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
        forge.discovery = {
            "issuer": forge.issuer,
            "authorization_endpoint": f"{forge.issuer}/auth",
            "token_endpoint": f"{forge.issuer}/token",
            "jwks_uri": f"{forge.issuer}/jwks",
        }
        forge.rotate()
        yield forge
    finally:
        await runner.cleanup()
