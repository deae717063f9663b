"""Kerberos tickets from browsers: Debian's MIT KDC makes them, curl sends them, the signer judges."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.core.toml_table import load_table
from hpchub.errors import ConfigError, NotAllowed, SiteError
from hpchub.signer import spnego_proof
from hpchub.signer.client import SignerClient
from hpchub.signer.factor_key import make_factor_key
from hpchub.signer.factor_settings import FactorSettings, Required
from hpchub.signer.kerberos_proof import KerberosSettings, SpnegoSettings, read_kerberos
from hpchub.signer.proofs import Accepted, Refused
from hpchub.signer.server import running
from hpchub.signer.settings import ProofKind, ProofSettings, SignerSettings
from hpchub.signer.spnego_proof import MAX_TOKEN_LENGTH, REPLAYS, SpnegoProof
from support.children import watched_children
from support.kdc import HTTP_SERVICE, KRB5_CONF, OTHER_REALM, PASSWORD, REALM, SERVICE, Kdc, a_kdc
from support.spnego import a_ticket, token_of

REFUSAL = "The hub does not let you in with that login."

Make = Callable[..., SpnegoProof]


@pytest.fixture
def kerberos(kdc: Kdc) -> KerberosSettings:
    """The realm, with SPNEGO."""
    spnego = SpnegoSettings(service=HTTP_SERVICE, keytab=kdc.http_keytab)
    return KerberosSettings(
        realm=REALM, service=SERVICE, keytab=kdc.keytab, krb5_conf=kdc.krb5_conf, spnego=spnego
    )


@pytest.fixture
def proof(kerberos: KerberosSettings, tmp_path: Path) -> Make:
    """A proof with a replay cache of the test's own."""

    def make(*, replays: Path = tmp_path / "replays", **changes: Any) -> SpnegoProof:
        settings = replace(kerberos, **changes)
        assert settings.spnego is not None
        return SpnegoProof(settings, settings.spnego, replays)

    return make


@pytest.fixture
def token(kdc: Kdc, tmp_path: Path) -> Callable[..., str]:
    """What somebody's browser would send."""

    def make(who: str = "alice", *, host: str = "hub.example.org", kdc: Kdc = kdc, **how: str) -> str:
        return token_of(kdc, a_ticket(kdc, tmp_path / "ccache", who, **how), host)

    return make


def spoiled(token: str) -> str:
    """The same with one bit changed within the encrypted part."""
    content = bytearray(base64.b64decode(token))
    content[-5] ^= 1
    return base64.b64encode(content).decode()


def test_a_ticket_counts_once(proof: Make, token: Callable[..., str], tmp_path: Path) -> None:
    """For the account, without a question to the KDC; a second time it is a replay, in each process."""
    sent = token()
    assert proof(krb5_conf=_without_kdc(tmp_path)).verify(Secret(sent)) == Accepted("alice", "kerberos")
    replayed = Refused("Kerberos: Request is a replay")
    assert proof().verify(Secret(sent)) == replayed
    assert proof().verify(Secret(sent)) == replayed
    assert (tmp_path / "replays").stat().st_mode & 0o777 == 0o600
    # The cache is what refuses it: a signer that had never seen it would not.
    assert proof(replays=tmp_path / "others").verify(Secret(sent)) == Accepted("alice", "kerberos")


def _without_kdc(folder: Path) -> Path:
    conf = folder / "krb5.conf"
    conf.write_text(KRB5_CONF.format(realm=REALM, port=1))
    return conf


def test_whose_ticket_is_refused(proof: Make, token: Callable[..., str]) -> None:
    """A namesake from a realm that the KDC trusts, an instance, and capitals where the KDC knows none."""
    namesake = Refused(f"Kerberos: 'alice@{OTHER_REALM}' is of another realm")
    assert proof().verify(Secret(token(realm=OTHER_REALM))) == namesake
    odd = Refused(f"Kerberos: 'alice/admin@{REALM}' has an instance or an odd name")
    assert proof().verify(Secret(token("alice/admin"))) == odd
    capitals = Refused("Kerberos: a name with capitals")
    assert proof(lower_case_only=True).verify(Secret(token("Henry"))) == capitals
    assert proof().verify(Secret(token("Henry"))) == Accepted("Henry", "kerberos")


def test_a_ticket_for_somebody_elses_service(proof: Make, token: Callable[..., str]) -> None:
    """One for another web server is refused, though its key is in the same keytab."""
    verdict = proof().verify(Secret(token(host="localhost")))
    assert isinstance(verdict, Refused)
    assert f"HTTP/localhost@{REALM}" in verdict.reason
    here = SpnegoSettings(service="HTTP/localhost", keytab=proof()._spnego.keytab)
    assert proof(spnego=here).verify(Secret(token(host="localhost"))) == Accepted("alice", "kerberos")


def test_a_false_kdc_and_a_spoiled_ticket(proof: Make, token: Callable[..., str], tmp_path: Path) -> None:
    """What was not made with the site's key, or was changed on the way, is no ticket."""
    folder = tmp_path / "false"
    folder.mkdir()
    with a_kdc(folder) as false:
        sent = token(kdc=false)
    assert isinstance(proof().verify(Secret(sent)), Refused)
    assert proof().verify(Secret(spoiled(token()))) == Refused("Kerberos: Decrypt integrity check failed")


@pytest.mark.slow
def test_an_expired_ticket(proof: Make, token: Callable[..., str], kdc: Kdc, tmp_path: Path) -> None:
    """One that was good when it was sent, and one that still is but was sent a while ago: a thief's."""
    conf = tmp_path / "krb5.conf"
    conf.write_text(kdc.krb5_conf.read_text().replace("[realms]", "clockskew = 1\n[realms]"))
    short, long = Secret(token(life="3s")), Secret(token())
    time.sleep(5)
    assert proof(krb5_conf=conf).verify(short) == Refused("Kerberos: Ticket expired")
    assert proof(krb5_conf=conf).verify(long) == Refused("Kerberos: Clock skew too great")
    # Clocks may usually be five minutes off.
    assert proof(replays=tmp_path / "others").verify(short) == Accepted("alice", "kerberos")


@pytest.mark.parametrize(
    ("principal", "why"),
    [
        ("alice@OTHER.TEST", "is of another realm"),
        (f"alice@{REALM}.OTHER", "is of another realm"),
        (f"alice@{REALM.lower()}", "is of another realm"),
        (f"alice\\@OTHER@{REALM}", "is of another realm"),
        ("alice", "is of another realm"),
        (f"host/node@{REALM}", "has an instance"),
        (f"alice\\n@{REALM}", "has an instance"),
        (f"@{REALM}", "has an instance"),
    ],
)
def test_principals_that_are_nobodys(principal: str, why: str) -> None:
    """Only NAME@REALM with the site's own realm is an account; `\\` stands before odd characters."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import spnego_child as c\n"
    code += "try: print(c.account_of(*sys.argv[2:]))\nexcept c.No as no: print('no:', no)"
    folder = str(Path(spnego_proof.__file__).parent)
    argv = [sys.executable, "-S", "-c", code, folder, principal, REALM]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert said.startswith("no:") and why in said


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (base64.b64encode(b"NTLMSSP\0\1\0\0\0").decode(), "NTLM"),
        (base64.b64encode(b"\x61\x00").decode(), "a token that is not SPNEGO's"),
        ("", "a token that is not SPNEGO's"),
        ("!!!!", "a token that is not base64"),
        ("\udc00\u00e4", "a token that is not base64"),
        ("YIIC" * (MAX_TOKEN_LENGTH // 4 + 1), "a token that is too long"),
    ],
)
def test_what_is_no_token(proof: Make, token: str, why: str) -> None:
    """NTLM, nonsense and what is too long cost no process, and need no keytab."""
    nowhere = SpnegoSettings(service=HTTP_SERVICE, keytab=Path("/nowhere"))
    assert proof(spnego=nowhere).verify(Secret(token)) == Refused(f"Kerberos: {why}")


def test_other_mechanisms(proof: Make, token: Callable[..., str]) -> None:
    """Bare Kerberos, NTLM within SPNEGO, and damaged SPNEGO are refused."""
    whole = base64.b64decode(token())
    bare = whole[whole.index(bytes.fromhex("06092a864886f71201020201")) - 4 :]
    assert bare[0] == 0x60
    ntlm = bytes.fromhex("601f06062b0601050502a0153013a00e300c060a2b06010401823702020aa2010400")
    for content in (bare, ntlm, ntlm[:-2], b"\x60", b"\x60" * 3000, whole[:300]):
        verdict = proof().verify(Secret(base64.b64encode(content).decode()))
        assert isinstance(verdict, Refused), content[:20]


def test_what_is_checked_at_the_start(proof: Make, kdc: Kdc, tmp_path: Path) -> None:
    """A keytab that is loose or without the key, a folder that cannot be written to: no start."""
    proof().check()
    keytab = tmp_path / "keytab"
    keytab.write_bytes(kdc.http_keytab.read_bytes())
    keytab.chmod(0o640)
    with pytest.raises(ConfigError, match="others can reach it"):
        proof(spnego=SpnegoSettings(service=HTTP_SERVICE, keytab=keytab)).check()
    with pytest.raises(ConfigError, match="SPNEGO cannot be used"):
        proof(spnego=SpnegoSettings(service=HTTP_SERVICE, keytab=kdc.keytab)).check()
    with pytest.raises(ConfigError, match="SPNEGO cannot be used"):
        proof(replays=tmp_path / "no" / "such").check()
    with pytest.raises(SiteError, match="cannot be checked now"):
        proof(replays=tmp_path / "no" / "such").verify(Secret("YA=="))


def test_settings(tmp_path: Path) -> None:
    """A table of its own, both of whose keys are needed, for HTTP services only."""
    path = tmp_path / "proof.toml"
    most = f'realm = "{REALM}"\nservice = "{SERVICE}"\nkeytab = "k"\n'

    def read(text: str) -> KerberosSettings:
        path.write_text(most + text)
        return load_table(path, lambda table: read_kerberos(table, tmp_path), "wrong:")

    assert read("").spnego is None
    spnego = read('[spnego]\nservice = "HTTP/hub.example.org"\nkeytab = "http"').spnego
    assert spnego == SpnegoSettings(service="HTTP/hub.example.org", keytab=tmp_path / "http")
    for wrong in (
        'service = "HTTP/a"',
        'service = "host/a"\nkeytab = "k"',
        'service = "HTTP/a"\nkeytab = "k"\nx = 1',
    ):
        with pytest.raises(ConfigError):
            read(f"[spnego]\n{wrong}")


async def test_through_the_signer(
    settings: SignerSettings,
    kerberos: KerberosSettings,
    token: Callable[..., str],
    user_key: Any,
    other_key: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A ticket earns a grant for one key, once; all refusals say the same; no token is written anywhere."""
    changed = replace(settings, proof=ProofSettings(kind=ProofKind.KERBEROS, kerberos=kerberos))
    client, source = SignerClient(settings.socket), "198.51.100.7"
    first, admin = token(), token("alice/admin")
    async with running(changed):
        await client.ready()
        with watched_children("spnego_child.py") as seen:
            granted = await client.grant_by_ticket(Secret(first), user_key.public, source)
        assert granted.username == "alice"
        await client.certificate(granted.grant, user_key.public, Profile.CONTROL)
        with pytest.raises(NotAllowed):
            await client.certificate(granted.grant, other_key.public, Profile.CONTROL)
        for refused in (first, admin, spoiled(token()), "TlRMTVNTUAABAAAA", "x", "Y" * 60_000):
            with pytest.raises(NotAllowed) as told:
                await client.grant_by_ticket(Secret(refused), user_key.public, source)
            assert str(told.value) == REFUSAL
        # Passwords are taken as before.
        assert (await client.grant("alice", Secret(PASSWORD), user_key.public, source)).username == "alice"
    records = [json.loads(line) for line in settings.audit_log.read_text().splitlines()]
    logins = [one for one in records if one["event"] == "login"]
    assert [one["factor"] for one in logins if one["outcome"] == "granted"] == ["kerberos", "password"]
    assert {one["source"] for one in logins} == {source}
    reasons = [one["reason"] for one in logins if one["outcome"] == "refused"]
    assert "Request is a replay" in reasons[0] and "alice/admin" in reasons[1] and len(reasons) == 6
    written = [caplog.text, settings.audit_log.read_text(), *seen]
    written += [path.read_bytes().decode("latin-1") for path in settings.state_dir.iterdir()]
    assert (settings.state_dir / REPLAYS).exists() and len(seen) == 1
    for secret in (first[-200:], first[200:300], admin[-200:]):
        assert not any(secret in text for text in written)


async def test_a_second_factor_is_not_left_out(
    settings: SignerSettings, kerberos: KerberosSettings, token: Callable[..., str], user_key: Any
) -> None:
    """Who has to give one is sent to the form, in words that say so; others come in."""
    changed = replace(
        settings,
        proof=ProofSettings(kind=ProofKind.KERBEROS, kerberos=kerberos),
        second_factor=FactorSettings(required=Required.SOME, users=("alice",)),
    )
    make_factor_key(changed.factor_key)
    client = SignerClient(settings.socket)
    async with running(changed):
        with pytest.raises(NotAllowed, match="wants a second factor from you"):
            await client.grant_by_ticket(Secret(token()), user_key.public, "198.51.100.7")
        granted = await client.grant_by_ticket(Secret(token("bob")), user_key.public, "198.51.100.7")
    assert granted.username == "bob"
    assert "alice has to give a second factor" in settings.audit_log.read_text()


async def test_who_was_revoked(
    settings: SignerSettings, kerberos: KerberosSettings, token: Callable[..., str], user_key: Any
) -> None:
    """A ticket is no way around what staff have taken back, nor taken where it is not set up."""
    proof = ProofSettings(kind=ProofKind.KERBEROS, kerberos=kerberos)
    client, sent = SignerClient(settings.socket), Secret(token())
    async with running(replace(settings, proof=replace(proof, kerberos=replace(kerberos, spnego=None)))):
        with pytest.raises(NotAllowed, match="not taken here"):
            await client.grant_by_ticket(sent, user_key.public, "198.51.100.7")
    async with running(replace(settings, proof=proof)):
        await client.revoke("alice", reason="left", by="staff")
        with pytest.raises(NotAllowed, match=REFUSAL):
            await client.grant_by_ticket(sent, user_key.public, "198.51.100.7")
