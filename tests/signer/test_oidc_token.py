"""Whatever a token says, reading it gives claims that count, or a refusal, and no other error."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import OKPAlgorithm

from hpchub.signer.oidc_keys import ALGORITHMS
from hpchub.signer.oidc_settings import OidcSettings
from hpchub.signer.oidc_token import BadToken, read_claims, read_header
from support.forge import segment

SETTINGS = OidcSettings(
    issuer="https://login.example.org", client_id="hpchub", acr_values=("mfa",), max_age_s=600
)
PRIVATE = Ed25519PrivateKey.generate()
KEY = jwt.PyJWK.from_dict(OKPAlgorithm.to_jwk(PRIVATE.public_key(), as_dict=True), "EdDSA")
NONCE = "n" * 43

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def right(now: float) -> dict[str, Any]:
    return {
        "iss": SETTINGS.issuer,
        "aud": "hpchub",
        "sub": "1",
        "nonce": NONCE,
        "iat": int(now),
        "exp": int(now) + 60,
        "acr": "mfa",
        "auth_time": int(now),
    }


def read(claims: bytes, now: float) -> Any:
    token = jwt.PyJWS().encode(claims, PRIVATE, "EdDSA")
    return read_claims(token, KEY, "EdDSA", SETTINGS, NONCE, now)


@given(st.text() | st.binary().map(lambda raw: f"{segment(raw)}.e30.e30"))
def test_any_text(text: str) -> None:
    """No text makes more of an error than a refusal."""
    try:
        header = read_header(text)
    except BadToken:
        return
    assert header.algorithm in ALGORITHMS


@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jku", "x"]), json_values))
def test_any_header(header: dict[str, Any]) -> None:
    """Whatever its fields hold, what comes through has an algorithm of ours and a name that is a text."""
    try:
        found = read_header(f"{segment(json.dumps(header).encode())}.e30.e30")
    except BadToken:
        return
    assert found.algorithm == header["alg"]
    assert found.kid is None or isinstance(found.kid, str)


@given(st.sampled_from(sorted(right(0))), json_values)
@settings(deadline=None)
def test_any_claim(name: str, value: Any) -> None:
    """One claim of another kind or value is refused, unless it says the same."""
    now = time.time()
    claims = right(now)
    same = isinstance(value, type(claims[name])) and value == claims[name]
    if name in {"exp", "sub"} or same or (name == "aud" and value == ["hpchub"]):
        return  # may be right; test_oidc.py has these
    try:
        read(json.dumps(claims | {name: value}).encode(), now)
    except BadToken:
        return
    assert name in {"iat", "auth_time"}
    assert isinstance(value, int | float)
    assert abs(value - now) < 700


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_signed_bytes(raw: bytes) -> None:
    """Even what the provider's own key has signed is no more than a refusal, if it is no set of claims."""
    now = time.time()
    try:
        read(raw, now)
    except BadToken:
        return
    raise AssertionError("no random bytes are a login")


@pytest.mark.parametrize("name", ["iat", "exp", "auth_time"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400])
def test_times_that_are_none(name: str, value: str) -> None:
    """What Python reads from JSON as a number, and is no time."""
    now = time.time()
    raw = json.dumps(right(now) | {name: "HERE"}).replace('"HERE"', value)
    if (name, value) == ("exp", "9" * 400):
        return  # never over, and yet not taken later than ten minutes after iat
    with pytest.raises(BadToken):
        read(raw.encode(), now)


def test_the_right_one() -> None:
    """What the other tests change is right as it is."""
    now = time.time()
    assert read(json.dumps(right(now)).encode(), now)["sub"] == "1"
