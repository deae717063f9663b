"""LDAP: Debian's OpenLDAP is asked over TLS and a local socket, by people good and bad."""

from __future__ import annotations

import json
import logging
import re
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpchub.core.secret import Secret
from hpchub.errors import ConfigError, NotAllowed, RemoteError, SiteError
from hpchub.signer import ldap_proof, server
from hpchub.signer.child import Answer, ask_child
from hpchub.signer.client import SignerClient
from hpchub.signer.guessing import GuessLimits
from hpchub.signer.ldap_proof import LdapProof
from hpchub.signer.ldap_settings import LdapSettings
from hpchub.signer.proofs import Accepted, Refused
from hpchub.signer.server import make_proof, running
from hpchub.signer.settings import ProofKind, ProofSettings, SignerSettings
from support.children import watched_children
from support.directory import BASE, PASSWORD, PEOPLE, STAFF_DN, STAFF_PASSWORD, Directory, a_directory

HPC = f"cn=hpc,ou=groups,{BASE}"
TEAM = f"cn=team,ou=groups,{BASE}"
CHILD = Path(ldap_proof.__file__).with_name("ldap_child.py")

Proof = Callable[..., LdapProof]


@pytest.fixture
def by_dn(directory: Directory) -> Proof:
    """A proof that binds as a DN made of the name; a refusal is told at once."""

    def make(**changes: Any) -> LdapProof:
        settings = LdapSettings(
            servers=(directory.ldaps,),
            ca_file=directory.ca,
            user_dn=f"uid={{account}},{PEOPLE}",
            timeout_s=10,
        )
        return LdapProof(replace(settings, **changes), refusal_s=0)

    return make


@pytest.fixture
def by_search(directory: Directory, tmp_path: Path) -> Proof:
    """A proof that searches first, with a service account."""
    file = tmp_path / "ldap_password"
    file.touch(0o600)
    file.write_text(STAFF_PASSWORD + "\n")

    def make(**changes: Any) -> LdapProof:
        settings = LdapSettings(
            servers=(directory.ldaps,),
            ca_file=directory.ca,
            search_base=BASE,
            search_filter="(uid={account})",
            search_dn=STAFF_DN,
            search_password_file=file,
            timeout_s=10,
        )
        return LdapProof(replace(settings, **changes), refusal_s=0)

    return make


@pytest.fixture(params=["by_dn", "by_search"])
def either(request: pytest.FixtureRequest) -> Proof:
    made: Proof = request.getfixturevalue(request.param)
    return made


@contextmanager
def a_silent_server() -> Iterator[tuple[int, list[Any]]]:
    """A port that takes connections and says nothing; and the connections."""
    taken: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield server.getsockname()[1], taken
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in taken:
                connection.close()


# The request of RFC 4511, section 4.14.1, as message 1, and its answer: success.
_START_TLS = b"0\x1d\x02\x01\x01w\x18\x80\x161.3.6.1.4.1.1466.20037"
_STARTED = b"0\x0c\x02\x01\x01x\x07\n\x01\x00\x04\x00\x04\x00"


@contextmanager
def a_broken_server(directory: Directory, *, start_tls: bool, says: bytes) -> Iterator[tuple[int, bytearray]]:
    """A port with the directory's certificate that says one thing over TLS and closes; what came in clear."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory.folder / "server.pem", directory.folder / "server.key")
    clear = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection = server.accept()[0]
                except OSError:
                    return
                with connection:
                    if start_tls:
                        clear.extend(connection.recv(4096))
                        connection.sendall(_STARTED)
                    with context.wrap_socket(connection, server_side=True) as secured:
                        secured.sendall(says)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1], clear
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


_ASKED = re.compile(r" op=\d+ (?:(BIND) .*method=|(SRCH) base=|(EXT) oid=)")


def asked(directory: Directory, since: int) -> list[str]:
    """The kinds of question in the directory's log, for example BIND."""
    found = (_ASKED.search(line) for line in directory.log()[since:])
    return [match[match.lastindex or 0] for match in found if match]


@pytest.mark.parametrize("way", ["ldaps", "ldap", "ldapi"])
def test_the_right_password_is_accepted(either: Proof, directory: Directory, way: str) -> None:
    """Over TLS, StartTLS and the local socket; by a DN made of the name, and by search."""
    proof = either(servers=(getattr(directory, way),), ca_file=None if way == "ldapi" else directory.ca)
    proof.check()
    assert proof.verify("alice", Secret(PASSWORD)) == Accepted("alice", "password")
    assert proof.verify("alice", Secret(PASSWORD + "x")) == Refused("LDAP: invalidCredentials")


@pytest.mark.parametrize(
    ("username", "reason"),
    [
        ("nobody.here", "LDAP: not exactly one entry of that name"),
        ("carol", "LDAP: invalidCredentials"),  # locked by the password policy
        ("dora", "LDAP: invalidCredentials"),  # the password has expired
        ("erin", "LDAP: the account has expired"),
        ("low", "LDAP: uidNumber 999 is too low"),
        ("zero", "LDAP: uidNumber 0 is too low"),
        ("double", "LDAP: uid has 2 values"),
        ("greta", "LDAP: unsafe account name"),  # the directory found a look-alike
        ("twin", "LDAP: not exactly one entry of that name"),
        ("rita", "LDAP: not exactly one entry of that name"),  # a referral
        ("root", "unsafe account name"),
        ("alice)(uid=*", "unsafe account name"),
        ("\uff41lice", "unsafe account name"),
        ("x" * 8000, "unsafe account name"),
    ],
)
def test_who_is_refused_by_search(by_search: Proof, directory: Directory, username: str, reason: str) -> None:
    """With the right password: locked, expired, system, ambiguous, elsewhere; one search and bind each."""
    since = len(directory.log())
    assert by_search().verify(username, Secret(PASSWORD)) == Refused(reason)
    assert asked(directory, since)[:3] == ["BIND", "SRCH", "BIND"]  # in this order for everybody


@pytest.mark.parametrize(
    ("username", "reason"),
    [
        ("nobody.here", "LDAP: invalidCredentials"),
        ("carol", "LDAP: invalidCredentials"),
        ("erin", "LDAP: the account has expired"),
        ("zero", "LDAP: uidNumber 0 is too low"),
        ("greta", "LDAP: unsafe account name"),
        ("alice,ou=people", "unsafe account name"),
    ],
)
def test_who_is_refused_by_dn(by_dn: Proof, directory: Directory, username: str, reason: str) -> None:
    """The same, where a DN is made of the name: one bind each."""
    since = len(directory.log())
    assert by_dn().verify(username, Secret(PASSWORD)) == Refused(reason)
    assert asked(directory, since)[:1] == ["BIND"]


@pytest.mark.parametrize("password", ["", "\0", f"{PASSWORD}\0", "x" * 8000, "\ud800"])
def test_an_unusable_password_is_never_sent(by_dn: Proof, directory: Directory, password: str) -> None:
    """An empty password would succeed here, as nobody's: the directory is not asked about alice."""
    since = len(directory.log())
    assert by_dn().verify("alice", Secret(password)) == Refused("unusable password")
    assert not any("alice" in line for line in directory.log()[since:])
    assert "BIND" in asked(directory, since)


@pytest.mark.parametrize("username", ["*", "alice)(|(uid=*", "\\61lice"])
def test_the_child_escapes_by_itself(either: Proof, directory: Directory, username: str) -> None:
    """Names that the signer would never pass on find nobody either, in a filter or in a DN."""
    question = either()._question() | {"server": directory.ldaps, "username": username}
    assert ask_child(CHILD, question | {"password": PASSWORD}, 10).ok is False


def test_the_child_sends_no_empty_password(either: Proof, directory: Directory) -> None:
    """Not even where the signer would pass one on."""
    question = either()._question() | {"server": directory.ldaps, "username": "alice", "password": ""}
    assert ask_child(CHILD, question, 10) == Answer(False, "an empty name or password")


@pytest.mark.parametrize(
    ("username", "changes", "verdict"),
    [
        ("frank", {"groups": (HPC, TEAM)}, Refused("LDAP: in none of the groups")),
        ("bob", {"user_filter": f"(memberOf={TEAM})"}, Accepted("bob", "password")),
        (
            "alice",
            {"user_filter": f"(memberOf={TEAM})"},
            Refused("LDAP: user_filter does not let that entry in"),
        ),
        ("henry", {}, Accepted("Henry", "password")),
        ("ALICE", {}, Accepted("alice", "password")),
        ("alice", {"account_attribute": "employeeType"}, Accepted("asmith", "password")),
        ("mallory", {"account_attribute": "employeeType"}, Refused("LDAP: unsafe account name")),
        ("bob", {"account_attribute": "employeeType"}, Refused("LDAP: employeeType has 0 values")),
        ("low", {"min_uid_number": 500}, Accepted("low", "password")),
    ],
)
def test_filters_and_names(
    by_search: Proof, username: str, changes: dict[str, Any], verdict: Accepted | Refused
) -> None:
    """memberOf lets in; the account is the attribute's, whatever was typed."""
    assert by_search(**changes).verify(username, Secret(PASSWORD)) == verdict


def test_groups(either: Proof) -> None:
    """memberUid and member let in, whoever reads the group: the service account or the person."""
    assert either(groups=(HPC,)).verify("alice", Secret(PASSWORD)) == Accepted("alice", "password")
    assert either(groups=(HPC, TEAM)).verify("bob", Secret(PASSWORD)) == Accepted("bob", "password")
    assert either(groups=(HPC,)).verify("bob", Secret(PASSWORD)) == Refused("LDAP: in none of the groups")


def test_a_dn_of_all_that_needs_escaping(by_search: Proof) -> None:
    """Commas, quotes, parentheses and asterisks in a found DN: the bind and the group are that person's."""
    proof = by_search(groups=(TEAM,))
    assert proof.verify("jdoe", Secret(PASSWORD)) == Accepted("jdoe", "password")
    assert proof.verify("jdoe", Secret("wrong")) == Refused("LDAP: invalidCredentials")


def test_a_group_that_is_not_there_is_an_error(either: Proof) -> None:
    """A mistyped group keeps everybody out, and is no wrong password."""
    with pytest.raises(RemoteError) as caught:
        either(groups=(f"cn=typo,{BASE}",)).verify("alice", Secret(PASSWORD))
    assert "noSuchObject" in str(caught.value.__cause__)


def test_referrals_are_never_followed(by_search: Proof, by_dn: Proof, directory: Directory) -> None:
    """The server that they name is listening, and nobody comes."""
    with socket.create_server(("127.0.0.1", directory.referral_port)) as elsewhere:
        assert by_search().verify("rita", Secret(PASSWORD)).__class__ is Refused
        assert by_dn().verify("rita", Secret(PASSWORD)).__class__ is Refused
        away = by_dn(user_dn=f"uid={{account}},ou=away,{BASE}")
        assert away.verify("alice", Secret(PASSWORD)).__class__ is Refused
        with pytest.raises(RemoteError) as caught:
            by_search(search_base=f"ou=away,{BASE}").verify("alice", Secret(PASSWORD))
        assert "referral" in str(caught.value.__cause__)
        elsewhere.setblocking(False)
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


@pytest.mark.parametrize("way", ["ldaps", "ldap"])
def test_a_server_that_cannot_prove_itself_gets_no_password(
    either: Proof, directory: Directory, way: str
) -> None:
    """Another authority, or another name than the certificate's: an error, before any bind."""
    url = getattr(directory, way)
    since = len(directory.log())
    for changes in (
        {"servers": (url,), "ca_file": directory.other_ca},
        {"servers": (url.replace("127.0.0.1", "localhost"),)},
    ):
        with pytest.raises(RemoteError, match="cannot be checked now") as caught:
            either(**changes).verify("alice", Secret(PASSWORD))
        assert "CERTIFICATE_VERIFY_FAILED" in str(caught.value.__cause__)
    assert "BIND" not in asked(directory, since)


def test_no_password_in_clear(either: Proof, tmp_path: Path) -> None:
    """A server that refuses StartTLS is not asked."""
    folder = tmp_path / "d"
    folder.mkdir()
    with a_directory(folder, tls=False) as plain:
        with pytest.raises(RemoteError) as caught:
            either(servers=(plain.ldap,)).verify("alice", Secret(PASSWORD))
        assert "startTLS failed" in str(caught.value.__cause__)
        assert asked(plain, 0) == ["EXT"]


def test_a_server_that_speaks_something_else(by_dn: Proof, directory: Directory) -> None:
    """Nonsense over a good certificate is no answer; the next server is asked."""
    with a_broken_server(directory, start_tls=False, says=b"0\x84\xff\xff nonsense" * 9) as (port, clear):
        proof = by_dn(servers=(f"ldaps://127.0.0.1:{port}", directory.ldaps))
        assert proof.verify("alice", Secret(PASSWORD)) == Accepted("alice", "password")
        with pytest.raises(RemoteError, match="cannot be checked now"):
            by_dn(servers=(f"ldaps://127.0.0.1:{port}",)).verify("alice", Secret(PASSWORD))
    assert clear == b""


def test_a_connection_lost_after_starttls(either: Proof, directory: Directory) -> None:
    """No second connection is made, in clear, to send the password over."""
    with (
        a_broken_server(directory, start_tls=True, says=b"") as (port, clear),
        pytest.raises(RemoteError, match="cannot be checked now"),
    ):
        either(servers=(f"ldap://127.0.0.1:{port}",)).verify("alice", Secret(PASSWORD))
    assert clear == _START_TLS


@pytest.mark.slow
def test_servers_are_asked_in_turn(either: Proof, directory: Directory) -> None:
    """One that is away, and one that hangs, cost their time once; the next login starts with the good one."""
    with a_silent_server() as (port, taken):
        hanging, away = f"ldaps://127.0.0.1:{port}", f"ldaps://127.0.0.1:{directory.referral_port}"
        proof = either(servers=(away, hanging, directory.ldaps), timeout_s=2)
        assert proof.verify("alice", Secret(PASSWORD)) == Accepted("alice", "password")
        assert len(taken) == 1
        assert proof.verify("alice", Secret("wrong")) == Refused("LDAP: invalidCredentials")
        assert len(taken) == 1
        with pytest.raises(RemoteError, match="cannot be checked now") as caught:
            either(servers=(away, hanging), timeout_s=2).verify("alice", Secret(PASSWORD))
        said = str(caught.value.__cause__)
        assert "refused" in said and "no answer in time" in said
        assert caught.value.retryable


def test_the_service_account_s_password(by_search: Proof, tmp_path: Path) -> None:
    """Wrong: nobody can tell. Loose, empty, gone: the signer does not start. A new one counts at once."""
    proof, file = by_search(), tmp_path / "ldap_password"
    assert proof.verify("alice", Secret(PASSWORD)) == Accepted("alice", "password")
    file.write_text("wrong")
    with pytest.raises(RemoteError) as caught:
        proof.verify("alice", Secret(PASSWORD))
    assert "service account was refused: invalidCredentials" in str(caught.value.__cause__)
    file.write_text(STAFF_PASSWORD)
    assert proof.verify("alice", Secret(PASSWORD)) == Accepted("alice", "password")
    for spoil in (lambda: file.chmod(0o640), lambda: file.write_text(""), file.unlink):
        spoil()
        with pytest.raises(ConfigError):
            make_proof(ProofSettings(kind=ProofKind.LDAP, ldap=proof.settings))
        with pytest.raises(SiteError) as told:
            proof.verify("alice", Secret(PASSWORD))
        assert str(file) not in told.value.message and str(file) in str(told.value.__cause__)
        file.touch(0o600)
        file.chmod(0o600)


def test_a_file_without_authorities(by_dn: Proof, tmp_path: Path) -> None:
    """The signer does not start without something to verify certificates with."""
    for content in (None, "", "not a certificate"):
        file = tmp_path / "ca.pem"
        if content is not None:
            file.write_text(content)
        with pytest.raises(ConfigError, match="holds no certificates"):
            by_dn(ca_file=file).check()


@pytest.mark.slow
async def test_refusals_take_the_same_time(
    by_search: Proof,
    settings: SignerSettings,
    user_key: Any,
    other_key: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Unknown, unsafe, wrong; right, but revoked or made to wait: told at the same moment.

    However long the directory took. Whoever is let in does not wait.
    """
    proof = by_search()
    assert LdapProof(proof.settings).refusal_s == 1.0
    monkeypatch.setattr(server, "make_proof", lambda _settings: proof)
    changed = replace(settings, guessing=GuessLimits(free_tries=1))
    client = SignerClient(settings.socket)

    async def refused_after(username: str, password: str) -> float:
        began = time.monotonic()
        with pytest.raises(NotAllowed):
            await client.grant(username, Secret(password), user_key.public, f"198.51.100.{len(username)}")
        return time.monotonic() - began

    async with running(changed):
        proof.refusal_s = 3600.0
        await client.grant("Henry", Secret(PASSWORD), other_key.public, "198.51.100.7")
        proof.refusal_s = 0.5
        await client.revoke("bob", reason="", by="staff")
        pairs = [("alice", "wrong"), ("nobody.here", "wrong"), ("root", "wrong"), ("bob", PASSWORD)]
        assert min([await refused_after(*pair) for pair in [*pairs, ("alice", PASSWORD)]]) >= 0.5
    reasons = [json.loads(line)["reason"] for line in settings.audit_log.read_text().splitlines()]
    assert reasons[-2] == "revoked" and reasons[-1].endswith("it was right")


@pytest.mark.parametrize(
    ("account", "problem"),
    [
        ("alice", ""),
        ("bob", ""),
        ("frank", ""),
        ("carol", "LDAP: the account is locked"),
        ("erin", "LDAP: the account has expired"),
        ("low", "LDAP: uidNumber 999 is too low"),
    ],
)
def test_an_account_without_its_password(by_search: Proof, account: str, problem: str) -> None:
    """The service account sees whether the entry is locked or has expired."""
    assert by_search().account_problem(account) == problem


def test_an_account_that_is_let_in_no_more(by_search: Proof) -> None:
    """Out of the site's filter, or of its groups."""
    assert by_search(user_filter="(uidNumber=20002)").account_problem("bob") == ""
    outside = by_search(user_filter="(uidNumber=20001)").account_problem("bob")
    assert outside == "LDAP: user_filter does not let that entry in"
    assert by_search(groups=(HPC,)).account_problem("alice") == ""
    assert by_search(groups=(HPC,)).account_problem("bob") == "LDAP: in none of the groups"


@pytest.mark.parametrize("account", ["nobody.here", "henry", "twin"])
def test_an_account_of_which_the_directory_cannot_tell(by_search: Proof, account: str) -> None:
    """Not found, found under another spelling, found twice: nobody is locked out for that."""
    with pytest.raises(RemoteError, match="Accounts cannot be checked"):
        by_search().account_problem(account)


def test_a_directory_that_is_away_locks_nobody_out(by_search: Proof) -> None:
    """It cannot be told."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(RemoteError, match="Accounts cannot be checked"):
        by_search(servers=(f"ldaps://127.0.0.1:{port}",)).account_problem("alice")


def test_who_cannot_look_knows_nothing_against_anybody(
    by_dn: Proof, by_search: Proof, directory: Directory
) -> None:
    """Without a service account, or where something else than accounts is searched for: not even asked."""
    since = len(directory.log())
    assert by_dn().account_problem("carol") == ""
    assert by_search(search_filter="(employeeType={account})").account_problem("carol") == ""
    assert asked(directory, since) == []


@pytest.mark.parametrize(
    ("entry", "locked"),
    [
        ({}, False),
        ({"pwdaccountlockedtime": [b"20260102030405Z"]}, False),
        ({"pwdaccountlockedtime": [b"000001010000Z"]}, True),
        ({"nsaccountlock": [b"FALSE"]}, False),
        ({"nsaccountlock": [b"TRUE"]}, True),
        ({"useraccountcontrol": [b"512"]}, False),
        ({"useraccountcontrol": [b"514"]}, True),
    ],
)
def test_how_directories_write_a_lock(entry: dict[str, list[bytes]], locked: bool) -> None:
    """OpenLDAP, 389 Directory Server and FreeIPA, Active Directory; a lock for a while is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # ldap3's own
        from hpchub.signer import ldap_child
    if locked:
        with pytest.raises(ldap_child.No, match="locked"):
            ldap_child.refuse_locked(entry)
    else:
        ldap_child.refuse_locked(entry)


@pytest.mark.slow
async def test_the_password_is_nowhere(
    by_search: Proof,
    settings: SignerSettings,
    user_key: Any,
    directory: Directory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not in a log, the audit log, the directory's log, a repr, an error, a child's argv or environment."""
    caplog.set_level(logging.DEBUG)
    proof = by_search()
    changed = replace(settings, proof=ProofSettings(kind=ProofKind.LDAP, ldap=proof.settings))
    client = SignerClient(settings.socket)
    said = [repr(proof), repr(changed)]
    async with running(changed):
        with watched_children("ldap_child.py") as seen:
            granted = await client.grant("ALICE", Secret(PASSWORD), user_key.public, "198.51.100.7")
            with pytest.raises(NotAllowed) as refused:
                await client.grant("carol", Secret(PASSWORD), user_key.public, "198.51.100.7")
    assert granted.username == "alice"
    assert len(seen) == 2
    said += [str(refused.value), caplog.text, settings.audit_log.read_text(), *directory.log(), *seen]
    for secret in (PASSWORD, json.dumps(PASSWORD)[1:-1], STAFF_PASSWORD):
        assert not any(secret in text for text in said)
    first, second = (json.loads(line) for line in settings.audit_log.read_text().splitlines())
    assert (first["user"], first["outcome"], first["factor"]) == ("alice", "granted", "password")
    assert (second["outcome"], second["reason"]) == ("refused", "LDAP: invalidCredentials")
