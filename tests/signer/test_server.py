"""The whole signer behind its socket, through its client: who gets what, and what is recorded."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import asyncssh
import pytest

from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.errors import ConfigError, InvalidRequest, NotAllowed, ProcessAway, RemoteError, SiteError
from hpchub.remote.slurm_query import FORCED_COMMAND
from hpchub.signer import proving
from hpchub.signer.client import SignerClient
from hpchub.signer.keys import init_keys, load_ca_key, render_ca_public_key
from hpchub.signer.password_file import PasswordFileProof
from hpchub.signer.server import running
from hpchub.signer.settings import SignerSettings
from support import require
from support.folders import let_others_pass

SOURCE = "198.51.100.7"


def records(settings: SignerSettings) -> list[dict[str, str]]:
    return [json.loads(line) for line in settings.audit_log.read_text().splitlines()]


async def post(settings: SignerSettings, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(settings.socket))) as session,
        session.post(f"http://signer{path}", data=body) as response,
    ):
        return response.status, await response.json()


async def test_login_and_both_certificates(
    signer: SignerClient, settings: SignerSettings, passwords: dict[str, str], user_key: Any
) -> None:
    """Every account logs in as typed and mints; each act has one record that names the certificate."""
    await signer.health()
    authority_key = await signer.ca_public_key()
    assert authority_key == render_ca_public_key(load_ca_key(settings.state_dir))
    for name, password in passwords.items():
        login = await signer.grant(name, Secret(password), user_key.public, SOURCE)
        assert login.username == name
        for profile in (Profile.CONTROL, Profile.TUNNEL):
            minted = await signer.certificate(login.grant, user_key.public, profile)
            certificate = asyncssh.import_certificate(minted.certificate)
            assert certificate.principals == [name]
            last = records(settings)[-1]
            assert (last["serial"], last["key_id"]) == (str(minted.serial), minted.key_id)
            assert (last["user"], last["profile"], last["outcome"]) == (name, profile.value, "granted")
    found = records(settings)
    assert [record["event"] for record in found] == ["login", "certificate", "certificate"] * len(passwords)
    assert found[0]["source"] == SOURCE
    assert found[0]["fingerprint"] == user_key.private.get_fingerprint()
    assert found[0]["grant_id"] == found[1]["grant_id"] != found[3]["grant_id"]
    assert len({record["key_id"] for record in found}) == 1 + 2 * len(passwords)


async def test_two_clusters_may_differ_in_principals(settings: SignerSettings, user_key: Any) -> None:
    """The caller names one of the site's forms; the account in records and ledger stays the account."""
    policy = replace(settings.policy, principals=("hpchub:{account}", "{account}@beta"))
    async with running(replace(settings, policy=policy)):
        signer = SignerClient(settings.socket)
        assert await signer.principals() == policy.principals
        login = await signer.grant("alice", Secret("canary-alice-77"), user_key.public, SOURCE)
        for form, wanted in (("", "hpchub:alice"), ("{account}@beta", "alice@beta")):
            minted = await signer.certificate(login.grant, user_key.public, Profile.CONTROL, form)
            assert asyncssh.import_certificate(minted.certificate).principals == [wanted]
            assert (minted.account, minted.principal) == ("alice", wanted)
            assert minted.key_id.startswith("hpchub:alice:control:")
        with pytest.raises(InvalidRequest, match="makes no certificates"):
            await signer.certificate(login.grant, user_key.public, Profile.CONTROL, "{account}")
        query = await signer.query_certificate("slurmwatch", user_key.public, "{account}@beta")
        assert query.principal == "slurmwatch@beta"
        holdings = await signer.sessions()
        (row,), (asked,) = holdings.logins, holdings.queries
        assert (row["account"], len(row["certificates"])) == ("alice", 2)
        assert (asked["account"], asked["serial"]) == ("slurmwatch", str(query.serial))
    assert {record["user"] for record in records(settings)} == {"alice", "slurmwatch"}


async def test_a_query_certificate(signer: SignerClient, settings: SignerSettings, user_key: Any) -> None:
    """A named account's is minted without a login, for the key that was brought, and recorded."""
    minted = await signer.query_certificate("slurmwatch", user_key.public)
    certificate = asyncssh.import_certificate(minted.certificate)
    assert (certificate.principals, certificate.options["force-command"]) == (["slurmwatch"], FORCED_COMMAND)
    assert minted.expires_at == minted.valid_before
    (record,) = records(settings)
    assert (record["event"], record["outcome"], record["user"]) == ("certificate", "granted", "slurmwatch")
    assert (record["profile"], record["factor"], record["grant_id"]) == ("query", "socket", "")
    assert (record["serial"], record["key_id"]) == (str(minted.serial), minted.key_id)
    assert record["fingerprint"] == user_key.private.get_fingerprint()


async def test_nobody_else_gets_a_query_certificate(
    signer: SignerClient, settings: SignerSettings, user_key: Any
) -> None:
    """Not a person, not root, not with a login of their own; each try is recorded."""
    for account in ("alice", "root", "slurmwatch,root", ""):
        with pytest.raises(NotAllowed, match="may not ask"):
            await signer.query_certificate(account, user_key.public)
    with pytest.raises(InvalidRequest):
        await signer.query_certificate("slurmwatch", "no key")
    login = await signer.grant("alice", Secret("canary-alice-77"), user_key.public, SOURCE)
    with pytest.raises(NotAllowed, match="not earned by a login"):
        await signer.certificate(login.grant, user_key.public, Profile.QUERY)
    found = [record for record in records(settings) if record["event"] == "certificate"]
    assert [record["outcome"] for record in found] == ["refused"] * 6
    assert {record["serial"] for record in found} == {""}
    assert {record["profile"] for record in found} == {"query"}


async def test_every_refusal_sounds_the_same(
    signer: SignerClient, settings: SignerSettings, user_key: Any
) -> None:
    """Wrong password, unknown user, locked account and unsafe names differ in the audit log alone."""
    tries = {
        ("alice", "wrong"): "wrong password",
        ("nobody.here", "x"): "unknown user",
        ("carol", "canary-carol-80"): "locked account",
        ("root", "x"): "unsafe account name",
        ("alice,bob", "canary-alice-77"): "unsafe account name",
        ("-oProxyCommand=x", "x"): "unsafe account name",
        ('x"}\n{"event": "login"', "x"): "unsafe account name",
        ("alice", ""): "unusable password",
    }
    said = set()
    for (name, password), _ in tries.items():
        with pytest.raises(NotAllowed) as caught:
            await signer.grant(name, Secret(password), user_key.public, SOURCE)
        said.add((caught.value.message, caught.value.hint, caught.value.status, caught.value.retryable))
    assert len(said) == 1
    found = records(settings)
    assert [record["reason"] for record in found] == list(tries.values())
    assert [record["user"] for record in found] == [name for name, _ in tries]
    assert {record["outcome"] for record in found} == {"refused"}
    assert {record["grant_id"] for record in found} == {""}


async def test_a_grant_is_for_one_key(
    signer: SignerClient, settings: SignerSettings, user_key: Any, other_key: Any
) -> None:
    """With another key, a forged grant or an unknown profile nothing is minted, and each is recorded."""
    login = await signer.grant("alice", Secret("canary-alice-77"), user_key.public, SOURCE)
    with pytest.raises(NotAllowed, match="another key"):
        await signer.certificate(login.grant, other_key.public, Profile.CONTROL)
    with pytest.raises(NotAllowed, match="not one of ours"):
        await signer.certificate(Secret(login.grant.reveal()[:-4] + "AAAA"), user_key.public, Profile.CONTROL)
    body = {"grant": login.grant.reveal(), "public_key": user_key.public, "profile": "everything"}
    status, answer = await post(settings, "/v1/certificates", json.dumps(body).encode())
    assert (status, set(answer["fields"])) == (422, {"profile"})
    found = records(settings)[1:]
    assert [record["outcome"] for record in found] == ["refused"] * 3
    assert [record["user"] for record in found] == ["alice", "", "alice"]
    assert {record["serial"] for record in found} == {""}


async def test_a_certificate_is_no_public_key(signer: SignerClient, user_key: Any) -> None:
    """A certificate sent in the place of a public key earns neither a grant nor a certificate."""
    login = await signer.grant("alice", Secret("canary-alice-77"), user_key.public, SOURCE)
    minted = await signer.certificate(login.grant, user_key.public, Profile.TUNNEL)
    with pytest.raises(InvalidRequest):
        await signer.grant("alice", Secret("canary-alice-77"), minted.certificate, SOURCE)
    with pytest.raises(InvalidRequest):
        await signer.certificate(login.grant, minted.certificate, Profile.TUNNEL)


async def test_grants_survive_a_restart_and_end_at_their_ceiling(
    settings: SignerSettings, user_key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bridge goes on minting after a restart, until the ceiling; with a new grant key nothing holds."""
    client = SignerClient(settings.socket)
    async with running(settings):
        login = await client.grant("alice", Secret("canary-alice-77"), user_key.public, SOURCE)
    async with running(settings):
        minted = await client.certificate(login.grant, user_key.public, Profile.CONTROL)
        assert minted.valid_before <= minted.expires_at == login.expires_at
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: login.expires_at)
            with pytest.raises(NotAllowed, match="ended"):
                await client.certificate(login.grant, user_key.public, Profile.CONTROL)
    (settings.state_dir / "grant_key").unlink()
    init_keys(settings.state_dir)
    async with running(settings):
        with pytest.raises(NotAllowed, match="not one of ours"):
            await client.certificate(login.grant, user_key.public, Profile.CONTROL)


@pytest.mark.slow
async def test_an_expired_grant_is_refused(settings: SignerSettings, user_key: Any) -> None:
    """On the real clock: a login whose ceiling has passed mints nothing."""
    short = replace(settings, policy=replace(settings.policy, login_ceiling_s=1))
    client = SignerClient(settings.socket)
    async with running(short):
        login = await client.grant("alice", Secret("canary-alice-77"), user_key.public, SOURCE)
        await asyncio.sleep(1.1)
        with pytest.raises(NotAllowed, match="ended"):
            await client.certificate(login.grant, user_key.public, Profile.CONTROL)


async def test_nothing_is_granted_unrecorded(
    signer: SignerClient, settings: SignerSettings, user_key: Any
) -> None:
    """Where the audit log cannot be written, the right password and a good grant earn an error."""
    login = await signer.grant("alice", Secret("canary-alice-77"), user_key.public, SOURCE)
    settings.audit_log.chmod(0o666)
    for _ in range(2):
        with pytest.raises(SiteError, match="unrecorded"):
            await signer.grant("alice", Secret("canary-alice-77"), user_key.public, SOURCE)
        with pytest.raises(SiteError, match="unrecorded"):
            await signer.certificate(login.grant, user_key.public, Profile.CONTROL)
    settings.audit_log.chmod(0o600)
    assert (await signer.certificate(login.grant, user_key.public, Profile.CONTROL)).serial
    assert len(records(settings)) == 2


@pytest.mark.parametrize("path", ["/v1/grants", "/v1/certificates"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"canary-body",
        b"[]",
        b"{}",
        b"[" * 20000,
        b"\xff\xfe",
        b'{"username": 1, "password": "canary-body", "public_key": "x", "source": "x"}',
        b'{"username": "a", "password": "canary-body", "public_key": "x", "source": "x", "uid": "0"}',
        b'{"grant": ["canary-body"], "public_key": "x", "profile": "control"}',
        b'{"grant": "canary-body", "public_key": "x", "profile": "control", "principal": "root"}',
        b'{"grant": "' + b"x" * 9000 + b'", "public_key": "x", "profile": "control"}',
        b"x" * 100_000,
    ],
)
async def test_unreadable_bodies_are_refused_and_recorded(
    signer: SignerClient, settings: SignerSettings, path: str, body: bytes
) -> None:
    """No JSON, other types, other fields, endless: InvalidRequest, one record, and no echo of the body."""
    status, answer = await post(settings, path, body)
    assert (status, answer["error"]) == (422, "InvalidRequest")
    assert "canary-body" not in json.dumps(answer)
    (record,) = records(settings)
    assert record["outcome"] == "refused"
    assert "canary-body" not in json.dumps(record)


async def test_what_cannot_be_read_is_recorded_wherever_somebody_proves_something(
    signer: SignerClient, settings: SignerSettings
) -> None:
    """One refused record for each call, of the event that it would have been."""
    events = {
        "/v1/query-certificates": "certificate",
        "/v1/terminals": "certificate",
        "/v1/terminals/holder": "terminal-proof",
        "/v1/terminals/logout": "logout",
        "/v1/second-factor/challenges": "second-factor-change",
        "/v1/second-factor/tickets": "second-factor-change",
        "/v1/second-factor/held": "second-factor-change",
        "/v1/second-factor/removals": "second-factor-removal",
        "/v1/second-factor/offers": "enrolment",
        "/v1/second-factor/enrolments": "enrolment",
        "/v1/second-factor/key-offers": "enrolment",
        "/v1/second-factor/keys": "enrolment",
        "/v1/second-factor/recovery-codes": "enrolment",
    }
    for path in events:
        assert (await post(settings, path, b'{"canary-body": 1}'))[0] == 422, path
    found = records(settings)
    assert [one["event"] for one in found] == list(events.values())
    assert {one["outcome"] for one in found} == {"refused"}
    assert "canary-body" not in json.dumps(found)


async def test_other_paths_answer_in_the_same_shape(settings: SignerSettings, signer: SignerClient) -> None:
    """An unknown path is an error in our own shape."""
    status, answer = await post(settings, "/v1/nothing", b"{}")
    assert (status, answer["error"]) == (404, "InvalidRequest")


async def test_no_secret_is_logged(
    signer: SignerClient,
    settings: SignerSettings,
    user_key: Any,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After good, bad and crashing attempts no password, grant, key or hash is in a log or record."""
    caplog.set_level(logging.DEBUG)
    login = await signer.grant("alice", Secret("canary-alice-77"), user_key.public, SOURCE)
    await signer.certificate(login.grant, user_key.public, Profile.CONTROL)
    with pytest.raises(NotAllowed):
        await signer.grant("alice", Secret("canary-wrong"), user_key.public, SOURCE)
    with pytest.raises(NotAllowed):
        await signer.certificate(Secret("canary-grant"), user_key.public, Profile.CONTROL)

    def crash(self: PasswordFileProof, username: str, password: Secret) -> None:
        raise ZeroDivisionError("by design")

    monkeypatch.setattr(PasswordFileProof, "verify", crash)
    with pytest.raises(SiteError, match="fault of its own"):
        await signer.grant("alice", Secret("canary-crash"), user_key.public, SOURCE)
    assert records(settings)[-1]["reason"] == "unforeseen ZeroDivisionError"
    seen = caplog.text + "".join(capfd.readouterr()) + settings.audit_log.read_text() + repr(login)
    assert "ZeroDivisionError" in caplog.text
    for secret in ("canary", login.grant.reveal(), "argon2", "PRIVATE KEY"):
        assert secret not in seen


async def test_checks_are_bounded(
    settings: SignerSettings, user_key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While logins wait the signer still answers; beyond its bound it says so, retryably, and records it."""
    monkeypatch.setattr(proving, "_MAX_WAITING", 4)
    client = SignerClient(settings.socket)

    async def attempt() -> str:
        try:
            await client.grant("alice", Secret("wrong"), user_key.public, SOURCE)
        except NotAllowed:
            return "refused"
        except RemoteError as error:
            assert error.retryable
            return "busy"
        return "granted"

    release, running_now, most = asyncio.Event(), 0, 0
    loop = asyncio.get_running_loop()
    verify = PasswordFileProof.verify

    def slow(self: PasswordFileProof, username: str, password: Secret) -> Any:
        nonlocal running_now, most
        running_now += 1
        most = max(most, running_now)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(10)
        running_now -= 1
        return verify(self, username, password)

    monkeypatch.setattr(PasswordFileProof, "verify", slow)
    async with running(settings), asyncio.TaskGroup() as group:
        tasks = [group.create_task(attempt()) for _ in range(7)]
        while most < 2 or sum(task.done() for task in tasks) < 3:  # noqa: ASYNC110  three, whichever
            await asyncio.sleep(0.01)
        await client.health()
        release.set()
        ended = [await task for task in tasks]
    assert sorted(ended) == ["busy"] * 3 + ["refused"] * 4
    assert most == PasswordFileProof.workers
    assert len(records(settings)) == 7


async def test_the_socket_is_private_and_goes_with_the_signer(settings: SignerSettings) -> None:
    """Mode 0600 in a folder of 0700 whatever the umask; gone at the end; a stale one is no obstacle."""
    settings.socket.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(settings.socket))
    umask = os.umask(0)
    try:
        async with running(settings):
            assert settings.socket.stat().st_mode & 0o777 == 0o600
            assert settings.socket.parent.stat().st_mode & 0o777 == 0o700
            with pytest.raises(ConfigError, match="already"):
                async with running(settings):
                    pass
            await SignerClient(settings.socket).health()
    finally:
        os.umask(umask)
    assert not settings.socket.exists()


@pytest.mark.parametrize("fault", ["loose folder", "file in the way", "long path"])
async def test_a_place_that_will_not_do_is_refused(settings: SignerSettings, fault: str) -> None:
    """A folder that others can enter, a file in the way, a path beyond the kernel's limit: ConfigError."""
    settings.socket.parent.mkdir(mode=0o700)
    if fault == "loose folder":
        settings.socket.parent.chmod(0o755)
    elif fault == "file in the way":
        settings.socket.touch()
    else:
        settings = replace(settings, socket=settings.socket.with_name("x" * 120))
    with pytest.raises(ConfigError) as caught:
        async with running(settings):
            pass
    assert str(settings.socket.parent) in caught.value.message


async def test_another_account_is_refused_even_with_the_modes_open(
    signer: SignerClient, settings: SignerSettings
) -> None:
    """The kernel's word on who connected is the second lock behind the file's mode."""
    require.root()
    let_others_pass(settings.socket.parent)
    settings.socket.chmod(0o666)
    code = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "s.sendall(b'GET /v1/health HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')\n"
        "print(b''.join(iter(lambda: s.recv(4096), b'')).decode())\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(settings.socket), stdout=subprocess.PIPE
    )
    answer = (await asyncio.wait_for(child.communicate(), 20))[0].decode()
    assert " 403 " in answer
    assert "NotAllowed" in answer


async def test_no_signer_is_said_clearly(tmp_path: Path) -> None:
    """No socket, and a socket that nobody listens on: ProcessAway, retryable, with what to do."""
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale.sock"))
    for name in ("none.sock", "stale.sock"):
        with pytest.raises(ProcessAway, match="signer does not answer") as caught:
            await SignerClient(tmp_path / name).health()
        assert caught.value.retryable
        assert "hpchub signer" in caught.value.hint


async def test_a_silent_signer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signer that accepts and says nothing costs the timeout, no more."""
    monkeypatch.setattr("hpchub.signer.client._LOGIN_TIMEOUT_S", 0.2)

    left = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the client gives up
        writer.close()
        await writer.wait_closed()
        left.set()

    server = await asyncio.start_unix_server(silent, tmp_path / "x.sock")
    async with server:
        with pytest.raises(ProcessAway, match="within"):
            await SignerClient(tmp_path / "x.sock").grant("alice", Secret("x"), "key", SOURCE)
        await asyncio.wait_for(left.wait(), 5)
