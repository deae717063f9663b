"""Which public keys are taken, and that what is signed is what was planned."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace

import asyncssh
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpchub.core.certificate import Profile
from hpchub.errors import InvalidRequest, SiteError
from hpchub.signer import certificates
from hpchub.signer.certificates import contents_of, find_differences, line_of, parse_public_key, sign
from hpchub.signer.policy import Plan

NOW = 1_800_000_000
CA = asyncssh.generate_private_key("ssh-ed25519")
USER = asyncssh.generate_private_key("ssh-ed25519")
LINE = USER.export_public_key("openssh").decode()
KEY = parse_public_key(LINE)
PLAN = Plan(
    account="alice",
    principal="alice",
    profile=Profile.TUNNEL,
    serial=2**64 - 1,
    key_id="hpchub:alice:tunnel:ff",
    fingerprint=KEY.fingerprint,
    valid_after=NOW - 60,
    valid_before=NOW + 600,
    source_addresses=("192.0.2.0/24", "2001:db8::/32"),
    force_command="/bin/false",
    extensions=frozenset({"permit-port-forwarding"}),
)


@pytest.mark.parametrize(
    ("algorithm", "size"),
    [
        ("ssh-ed25519", {}),
        ("ecdsa-sha2-nistp256", {}),
        ("ecdsa-sha2-nistp384", {}),
        ("ecdsa-sha2-nistp521", {}),
        ("ssh-rsa", {"key_size": 3072}),
    ],
)
def test_good_keys_are_taken_and_signed(algorithm: str, size: dict[str, int]) -> None:
    """Each allowed type gets a certificate; its comment is dropped and its fingerprint is ssh's own."""
    private = asyncssh.generate_private_key(algorithm, comment="a comment", **size)
    key = parse_public_key(private.export_public_key("openssh").decode())
    assert key.fingerprint == private.get_fingerprint()
    assert "comment" not in key.line
    certificate = asyncssh.import_certificate(sign(CA, key, replace(PLAN, fingerprint=key.fingerprint)))
    assert certificate.principals == ["alice"]


def _certificate() -> str:
    return sign(CA, KEY, PLAN)


# By name: keys are made anew for each run, and a test's own name must not depend on them.
_REFUSED: dict[str, Callable[[], str]] = {
    "nothing": lambda: "",
    "a newline": lambda: "\n",
    "two keys": lambda: LINE + LINE,
    "an empty line after it": lambda: LINE.strip() + "\n\n",
    "an empty line before it": lambda: "\n" + LINE,
    "a space before it": lambda: " " + LINE,
    "two spaces": lambda: LINE.replace(" ", "  ", 1),
    "a tab": lambda: LINE.replace(" ", "\t", 1),
    "NUL in the comment": lambda: LINE.strip() + " a\x00b",
    "a comment beyond ASCII": lambda: LINE.strip() + " caf\u00e9",
    "options": lambda: 'command="x" ' + LINE,
    "an authority": lambda: "cert-authority " + LINE,
    "called RSA": lambda: LINE.replace("ssh-ed25519", "ssh-rsa"),
    "called ECDSA": lambda: LINE.replace("ssh-ed25519", "ecdsa-sha2-nistp256"),
    "a space in the key": lambda: LINE.replace("AAAA", "AAAA AAAA"),
    "a certificate": _certificate,
    "a certificate called a key": lambda: _certificate().replace(
        "ssh-ed25519-cert-v01@openssh.com", "ssh-ed25519"
    ),
    "short RSA": lambda: _public("ssh-rsa", key_size=2048),
    "Ed448": lambda: _public("ssh-ed448"),
    "RFC 4716": lambda: USER.export_public_key("rfc4716").decode(),
    "PEM": lambda: USER.export_public_key("pkcs8-pem").decode(),
    "a private key": lambda: USER.export_private_key("openssh").decode(),
    "padded": lambda: "ssh-ed25519 " + base64.b64encode(USER.public_data + b"\0").decode(),
    "long": lambda: "ssh-ed25519 " + "A" * 5000,
}


def _public(algorithm: str, **size: int) -> str:
    return asyncssh.generate_private_key(algorithm, **size).export_public_key("openssh").decode()


@pytest.mark.parametrize("which", _REFUSED)
def test_other_keys_are_refused(which: str) -> None:
    """More than one line, options, certificates, mislabelled, weak, foreign and padded keys."""
    with pytest.raises(InvalidRequest) as caught:
        parse_public_key(_REFUSED[which]())
    assert set(caught.value.fields) == {"public_key"}


@given(st.text() | st.binary(max_size=200).map(lambda raw: f"ssh-ed25519 {base64.b64encode(raw).decode()}"))
def test_any_text_is_refused_in_our_words(text: str) -> None:
    """Only InvalidRequest ever comes out of the reader, whatever goes in."""
    with pytest.raises(InvalidRequest):
        parse_public_key(text)


@given(st.integers(0, len(LINE) - 2), st.characters())
def test_a_changed_key_is_another_key_or_none(at: int, char: str) -> None:
    """No two texts that differ in type or key stand for one fingerprint."""
    changed = LINE.strip()[:at] + char + LINE.strip()[at + 1 :]
    try:
        key = parse_public_key(changed)
    except InvalidRequest:
        return
    assert (key == KEY) == (changed.split(" ")[:2] == LINE.split()[:2])


def test_what_is_signed_is_what_was_planned() -> None:
    """Every field of the certificate, read by asyncssh, is the plan's; no option is left to a default."""
    certificate = asyncssh.import_certificate(_certificate())
    assert certificate.principals == ["alice"]
    assert certificate.get_algorithm() == "ssh-ed25519-cert-v01@openssh.com"
    assert certificate.options["force-command"] == "/bin/false"
    assert [str(network) for network in certificate.options["source-address"]] == list(PLAN.source_addresses)
    assert set(certificate.options) == {"force-command", "source-address", "permit-port-forwarding"}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"account": "bob", "principal": "bob"}, "principals"),
        ({"principal": "hpchub:alice"}, "principals"),
        ({"serial": 7}, "serial"),
        ({"key_id": "other"}, "key id"),
        ({"valid_after": NOW - 61}, "valid after"),
        ({"valid_before": NOW + 601}, "valid before"),
        ({"source_addresses": ("192.0.2.0/24",)}, "critical options"),
        ({"force_command": None}, "critical options"),
        ({"extensions": frozenset()}, "extensions"),
    ],
)
def test_every_differing_field_is_found(change: dict[str, object], name: str) -> None:
    """The check after signing names each field that is not the plan's."""
    planned = replace(PLAN, **change)  # type: ignore[arg-type]
    assert find_differences(_certificate(), line_of(CA), KEY, contents_of(planned)) == [name]


def test_differing_keys_and_forged_signatures_are_found() -> None:
    """Another authority, another user's key, a changed byte and a host certificate are all noticed."""
    other = asyncssh.generate_private_key("ssh-ed25519")
    other_key = parse_public_key(other.export_public_key().decode())
    line = _certificate()
    assert find_differences(line, line_of(other), KEY, contents_of(PLAN)) == ["authority"]
    assert find_differences(line, line_of(CA), other_key, contents_of(PLAN)) == ["key"]
    kind, encoded = line.split()
    raw = bytearray(base64.b64decode(encoded))
    raw[-1] ^= 1
    forged = f"{kind} {base64.b64encode(raw).decode()}"
    assert find_differences(forged, line_of(CA), KEY, contents_of(PLAN)) == ["signature or format"]
    assert find_differences(forged, line_of(CA), KEY, contents_of(PLAN), CA) == ["signature or format"]
    assert find_differences(line, line_of(CA), KEY, contents_of(PLAN), other) == ["signature or format"]
    assert find_differences(line, line_of(CA), KEY, contents_of(PLAN), CA) == []
    assert find_differences(KEY.line, line_of(CA), KEY, contents_of(PLAN)) == ["kind"]
    host = CA.generate_host_certificate(USER, PLAN.key_id, principals=["alice"]).export_certificate().decode()
    assert "type" in find_differences(host, line_of(CA), KEY, contents_of(PLAN))


@given(
    st.lists(st.tuples(st.integers(0, 419), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 9)
)
def test_no_changed_certificate_passes(changes: list[tuple[int, int]], cut: int) -> None:
    """Whatever bytes an authority elsewhere answers with: a difference, and never another error."""
    kind, encoded = _CERTIFICATE.split()
    good = base64.b64decode(encoded)
    raw = bytearray(good)
    for at, value in changes:
        raw[at % len(raw)] = value
    raw = raw[: len(raw) - cut]
    line = f"{kind} {base64.b64encode(raw).decode()}"
    assert bool(find_differences(line, line_of(CA), KEY, contents_of(PLAN))) == (raw != good)


_CERTIFICATE = sign(CA, KEY, PLAN)


def test_asyncssh_defaults_would_be_found() -> None:
    """A certificate made with asyncssh's own defaults differs in all that matters, and is not let out."""
    loose = CA.generate_user_certificate(USER, PLAN.key_id).export_certificate().decode()
    assert find_differences(loose, line_of(CA), KEY, contents_of(PLAN)) == [
        "serial",
        "principals",
        "valid after",
        "valid before",
        "critical options",
        "extensions",
    ]


def test_a_signed_certificate_that_differs_never_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where something else is signed than planned, the answer is an error."""

    careless = replace(contents_of(PLAN), extensions=frozenset({"permit-pty"}))
    signed = certificates.sign_contents(CA, KEY, careless)
    monkeypatch.setattr(certificates, "sign_contents", lambda *_: signed)
    with pytest.raises(SiteError, match="differs from its plan in extensions"):
        sign(CA, KEY, PLAN)


def test_a_plan_for_another_key_is_not_signed() -> None:
    """The plan names the key's fingerprint; another key is refused."""
    with pytest.raises(SiteError, match="another key"):
        sign(CA, KEY, replace(PLAN, fingerprint="SHA256:" + "a" * 43))
