"""Codes against the RFC's own vectors, and what people type."""

from __future__ import annotations

import secrets
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpchub.signer.totp import (
    matching_step,
    new_recovery_codes,
    normal_recovery_code,
    provisioning_uri,
    render_seed,
)

# RFC 6238, appendix B, SHA-1: eight digits, of which six-digit codes are the last six.
SEED = b"12345678901234567890"
VECTORS = {
    59: "94287082",
    1111111109: "07081804",
    1111111111: "14050471",
    1234567890: "89005924",
    2000000000: "69279037",
    20000000000: "65353130",
}


@pytest.mark.parametrize(("time_s", "code"), VECTORS.items())
def test_the_rfcs_vectors(time_s: int, code: str) -> None:
    """Each vector's code is that of its step, one step before and after, and of no other."""
    step = time_s // 30
    for away in (-1, 0, 1):
        assert matching_step(SEED, code[2:], time_s + 30 * away) == step
    for away in (away for away in (-3, -2, 2, 3) if time_s + 30 * away > 0):
        assert matching_step(SEED, code[2:], time_s + 30 * away) is None


@pytest.mark.parametrize("typed", ["287 082", " 287082 ", "287-082"])
def test_blanks_do_not_matter(typed: str) -> None:
    """Apps show codes in groups, and people type them so."""
    assert matching_step(SEED, typed, 59) == 1


@pytest.mark.parametrize(
    "typed", ["", "28708", "2870822", "٢٨٧٠٨٢", "²87082", "287082\n", "+87082", "\ud800"]
)
def test_what_is_no_code(typed: str) -> None:
    """Other lengths, other scripts' digits, signs and half characters are no code, and raise nothing."""
    assert matching_step(SEED, typed, 59) is None


def test_the_stand_in_is_no_code() -> None:
    """What is compared where nothing was typed does not match, even in a step whose code it is."""
    zero = 349_495  # a step in which the seed's code is 000000
    assert matching_step(SEED, "000000", zero * 30) == zero
    assert matching_step(SEED, "", zero * 30) is None


@given(st.text(max_size=40), st.floats(0, 4e9))
def test_any_text_is_answered(typed: str, now: float) -> None:
    """Whatever is typed, whenever: a step next to now, or None."""
    step = matching_step(SEED, typed, now)
    assert step is None or abs(step - max(now // 30, 1)) <= 1


def test_what_an_app_is_told() -> None:
    """The URI has seed, issuer and account in the form of the key URI format."""
    parts = urlsplit(provisioning_uri(SEED, "Dr.Eve", "My Site"))
    assert (parts.scheme, parts.netloc, parts.path) == ("otpauth", "totp", "/My%20Site:Dr.Eve")
    told = {name: values[0] for name, values in parse_qs(parts.query).items()}
    assert told == {
        "secret": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
        "issuer": "My Site",
        "algorithm": "SHA1",
        "digits": "6",
        "period": "30",
    }
    assert render_seed(SEED).startswith("GEZD GNBV ")


def test_recovery_codes() -> None:
    """Ten different ones of 80 bits, read back however they are typed."""
    codes = new_recovery_codes(secrets.token_bytes)
    assert len(set(codes)) == 10
    for code in codes:
        plain = code.replace("-", "")
        assert normal_recovery_code(f" {code.lower()} ") == (plain, True)
    assert not normal_recovery_code("287082")[1]
    assert not normal_recovery_code("AAAA-AAAA-AAAA-AAA1")[1]
