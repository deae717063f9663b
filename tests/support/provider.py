"""A real OpenID provider: npm's oidc-provider, with people, a client and keys of its own, on loopback."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from support import require
from support.ports import free_ports

CLIENT_ID = "hpchub"
CLIENT_SECRET = "canary+secret/of%the&client 61"
MFA = "https://refeds.org/profile/mfa"

# What the provider says of its people. Their subjects say nothing of their accounts.
PEOPLE: dict[str, dict[str, Any]] = {
    "subject-1": {
        "preferred_username": "alice",
        "email": "alice@example.org",
        "email_verified": True,
        "groups": ["hpc", "staff"],
    },
    "subject-2": {
        "preferred_username": "bob",
        "email": "bob@elsewhere.example",
        "email_verified": True,
        "groups": ["guests"],
    },
    "subject-3": {"preferred_username": "root", "email": "alice@example.org", "email_verified": False},
}

_CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass
class RealProvider:
    """Start it, stop it, or start it again with another key."""

    callback_url: str
    port: int = field(default_factory=lambda: free_ports(1)[0])
    process: subprocess.Popen[bytes] | None = None
    keys_made: int = 0
    keys: list[dict[str, Any]] = field(default_factory=list)

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def new_key(self) -> None:
        """Forget the keys before, and sign with a new one."""
        self.keys_made += 1
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        jwk = RSAAlgorithm.to_jwk(private, as_dict=True)
        self.keys = [jwk | {"kid": f"key-{self.keys_made}", "use": "sig", "alg": "RS256"}]

    def start(self) -> None:
        require.programs("node")
        if not (_CHECKOUT / "node_modules" / "oidc-provider").is_dir():
            pytest.skip("oidc-provider is not installed: npm ci")
        if not self.keys:
            self.new_key()
        settings = {
            "issuer": self.issuer,
            "port": self.port,
            "modules": str(_CHECKOUT / "package.json"),
            "keys": self.keys,
            "people": PEOPLE,
            "acr_values": [MFA],
            "clients": [
                {
                    "client_id": CLIENT_ID,
                    "client_secret": CLIENT_SECRET,
                    "redirect_uris": [self.callback_url],
                    "grant_types": ["authorization_code"],
                    "response_types": ["code"],
                }
            ],
        }
        self.process = subprocess.Popen(
            ["node", str(Path(__file__).with_name("provider.mjs"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(settings).encode() + b"\n")
        self.process.stdin.flush()
        if b"ready" not in self.process.stdout.readline():
            assert self.process.stderr is not None
            raise AssertionError(f"the provider did not start:\n{self.process.stderr.read().decode()}")

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.terminate()
        self.process.wait(20)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        self.process = None


@contextmanager
def a_provider(callback_url: str) -> Iterator[RealProvider]:
    """A running one."""
    provider = RealProvider(callback_url)
    try:
        provider.start()
        yield provider
    finally:
        provider.stop()


def answer_portal(
    session: requests.Session, page: requests.Response, subject: str, *, acr: str = "", cancel: bool = False
) -> requests.Response:
    """Send the portal's form as a person would, and return where the portal sends the browser.

    The answer is the redirect to the hub's callback, which is not followed.
    """
    assert re.search(r"<title>Portal</title>", page.text), (page.status_code, page.url, page.text[:2000])
    form = {"login": subject} | ({"acr": acr} if acr else {}) | ({"cancel": "1"} if cancel else {})
    issuer = "/".join(page.url.split("/")[:3])
    answer = session.post(page.url, data=form, allow_redirects=False, timeout=20)
    while (to := urljoin(answer.url, answer.headers.get("Location", ""))).startswith(issuer):
        assert answer.is_redirect, (answer.status_code, answer.text[:2000])
        answer = session.get(to, allow_redirects=False, timeout=20)
    return answer
