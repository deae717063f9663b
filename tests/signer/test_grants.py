"""Tokens that are not ours, whole, current and complete earn nothing."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from hpchub.core.secret import Secret
from hpchub.errors import NotAllowed
from hpchub.signer import grants
from hpchub.signer.grants import GrantKey
from hpchub.signer.policy import Grant

PRIVATE = Ed25519PrivateKey.generate()
KEY = GrantKey(PRIVATE)
NOW = int(time.time())
GRANT = Grant(
    account="alice",
    fingerprint="SHA256:" + "a" * 43,
    factor="password",
    issued=NOW,
    ceiling=NOW + 43200,
    grant_id="0" * 32,
)
CLAIMS: dict[str, Any] = {
    "iss": "hpchub-signer",
    "aud": "hpchub-signer/certificates",
    "sub": "alice",
    "iat": NOW,
    "exp": NOW + 43200,
    "jti": "0" * 32,
    "key": GRANT.fingerprint,
    "factor": "password",
}


def encode(claims: dict[str, Any], key: Any = PRIVATE, algorithm: str = "EdDSA", **header: Any) -> Secret:
    return Secret(jwt.encode(claims, key, algorithm=algorithm, headers=header or None))


def by_hand(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> Secret:
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return Secret(".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts))


def test_a_grant_comes_back_as_it_went() -> None:
    """Render, then parse, is the same grant; the claims are those that this file forges below."""
    token = KEY.render(GRANT)
    assert KEY.parse(token) == GRANT
    assert jwt.decode(token.reveal(), options={"verify_signature": False}) == CLAIMS
    assert KEY.parse(encode(CLAIMS)) == GRANT


@pytest.mark.parametrize("claim", sorted(CLAIMS))
def test_every_claim_is_required(claim: str) -> None:
    """A token of our own key that lacks a claim is refused; PyJWT alone would let some pass."""
    with pytest.raises(NotAllowed, match="not one of ours"):
        KEY.parse(encode({name: value for name, value in CLAIMS.items() if name != claim}))


@pytest.mark.parametrize(
    "change",
    [
        {"aud": "somewhere-else"},
        {"aud": ["hpchub-signer/certificates"]},
        {"iss": "somebody"},
        {"iss": "hpchub"},
        {"sub": "root"},
        {"sub": "alice,bob"},
        {"sub": ""},
        {"sub": 7},
        {"iat": NOW + 3600},
        {"iat": "soon"},
        {"exp": "never"},
        {"key": ""},
        {"key": ["SHA256:x"]},
        {"factor": ""},
        {"jti": "../x"},
        {"nbf": NOW + 3600},
    ],
)
def test_wrong_claims_are_refused(change: dict[str, Any]) -> None:
    """Another audience, issuer, an unsafe account, a time out of order: refused though well signed."""
    with pytest.raises(NotAllowed, match="not one of ours"):
        KEY.parse(encode(CLAIMS | change))


def test_past_the_ceiling_it_says_so() -> None:
    """An expired grant is told apart, so that the person learns to log in again."""
    with pytest.raises(NotAllowed, match="login has ended"):
        KEY.parse(encode(CLAIMS | {"iat": NOW - 43201, "exp": NOW - 1}))


def test_a_known_grant_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its signature is verified once; its ceiling is looked at each time. What is kept is no token."""
    key = GrantKey(PRIVATE)
    token = key.render(GRANT)
    assert key.parse(token) is key.parse(token)
    assert token.reveal() not in repr(key._known) and len(key._known) == 1
    for changed in (token.reveal()[:-4] + "AAAA", token.reveal() + "="):
        with pytest.raises(NotAllowed, match="not one of ours"):
            key.parse(Secret(changed))
    monkeypatch.setattr(time, "time", lambda: float(GRANT.ceiling))
    with pytest.raises(NotAllowed, match="login has ended"):
        key.parse(token)


def test_few_grants_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes, and is verified again when it comes back."""
    monkeypatch.setattr(grants, "_MOST_KNOWN", 3)
    key = GrantKey(PRIVATE)
    tokens = [key.render(replace(GRANT, grant_id=f"{number:032x}")) for number in range(5)]
    for token in (*tokens, *tokens):
        assert key.parse(token) in (replace(GRANT, grant_id=f"{number:032x}") for number in range(5))
    assert len(key._known) == 3


def test_forged_tokens_are_refused() -> None:
    """No algorithm, our public key as an HMAC secret, a stranger's key, a swapped payload, a `kid`."""
    public = PRIVATE.public_key()
    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    good = KEY.render(GRANT).reveal()
    head, _, signature = good.split(".")
    payload = base64.urlsafe_b64encode(json.dumps(CLAIMS | {"sub": "bob"}).encode()).rstrip(b"=").decode()
    stranger = Ed25519PrivateKey.generate()
    forged = [
        by_hand({"alg": "none", "typ": "JWT"}, CLAIMS),
        by_hand({"alg": "None"}, CLAIMS),
        by_hand({"alg": "EdDSA"}, CLAIMS),
        by_hand({"alg": "EdDSA"}, CLAIMS, b"\0" * 64),
        by_hand({}, CLAIMS),
        encode(CLAIMS, raw, "HS256"),
        encode(CLAIMS, stranger),
        encode(CLAIMS, stranger, kid="/dev/null"),
        encode(CLAIMS, stranger, jwk={"kty": "OKP", "crv": "Ed25519", "x": "AA"}),
        Secret(f"{head}.{payload}.{signature}"),
        Secret(f"{good}.{good}"),
        Secret(""),
        Secret("."),
        Secret("\ud800"),
    ]
    for token in forged:
        with pytest.raises(NotAllowed, match="not one of ours"):
            KEY.parse(token)


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]{0,60}(\.[A-Za-z0-9_-]{0,60}){0,4}", fullmatch=True))
def test_any_text_is_refused_in_our_words(text: str) -> None:
    """Only NotAllowed ever comes out of the reader, whatever goes in."""
    with pytest.raises(NotAllowed):
        KEY.parse(Secret(text))
