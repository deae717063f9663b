"""Kerberos: Debian's MIT KDC is asked, and another one that poses as it."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpchub.core.secret import Secret
from hpchub.errors import ConfigError, NotAllowed, RemoteError
from hpchub.signer import kerberos_proof
from hpchub.signer.child import Answer, ask_child
from hpchub.signer.client import SignerClient
from hpchub.signer.kerberos_proof import KerberosProof, KerberosSettings
from hpchub.signer.proofs import Accepted, Refused
from hpchub.signer.server import make_proof, running
from hpchub.signer.settings import ProofKind, ProofSettings, SignerSettings
from support.children import watched_children
from support.kdc import KRB5_CONF, PASSWORD, REALM, SERVICE, Kdc, a_kdc

CHILD = Path(kerberos_proof.__file__).with_name("kerberos_child.py")

Proof = Callable[..., KerberosProof]


@pytest.fixture
def proof(kdc: Kdc) -> Proof:
    """A proof of the realm; a refusal is told at once."""

    def make(**changes: Any) -> KerberosProof:
        settings = KerberosSettings(
            realm=REALM, service=SERVICE, keytab=kdc.keytab, krb5_conf=kdc.krb5_conf, timeout_s=10
        )
        return KerberosProof(replace(settings, **changes), refusal_s=0)

    return make


def tickets() -> set[Path]:
    """What Kerberos would leave in folders that everybody may write to."""
    return {path for folder in ("/tmp", "/var/tmp") for path in Path(folder).glob("krb5*")}


@pytest.mark.parametrize("username", ["alice", "bob", "Henry"])
def test_the_right_password_is_accepted(proof: Proof, kdc: Kdc, username: str) -> None:
    """With and without preauthentication; nothing is left on disk."""
    before = tickets()
    assert proof().verify(username, Secret(PASSWORD)) == Accepted(username, "password")
    assert f"{username}@{REALM} for {SERVICE}@{REALM}" in kdc.log()[-1]  # the KDC proved itself
    assert tickets() == before


@pytest.mark.parametrize(
    ("username", "password", "reason"),
    [
        ("alice", PASSWORD + "x", "Kerberos: Preauthentication failed"),
        ("bob", PASSWORD + "x", "Kerberos: Decrypt integrity check failed"),
        ("nobody.here", PASSWORD, f"Kerberos: Client 'nobody.here@{REALM}' not found in Kerberos database"),
        ("henry", PASSWORD, f"Kerberos: Client 'henry@{REALM}' not found in Kerberos database"),
        ("carol", PASSWORD, "Kerberos: Client's credentials have been revoked"),
        ("dora", PASSWORD, "Kerberos: Client's entry in database has expired"),
        ("erin", PASSWORD, "Kerberos: Password has expired"),
        ("root", PASSWORD, "unsafe account name"),
        ("alice/admin", PASSWORD, "unsafe account name"),
        (f"alice@{REALM}", PASSWORD, "unsafe account name"),
        ("alice\\", PASSWORD, "unsafe account name"),
        ("\uff41lice", PASSWORD, "unsafe account name"),
        ("x" * 8000, PASSWORD, "unsafe account name"),
        ("alice", "", "unusable password"),
        ("alice", PASSWORD + "\0", "unusable password"),
    ],
)
def test_who_is_refused(proof: Proof, kdc: Kdc, username: str, password: str, reason: str) -> None:
    """Wrong, unknown, locked, expired, never possible: the KDC is asked about each, and about no instance."""
    since = len(kdc.log())
    assert proof().verify(username, Secret(password)) == Refused(reason)
    asked = [line for line in kdc.log()[since:] if "AS_REQ" in line]
    assert asked
    assert any(f" {username}@" in line for line in asked) == (not reason.startswith("un"))


def test_an_account_that_the_kdc_locks(proof: Proof) -> None:
    """One wrong password too many, by the KDC's own policy: the right one is refused too."""
    assert proof().verify("gina", Secret(PASSWORD)) == Accepted("gina", "password")
    assert proof().verify("gina", Secret("wrong")) == Refused("Kerberos: Preauthentication failed")
    locked = Refused("Kerberos: Client's credentials have been revoked")
    assert proof().verify("gina", Secret(PASSWORD)) == locked


@pytest.mark.parametrize("username", ["alice/admin", f"alice@{REALM}", "alice@OTHER", "alice\\"])
def test_the_child_asks_for_plain_names_only(kdc: Kdc, username: str) -> None:
    """Even where the signer would pass such a name on."""
    question = {
        "realm": REALM,
        "service": SERVICE,
        "keytab": str(kdc.keytab),
        "krb5_conf": str(kdc.krb5_conf),
        "password": PASSWORD,
    }
    answer = ask_child(CHILD, question | {"username": username}, 10)
    assert answer == Answer(False, "a name with an instance or a realm")


def test_a_false_kdc_proves_nothing(proof: Proof, tmp_path: Path) -> None:
    """A KDC of the same realm, where everybody's password is the attacker's: an error, and never a yes."""
    with a_kdc(tmp_path, password="attacker") as false:
        asked = proof(krb5_conf=false.krb5_conf)
        with pytest.raises(RemoteError, match="cannot be checked now") as caught:
            asked.verify("alice", Secret("attacker"))
        assert "the KDC did not prove itself" in str(caught.value.__cause__)
        # The attack is a real one: with a key that the false KDC knows, it would have succeeded.
        fooled = replace(asked.settings, keytab=false.keytab)
        assert KerberosProof(fooled, 0).verify("alice", Secret("attacker")) == Accepted("alice", "password")


@pytest.mark.slow
def test_a_kdc_that_is_away_or_silent(proof: Proof, tmp_path: Path) -> None:
    """Neither says anything about the password."""
    conf = tmp_path / "krb5.conf"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        conf.write_text(KRB5_CONF.format(realm=REALM, port=port))
        with pytest.raises(RemoteError) as caught:
            proof(krb5_conf=conf, timeout_s=1).verify("alice", Secret(PASSWORD))
    assert "no answer in time" in str(caught.value.__cause__)
    conf.write_text(KRB5_CONF.format(realm="OTHER.TEST", port=port))
    with pytest.raises(RemoteError) as caught:
        proof(krb5_conf=conf).verify("alice", Secret(PASSWORD))
    assert "Cannot find KDC" in str(caught.value.__cause__)


def test_the_keytab_is_checked_at_the_start(proof: Proof, kdc: Kdc, tmp_path: Path) -> None:
    """Loose, missing, no keytab, or without the service's key: the signer does not start."""
    keytab = tmp_path / "keytab"

    def start(**changes: Any) -> None:
        make_proof(ProofSettings(kind=ProofKind.KERBEROS, kerberos=proof(**changes).settings))

    start()
    with pytest.raises(ConfigError, match="cannot be read"):
        start(keytab=keytab)
    keytab.write_bytes(kdc.keytab.read_bytes())
    keytab.chmod(0o644)
    with pytest.raises(ConfigError, match="others can reach it"):
        start(keytab=keytab)
    keytab.chmod(0o600)
    start(keytab=keytab)
    with pytest.raises(ConfigError, match="Kerberos cannot be used"):
        start(keytab=keytab, service="host/other.example.org")
    keytab.write_text("nonsense")
    with pytest.raises(ConfigError, match="Kerberos cannot be used"):
        start(keytab=keytab)
    with pytest.raises(RemoteError):
        proof(keytab=keytab).verify("alice", Secret(PASSWORD))


def test_capitals_where_the_kdc_knows_none(proof: Proof) -> None:
    """A site whose KDC takes ALICE for alice can have names with capitals refused."""
    strict = proof(lower_case_only=True)
    assert strict.verify("Henry", Secret(PASSWORD)) == Refused("Kerberos: a name with capitals")
    assert strict.verify("alice", Secret(PASSWORD)) == Accepted("alice", "password")


@pytest.mark.slow
async def test_the_password_is_nowhere(
    proof: Proof, settings: SignerSettings, user_key: Any, kdc: Kdc, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in a log, the audit log, a repr, an error, a child's argv or environment."""
    caplog.set_level(logging.DEBUG)
    made = proof()
    changed = replace(settings, proof=ProofSettings(kind=ProofKind.KERBEROS, kerberos=made.settings))
    client = SignerClient(settings.socket)
    said = [repr(made), repr(changed)]
    async with running(changed):
        with watched_children("kerberos_child.py") as seen:
            granted = await client.grant("alice", Secret(PASSWORD), user_key.public, "198.51.100.7")
            words = set()
            for username in ("carol", "nobody.here"):
                with pytest.raises(NotAllowed) as refused:
                    await client.grant(username, Secret(PASSWORD), user_key.public, "198.51.100.7")
                words.add(str(refused.value))
    assert granted.username == "alice"
    assert len(words) == 1 and len(seen) == 3
    said += [*words, caplog.text, settings.audit_log.read_text(), *kdc.log(), *seen]
    for secret in (PASSWORD, json.dumps(PASSWORD)[1:-1]):
        assert not any(secret in text for text in said)
