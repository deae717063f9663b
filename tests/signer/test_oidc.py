"""Logins with an OpenID provider's id_token through the whole signer: what counts, and every forgery."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncssh
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from hpchub.core.certificate import Profile
from hpchub.core.login_nonce import login_nonce, new_salt
from hpchub.core.secret import Secret
from hpchub.errors import ConfigError, InvalidRequest, NotAllowed, RemoteError
from hpchub.signer import command, oidc_keys
from hpchub.signer.answers import GrantedLogin
from hpchub.signer.client import SignerClient
from hpchub.signer.oidc_keys import ProviderKeys
from hpchub.signer.oidc_settings import OidcSettings
from hpchub.signer.oidc_token import MAX_TOKEN_LENGTH
from hpchub.signer.server import running
from hpchub.signer.settings import ProofKind, ProofSettings, SignerSettings
from support.certificates import make_certificates
from support.forge import CLIENT_ID, Forge, a_forge, rsa_key, segment

SOURCE = "198.51.100.7"
MFA = "https://refeds.org/profile/mfa"


@dataclass
class Desk:
    """A signer that takes the forge's tokens, and one person's key."""

    signer: SignerClient
    forge: Forge
    settings: SignerSettings
    public_key: str
    salt: str

    @property
    def nonce(self) -> str:
        return login_nonce(self.public_key, self.salt)

    async def present(self, token: str, *, salt: str = "", public_key: str = "") -> GrantedLogin:
        return await self.signer.grant_by_id_token(
            Secret(token), salt or self.salt, public_key or self.public_key, SOURCE
        )

    async def refused(self, token: str, why: str, **given: str) -> None:
        """The token earns nothing; the audit log alone says why."""
        with pytest.raises(NotAllowed, match=r"^The hub does not let you in with that login\.$"):
            await self.present(token, **given)
        last = self.records()[-1]
        assert (last["event"], last["outcome"], last["source"]) == ("login", "refused", SOURCE)
        assert re.search(why, last["reason"]), last["reason"]
        if len(token) > 100:
            assert token[-20:] not in self.settings.audit_log.read_text()

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.settings.audit_log.read_text().splitlines()]


@pytest.fixture
async def forge() -> AsyncIterator[Forge]:
    async with a_forge() as found:
        yield found


@pytest.fixture
def oidc(forge: Forge) -> OidcSettings:
    """The settings of most tests; a module may change them."""
    return OidcSettings(
        issuer=forge.issuer,
        client_id=CLIENT_ID,
        account_claim="preferred_username",
        groups_claim="groups",
        groups=("hpc", "admins"),
        timeout_s=1,
    )


def with_oidc(settings: SignerSettings, oidc: OidcSettings) -> SignerSettings:
    return replace(settings, proof=ProofSettings(kind=ProofKind.OIDC, oidc=oidc))


@pytest.fixture
async def desk(
    settings: SignerSettings, oidc: OidcSettings, forge: Forge, user_key: Any
) -> AsyncIterator[Desk]:
    chosen = with_oidc(settings, oidc)
    async with running(chosen):
        yield Desk(SignerClient(chosen.socket), forge, chosen, user_key.public, new_salt())


async def test_an_id_token_earns_certificates(desk: Desk, other_key: Any) -> None:
    """A token for this key logs in once, is recorded with its factor, and mints for that key alone."""
    request = await desk.signer.oidc_request()
    assert (request.issuer, request.client_id, request.scope) == (
        desk.forge.issuer,
        "hpchub",
        "openid profile",
    )
    assert request.token_endpoint == f"{desk.forge.issuer}/token"
    login = await desk.present(desk.forge.token(desk.nonce))
    assert login.username == "alice"
    minted = await desk.signer.certificate(login.grant, desk.public_key, Profile.CONTROL)
    assert asyncssh.import_certificate(minted.certificate).principals == ["alice"]  # type: ignore[attr-defined]
    with pytest.raises(NotAllowed, match="another key"):
        await desk.signer.certificate(login.grant, other_key.public, Profile.CONTROL)
    granted = desk.records()[0]
    assert (granted["outcome"], granted["user"], granted["factor"]) == ("granted", "alice", "oidc")
    assert granted["source"] == SOURCE


async def test_each_login_counts_once(desk: Desk) -> None:
    """The same token, the same written otherwise, and a newer one of the same login: all refused."""
    token = desk.forge.token(desk.nonce)
    await desk.present(token)
    await desk.refused(token, "used before")
    await desk.refused(desk.forge.token(desk.nonce, iat=int(time.time()) - 1), "used before")
    async with running_again(desk) as again:
        await again.refused(token, "used before")


class running_again:
    """A second process' signer over the same state."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        folder = desk.settings.socket.parent.with_name("run2")
        self._settings = replace(desk.settings, socket=folder / "signer.sock")
        self._running = running(self._settings)

    async def __aenter__(self) -> Desk:
        await self._running.__aenter__()
        return replace(self._desk, signer=SignerClient(self._settings.socket))

    async def __aexit__(self, *error: Any) -> None:
        await self._running.__aexit__(*error)


async def test_bound_to_the_key(desk: Desk, other_key: Any) -> None:
    """A stolen token is worth nothing to whoever has another key, or for a login with another salt."""
    token = desk.forge.token(desk.nonce)
    await desk.refused(token, "another login, or another key", public_key=other_key.public)
    await desk.refused(token, "another login, or another key", salt=new_salt())
    await desk.refused(desk.forge.token("", nonce=None), "MissingRequiredClaimError")
    await desk.refused(desk.forge.token(desk.nonce, nonce=[desk.nonce]), "another login")
    await desk.refused(desk.forge.token(desk.nonce[:-1]), "another login")
    with pytest.raises(NotAllowed):
        await desk.present(token, salt="0" * 63)
    with pytest.raises(InvalidRequest):
        await desk.present(token, public_key="no key")
    assert (await desk.present(token)).username == "alice"  # none of these tries has used it up


async def test_every_claim_is_required(desk: Desk) -> None:
    """A token without one of the claims is refused: PyJWT would accept most of them."""
    for claim in ("iss", "aud", "exp", "iat", "sub", "nonce"):
        await desk.refused(desk.forge.token(desk.nonce, **{claim: None}), "MissingRequiredClaimError")


CHANGED: list[tuple[dict[str, Callable[[Desk], Any]], str]] = [
    ({"exp": lambda _: int(time.time()) - 60}, "ExpiredSignatureError"),
    ({"iat": lambda _: int(time.time()) + 120}, "ImmatureSignatureError"),
    ({"nbf": lambda _: int(time.time()) + 120}, "ImmatureSignatureError"),
    ({"iat": lambda _: int(time.time()) - 700, "exp": lambda _: int(time.time()) + 9000}, "too old"),
    ({"iat": lambda _: True}, "no iat"),
    ({"exp": lambda _: "soon"}, "DecodeError"),
    ({"iss": lambda desk: desk.forge.issuer + "/"}, "InvalidIssuerError"),
    ({"iss": lambda desk: [desk.forge.issuer]}, "InvalidIssuerError"),
    ({"aud": lambda _: "hpchub2"}, "InvalidAudienceError"),
    ({"aud": lambda _: []}, "MissingRequiredClaimError|InvalidAudienceError"),
    ({"aud": lambda _: ["hpchub", "wiki"], "azp": lambda _: "hpchub"}, "for others too"),
    ({"aud": lambda _: ["hpchub", "hpchub"]}, "azp"),
    ({"azp": lambda _: "wiki"}, "azp"),
    ({"sub": lambda _: 17}, "InvalidSubjectError"),
    ({"sub": lambda _: ""}, "subject"),
    ({"sub": lambda _: "x" * 256}, "subject"),
    ({"sub": lambda _: "a\nlogin granted"}, "subject"),
]


async def test_claims_out_of_range(desk: Desk) -> None:
    """Expired, of the future, too old, from or for somebody else, or without a usable subject."""
    for changed, why in CHANGED:
        values = {name: make(desk) for name, make in changed.items()}
        await desk.refused(desk.forge.token(desk.nonce, **values), why)


def unsigned(desk: Desk) -> str:
    return f"{segment({'alg': 'none', 'typ': 'JWT'})}.{segment(desk.forge.claims(desk.nonce))}."


def mixed_case_none(desk: Desk) -> str:
    return f"{segment({'alg': 'nOnE', 'kid': desk.forge.kid})}.{segment(desk.forge.claims(desk.nonce))}."


def hmac_with_public_key(desk: Desk) -> str:
    """The public key in PEM as an HMAC's secret: what `RS256` code that trusts the header accepts."""
    signed = f"{segment({'alg': 'HS256', 'kid': desk.forge.kid})}.{segment(desk.forge.claims(desk.nonce))}"
    return f"{signed}.{segment(hmac.new(desk.forge.pem(), signed.encode(), hashlib.sha256).digest())}"


def hmac_with_empty_key(desk: Desk) -> str:
    signed = f"{segment({'alg': 'HS256'})}.{segment(desk.forge.claims(desk.nonce))}"
    return f"{signed}.{segment(hmac.new(b'', signed.encode(), hashlib.sha256).digest())}"


def other_key(desk: Desk) -> str:
    return jwt.encode(desk.forge.claims(desk.nonce), rsa_key(78), "RS256", {"kid": desk.forge.kid})


def key_in_the_header(desk: Desk) -> str:
    """A key of the forger's own in `jwk`, under the provider's `kid`."""
    key = rsa_key(78)
    public = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    header = {"kid": desk.forge.kid, "jwk": public}
    return jwt.encode(desk.forge.claims(desk.nonce), key, "RS256", header)


def changed_afterwards(desk: Desk) -> str:
    header, _, signature = desk.forge.token(desk.nonce).split(".")
    return f"{header}.{segment(desk.forge.claims(desk.nonce, preferred_username='bob'))}.{signature}"


def without_signature(desk: Desk) -> str:
    return desk.forge.token(desk.nonce).rpartition(".")[0] + "."


def access_token(desk: Desk) -> str:
    """Signed by the same key, for the same client: but no id_token."""
    return desk.forge.token(desk.nonce, header={"typ": "at+jwt"})


def unknown_critical(desk: Desk) -> str:
    return desk.forge.token(desk.nonce, header={"crit": ["hpchub"], "hpchub": 1})


def other_algorithm(desk: Desk) -> str:
    """An elliptic curve's signature under the name of an RSA key."""
    key = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(desk.forge.claims(desk.nonce), key, "ES256", {"kid": desk.forge.kid})


FORGERIES: list[tuple[Callable[[Desk], str], str]] = [
    (unsigned, "algorithm that counts"),
    (mixed_case_none, "algorithm that counts"),
    (hmac_with_public_key, "algorithm that counts"),
    (hmac_with_empty_key, "algorithm that counts"),
    (other_key, "InvalidSignatureError"),
    (key_in_the_header, "InvalidSignatureError"),
    (changed_afterwards, "InvalidSignatureError"),
    (without_signature, "InvalidSignatureError"),
    (access_token, "no id_token"),
    (unknown_critical, "no token|InvalidTokenError"),
    (other_algorithm, "no key of the provider's"),
    (lambda _: "", "no token"),
    (lambda _: "a.b.c", "no token"),
    (lambda _: "....", "no token"),
    (lambda _: "é.é.é", "no token"),
    (lambda _: f"{segment(b'[' * 5000)}.e30.e30", "no token"),
    (lambda _: f"{segment({'alg': ['RS256']})}.e30.e30", "algorithm that counts|no token"),
    (lambda _: f"{segment({'alg': 'RS256', 'kid': 7})}.e30.e30", "no key|no token"),
]


async def test_forged_tokens(desk: Desk) -> None:
    """What the provider has not signed so is refused, whatever its header says."""
    for forge_token, why in FORGERIES:
        await desk.refused(forge_token(desk), why)


async def test_a_kid_is_only_compared(desk: Desk) -> None:
    """A key's name leads to no file, no address and no other name."""
    for kid in (
        "../../../../dev/null",
        "/etc/passwd",
        "file:///etc/passwd",
        "' UNION SELECT 'x",
        "key-1\0",
        "KEY-1",
        "x" * 257,
        "key-\u0661",
    ):
        await desk.refused(desk.forge.token(desk.nonce, header={"kid": kid}), "no key")


async def test_addresses_in_the_header_are_not_followed(desk: Desk) -> None:
    """`jku` and `x5u` are asked by nobody: the provider's own keys are the only ones."""
    key = rsa_key(78)
    theirs = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "theirs"}
    for name in ("jku", "x5u"):
        header = {"kid": "theirs", name: f"{desk.forge.issuer}/theirs", "x5c": ["x"], "jwk": theirs}
        token = jwt.encode(desk.forge.claims(desk.nonce), key, "RS256", header)
        await desk.refused(token, "no key of the provider's")
    assert "/theirs" not in desk.forge.asked


async def test_too_long(desk: Desk) -> None:
    """An oversized token is refused before anything is made of it; the longest that is allowed is not."""
    with pytest.raises(InvalidRequest, match=str(MAX_TOKEN_LENGTH)):
        await desk.present(desk.forge.token(desk.nonce, filler="x" * MAX_TOKEN_LENGTH))
    room = MAX_TOKEN_LENGTH - len(desk.forge.token(desk.nonce, filler=""))
    assert (
        await desk.present(desk.forge.token(desk.nonce, filler="x" * (room * 3 // 4 - 3)))
    ).username == "alice"


async def test_key_rotation(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is new is fetched, the old one counts no more, and nobody can make us ask often."""
    monkeypatch.setattr(oidc_keys, "_AGAIN_S", 0.0)
    old = desk.forge.token(desk.nonce)
    await desk.refused(desk.forge.token(desk.nonce, header={"kid": "unknown"}), "no key")
    desk.forge.rotate()
    fresh = desk.forge.token(desk.nonce)
    assert (await desk.present(fresh)).username == "alice"
    await desk.refused(old, "no key of the provider's")
    asked = desk.forge.asked["/jwks"]
    monkeypatch.setattr(oidc_keys, "_AGAIN_S", 3600.0)
    for number in range(20):
        await desk.refused(desk.forge.token(desk.nonce, header={"kid": f"guess-{number}"}), "no key")
    assert desk.forge.asked["/jwks"] == asked


async def test_keys_that_do_not_count(desk: Desk) -> None:
    """Short keys, keys for encryption, a secret among the keys, two of one name: none signs for anybody."""
    short = rsa_key(77, 1024)
    desk.forge.jwks = [
        RSAAlgorithm.to_jwk(short.public_key(), as_dict=True) | {"kid": "short"},
        RSAAlgorithm.to_jwk(desk.forge.key.public_key(), as_dict=True) | {"kid": "enc", "use": "enc"},
        RSAAlgorithm.to_jwk(desk.forge.key.public_key(), as_dict=True) | {"kid": "twice"},
        RSAAlgorithm.to_jwk(rsa_key(78).public_key(), as_dict=True) | {"kid": "twice"},
        RSAAlgorithm.to_jwk(desk.forge.key.public_key(), as_dict=True) | {"kid": "other", "alg": "RS512"},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        {"kty": "oct", "kid": "secret", "k": segment(b"0" * 32), "alg": "RS256"},
        "no key at all",
    ]
    with pytest.warns(jwt.warnings.InsecureKeyLengthWarning):
        small = jwt.encode(desk.forge.claims(desk.nonce), short, "RS256", {"kid": "short"})
    await desk.refused(small, "InvalidKeyError")
    for kid, why in (
        ("enc", "no key"),
        ("twice", "more than one"),
        ("other", "no key"),
        ("secret", "no key"),
    ):
        await desk.refused(desk.forge.token(desk.nonce, header={"kid": kid}), why)
    await desk.refused(desk.forge.token(desk.nonce, header={"kid": "broken"}), "cannot be read")
    await desk.refused(
        jwt.encode(desk.forge.claims(desk.nonce), desk.forge.key, "RS256"), "more than one|no key"
    )


async def test_a_curve_and_a_token_without_kid(desk: Desk) -> None:
    """A provider with one key need not name it, and it may be one of an elliptic curve."""
    key = ec.generate_private_key(ec.SECP256R1())
    desk.forge.jwks = [ECAlgorithm.to_jwk(key.public_key(), as_dict=True)]
    token = jwt.encode(desk.forge.claims(desk.nonce), key, "ES256")
    assert (await desk.present(token)).username == "alice"


@pytest.mark.slow
async def test_provider_away(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Down, slow, or full of nonsense: nobody is refused as wrong, nothing is granted, and it is recorded."""
    monkeypatch.setattr(oidc_keys, "_AGAIN_S", 0.0)
    token, discovery = desk.forge.token(desk.nonce), dict(desk.forge.discovery)
    nonsense: list[tuple[dict[str, Any], str]] = [
        ({"status": 500}, "answers 500"),
        ({"redirect": "/elsewhere"}, "answers 302"),
        ({"padding": "x" * 300_000}, "more than"),
        ({"discovery": discovery | {"issuer": "http://127.0.0.1:1"}}, "calls itself"),
        ({"discovery": discovery | {"jwks_uri": "http://192.0.2.1/jwks"}}, "jwks_uri"),
        ({"discovery": discovery | {"token_endpoint": "file:///etc/passwd"}}, "token_endpoint"),
        ({"jwks": ["x"] * 200}, "no list of keys"),
        ({"delay_s": 2.0}, "no answer in time"),
    ]
    for change, why in nonsense:
        before = {name: getattr(desk.forge, name) for name in change}
        for name, value in change.items():
            setattr(desk.forge, name, value)
        with pytest.raises(RemoteError, match="cannot be asked now"):
            await desk.present(token)
        last = desk.records()[-1]
        assert last["outcome"] == "error"
        assert why in last["reason"]
        for name, value in before.items():
            setattr(desk.forge, name, value)
    assert (await desk.present(token)).username == "alice"


@pytest.mark.parametrize("authority", ["ca.pem", "other_ca.pem", ""])
async def test_a_provider_proves_itself_by_tls(tmp_path: Path, oidc: OidcSettings, authority: str) -> None:
    """Only one with a certificate of those who may vouch for it, for its own name, is believed."""
    make_certificates(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    ca_file = tmp_path / authority if authority else None
    async with a_forge(tls) as forge:
        here = ProviderKeys(replace(oidc, issuer=forge.issuer, ca_file=ca_file))
        if authority == "ca.pem":
            assert (await here.provider()).token_endpoint == f"{forge.issuer}/token"
            forge.discovery["issuer"] = forge.issuer.replace("127.0.0.1", "localhost")
            there = ProviderKeys(replace(oidc, issuer=forge.discovery["issuer"], ca_file=ca_file))
            with pytest.raises(RemoteError) as caught:
                await there.provider()
        else:
            with pytest.raises(RemoteError) as caught:
                await here.provider()
    assert "CertificateError" in str(caught.value.__cause__)


@pytest.mark.slow
async def test_staff_can_ask_the_provider(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`check-provider` says what the provider says of itself, or why that cannot be told."""
    file = tmp_path / "signer.toml"
    file.write_text(
        'socket = "signer.sock"\nstate_dir = "state"\naudit_log = "a"\nsource_addresses = ["192.0.2.1"]\n'
        f'[proof]\nkind = "oidc"\nissuer = "{desk.forge.issuer}"\nclient_id = "hpchub"\n'
        'account_claim = "sub"\n'
    )
    args = argparse.Namespace(config=file, action="check-provider")
    assert await asyncio.to_thread(command.run, args) == 0
    assert f"codes are exchanged at: {desk.forge.issuer}/token\n" in capsys.readouterr().out
    desk.forge.status = 404
    assert await asyncio.to_thread(command.run, args) == 1
    assert "openid-configuration answers 404" in capsys.readouterr().out


async def test_known_keys_outlast_an_outage(desk: Desk) -> None:
    """While the provider does not answer, tokens that it has signed before are verified all the same."""
    await desk.signer.oidc_request()
    desk.forge.status = 500
    assert (await desk.present(desk.forge.token(desk.nonce))).username == "alice"


async def test_whose_account(desk: Desk) -> None:
    """Only a safe account name in the claim, and only with one of the groups."""
    for name in ("root", "a,b", "../x", "alice\n", "-oX", "", "\u0430lice", ["alice"], 7, None, "x" * 300):
        await desk.refused(desk.forge.token(desk.nonce, preferred_username=name), "account|claim")
    for groups in (None, [], ["HPC"], "guests", [["hpc"]], {"hpc": 1}):
        await desk.refused(desk.forge.token(desk.nonce, groups=groups), "in none of the groups .*'subject-1'")
    assert (await desk.present(desk.forge.token(desk.nonce, groups="admins"))).username == "alice"


async def test_second_factor_in_the_answer(
    settings: SignerSettings, oidc: OidcSettings, forge: Forge, user_key: Any
) -> None:
    """Asking for a second factor proves nothing: acr and a fresh auth_time must be in the answer."""
    strict = with_oidc(settings, replace(oidc, acr_values=(MFA,), max_age_s=600))
    async with running(strict):
        desk = Desk(SignerClient(strict.socket), forge, strict, user_key.public, new_salt())
        request = await desk.signer.oidc_request()
        assert (request.acr_values, request.max_age_s) == (MFA, 600)
        now = int(time.time())
        for acr in (None, "", "password", [MFA], MFA + "/", MFA.upper()):
            await desk.refused(forge.token(desk.nonce, acr=acr, auth_time=now), "acr_values")
        for at in (None, now - 700, now + 120, "now", True):
            await desk.refused(forge.token(desk.nonce, acr=MFA, auth_time=at), "auth_time")
        assert (await desk.present(forge.token(desk.nonce, acr=MFA, auth_time=now - 300))).username == "alice"
        assert desk.records()[-1]["factor"] == "oidc+acr"


async def test_other_audiences(
    settings: SignerSettings, oidc: OidcSettings, forge: Forge, user_key: Any
) -> None:
    """A token for another client too is taken where the site names that client, and azp names ours."""
    chosen = with_oidc(settings, replace(oidc, other_audiences=("wiki",)))
    async with running(chosen):
        desk = Desk(SignerClient(chosen.socket), forge, chosen, user_key.public, new_salt())
        for azp in (None, "wiki"):
            await desk.refused(forge.token(desk.nonce, aud=["hpchub", "wiki"], azp=azp), "azp")
        await desk.refused(forge.token(desk.nonce, aud=["wiki"], azp="hpchub"), "InvalidAudience")
        assert await desk.present(forge.token(desk.nonce, aud=["hpchub", "wiki"], azp="hpchub"))


async def test_no_password_and_no_other_way_in(desk: Desk, signer_with_passwords: SignerClient) -> None:
    """With `oidc` no password is taken, and a signer with passwords takes no token."""
    with pytest.raises(NotAllowed):
        await desk.signer.grant("alice", Secret("canary-alice-77"), desk.public_key, SOURCE)
    with pytest.raises(NotAllowed):
        await signer_with_passwords.grant_by_id_token(Secret("a.b.c"), desk.salt, desk.public_key, SOURCE)
    with pytest.raises(NotAllowed):
        await signer_with_passwords.oidc_request()


@pytest.fixture
async def signer_with_passwords(settings: SignerSettings) -> AsyncIterator[SignerClient]:
    other = replace(settings, socket=settings.socket.parent.with_name("run3") / "signer.sock")
    async with running(other):
        yield SignerClient(other.socket)


async def test_who_was_refused(desk: Desk) -> None:
    """Whoever the provider has proven, and may not log in all the same, is named in the audit log."""
    await desk.signer.revoke("alice", reason="test", by="tests")
    await desk.refused(desk.forge.token(desk.nonce), "revoked")
    last = desk.records()[-1]
    assert (last["user"], last["factor"]) == ("alice", "oidc")


async def test_an_account_taken_out_of_the_file(
    settings: SignerSettings, oidc: OidcSettings, forge: Forge, user_key: Any, tmp_path: Path
) -> None:
    """Who is in account_file is let in, and once taken out of it gets no further certificate."""
    file = tmp_path / "subjects"
    file.touch(0o600)
    file.write_text("# made by the portal\nalice:subject-1\n")
    mapped = replace(oidc, account_claim="", account_file=file)
    chosen = with_oidc(settings, mapped)
    async with running(chosen):
        desk = Desk(SignerClient(chosen.socket), forge, chosen, user_key.public, new_salt())
        await desk.refused(forge.token(desk.nonce, sub="subject-2"), "not have .*'subject-2'")
        login = await desk.present(forge.token(desk.nonce, preferred_username="mallory"))
        assert login.username == "alice"
        file.write_text("")
        await desk.signer.certificate(login.grant, desk.public_key, Profile.CONTROL)  # fine a moment ago
    async with running(chosen):
        with pytest.raises(NotAllowed, match="has ended"):
            await SignerClient(chosen.socket).certificate(login.grant, desk.public_key, Profile.CONTROL)
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="0644"):
        async with running(chosen):
            pass
