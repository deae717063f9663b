"""Revocation and other ends, through a running signer: nothing more is minted, and everything is recorded."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import asyncssh
import pytest

from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.errors import ConfigError, InvalidRequest, NotAllowed, RemoteError, SiteError
from hpchub.signer import account_check, ends, lookout
from hpchub.signer import ledger as ledger_module
from hpchub.signer.client import SignerClient
from hpchub.signer.ledger import LEDGER
from hpchub.signer.server import running
from hpchub.signer.settings import SignerSettings

BY = {"reason": "stolen laptop", "by": "root"}


def records(settings: SignerSettings, **wanted: str) -> list[dict[str, str]]:
    found = [json.loads(line) for line in settings.audit_log.read_text().splitlines()]
    return [one for one in found if all(one[name] == value for name, value in wanted.items())]


def krl_holds(settings: SignerSettings, line: str, tmp_path: Path) -> bool:
    (tmp_path / "asked.pub").write_text(line + "\n")
    done = subprocess.run(
        ["ssh-keygen", "-Q", "-f", str(settings.krl_file), str(tmp_path / "asked.pub")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "REVOKED" in done.stdout or done.stdout.rstrip().endswith(": ok"), (done.stdout, done.stderr)
    return done.returncode == 1


async def log_in(signer: SignerClient, key: Any, user: str = "alice") -> Secret:
    passwords = {"alice": "canary-alice-77", "bob": "canary-bob-78"}
    return (await signer.grant(user, Secret(passwords[user]), key.public, "198.51.100.7")).grant


async def test_a_user(
    signer: SignerClient, settings: SignerSettings, user_key: Any, other_key: Any, tmp_path: Path
) -> None:
    """Grants mint no more, the password logs in no more, in the usual words, until it is undone."""
    grant = await log_in(signer, user_key)
    bobs = await log_in(signer, other_key, "bob")
    minted = await signer.certificate(grant, user_key.public, Profile.TUNNEL)
    taken = await signer.revoke("alice", **BY)
    assert (taken["account"], taken["logins"], taken["serials"]) == ("alice", 1, [str(minted.serial)])
    assert taken["valid_before"] == minted.valid_before and taken["krl_error"] == ""
    for profile in (Profile.CONTROL, Profile.TUNNEL):
        with pytest.raises(NotAllowed, match="login has ended"):
            await signer.certificate(grant, user_key.public, profile)
    with pytest.raises(NotAllowed, match="do not match"):
        await log_in(signer, user_key)
    assert krl_holds(settings, minted.certificate, tmp_path)
    await signer.certificate(bobs, other_key.public, Profile.CONTROL)
    fresh = asyncssh.generate_private_key("ssh-ed25519").export_public_key("openssh").decode()
    await signer.undo_revocation("alice", **BY)
    with pytest.raises(NotAllowed):  # what she held before stays ended
        await signer.certificate(grant, user_key.public, Profile.CONTROL)
    again = await signer.grant("alice", Secret("canary-alice-77"), fresh, "")
    await signer.certificate(again.grant, fresh, Profile.CONTROL)

    done, undone = records(settings, event="revocation")
    assert (done["user"], done["outcome"], done["reason"], done["source"]) == (
        "alice",
        "done",
        "stolen laptop",
        "root",
    )
    assert undone["reason"] == "undone: stolen laptop"
    (ended,) = records(settings, event="ended")
    (login,) = records(settings, event="login", outcome="granted", fingerprint=ended["fingerprint"])
    assert (ended["grant_id"], ended["user"], ended["reason"]) == (login["grant_id"], "alice", "revoked")
    assert {one["reason"] for one in records(settings, outcome="refused")} == {"revoked"}


async def test_a_serial_takes_its_whole_login(
    signer: SignerClient, settings: SignerSettings, user_key: Any, other_key: Any, tmp_path: Path
) -> None:
    """And no other one of the same person; the person may log in again. Key ids do the same."""
    for form in ("serial", "key_id"):
        keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(2)]
        lines = [key.export_public_key("openssh").decode() for key in keys]
        grants = [(await signer.grant("alice", Secret("canary-alice-77"), line, "")).grant for line in lines]
        first = await signer.certificate(grants[0], lines[0], Profile.CONTROL)
        second = await signer.certificate(grants[0], lines[0], Profile.TUNNEL)
        other = await signer.certificate(grants[1], lines[1], Profile.CONTROL)
        taken = await signer.revoke(str(getattr(first, form)), **BY)
        assert set(taken["serials"]) == {str(first.serial), str(second.serial)}
        with pytest.raises(NotAllowed):
            await signer.certificate(grants[0], lines[0], Profile.CONTROL)
        assert krl_holds(settings, second.certificate, tmp_path)
        assert not krl_holds(settings, other.certificate, tmp_path)
        await signer.certificate(grants[1], lines[1], Profile.CONTROL)
        with pytest.raises(InvalidRequest, match="undone"):
            await signer.undo_revocation(str(first.serial), **BY)


async def test_a_key(signer: SignerClient, settings: SignerSettings, user_key: Any, tmp_path: Path) -> None:
    """Given as a line or a fingerprint: its logins end, no new one takes it, the KRL names it."""
    fingerprint = user_key.private.get_fingerprint()
    for target in (user_key.public, fingerprint):
        grant = await log_in(signer, user_key)
        await signer.certificate(grant, user_key.public, Profile.CONTROL)
        assert (await signer.revoke(target, **BY))["account"] == "alice"
        with pytest.raises(NotAllowed):
            await signer.certificate(grant, user_key.public, Profile.CONTROL)
        with pytest.raises(NotAllowed):
            await log_in(signer, user_key)
        assert krl_holds(settings, user_key.public.strip(), tmp_path)
        await signer.undo_revocation(fingerprint, **BY)
        with pytest.raises(NotAllowed):  # what it held before stays ended
            await signer.certificate(grant, user_key.public, Profile.CONTROL)
        await log_in(signer, user_key)


async def test_the_record_says_what_was_revoked(
    signer: SignerClient, settings: SignerSettings, user_key: Any
) -> None:
    """Beside whose it was: a key or a key id is not the account, which stays."""
    grant = await log_in(signer, user_key)
    minted = await signer.certificate(grant, user_key.public, Profile.CONTROL)
    await signer.revoke(minted.key_id, **BY)
    await signer.revoke(user_key.public, **BY)
    await signer.undo_revocation(user_key.public, **BY)
    found = [
        (one["user"], one["key_id"], one["fingerprint"]) for one in records(settings, event="revocation")
    ]
    fingerprint = user_key.private.get_fingerprint()
    assert found == [
        ("alice", minted.key_id, ""),
        ("alice", "", fingerprint),
        (user_key.public, "", fingerprint),
    ]


async def test_a_key_that_was_never_seen(
    signer: SignerClient, settings: SignerSettings, other_key: Any, tmp_path: Path
) -> None:
    """It is refused from the first time on."""
    await signer.revoke(other_key.private.get_fingerprint(), **BY)
    assert krl_holds(settings, other_key.public.strip(), tmp_path)
    with pytest.raises(NotAllowed):
        await log_in(signer, other_key)


async def test_a_service_account(
    signer: SignerClient, settings: SignerSettings, user_key: Any, tmp_path: Path
) -> None:
    """It has no login to end: by its name or its certificate's serial, nothing more is minted."""
    minted = await signer.query_certificate("slurmwatch", user_key.public)
    await signer.revoke(str(minted.serial), **BY)
    assert krl_holds(settings, minted.certificate, tmp_path)
    with pytest.raises(NotAllowed):
        await signer.query_certificate("slurmwatch", user_key.public)
    await signer.undo_revocation(user_key.public, **BY)
    await signer.query_certificate("slurmwatch", user_key.public)
    await signer.revoke("slurmwatch", **BY)
    with pytest.raises(NotAllowed):
        await signer.query_certificate("slurmwatch", user_key.public)


async def test_it_survives_a_restart(settings: SignerSettings, user_key: Any, tmp_path: Path) -> None:
    """Users, keys and the list, also where the list's file was lost meanwhile."""
    assert settings.krl_file is not None
    async with running(settings):
        signer = SignerClient(settings.socket)
        grant = await log_in(signer, user_key)
        minted = await signer.certificate(grant, user_key.public, Profile.CONTROL)
        await signer.revoke("alice", **BY)
        _, number = await signer.ends(0)
    settings.krl_file.unlink()
    async with running(settings):
        with pytest.raises(NotAllowed):
            await signer.certificate(grant, user_key.public, Profile.CONTROL)
        with pytest.raises(NotAllowed):
            await log_in(signer, user_key)
        assert krl_holds(settings, minted.certificate, tmp_path)
        assert await signer.ends(0) == ({user_key.private.get_fingerprint(): "revoked"}, number)
        assert await signer.ends(number) == ({}, number)
        assert (await signer.ends(10**6))[0]  # a ledger that was lost counts anew: whoever asks hears all
        assert settings.krl_file.read_bytes()[28:] == (await signer.krl())[28:]
        assert settings.krl_file.stat().st_mode & 0o777 == 0o644


async def test_without_its_ledger_grants_go_on(settings: SignerSettings, user_key: Any) -> None:
    """Logins from before there was one are nobody's fault; a user's revocation counts for them too."""
    async with running(settings):
        signer = SignerClient(settings.socket)
        grant = await log_in(signer, user_key)
    for file in settings.state_dir.glob(f"{LEDGER}*"):
        file.unlink()
    async with running(settings):
        await signer.certificate(grant, user_key.public, Profile.CONTROL)
        await signer.revoke("alice", **BY)
        with pytest.raises(NotAllowed):
            await signer.certificate(grant, user_key.public, Profile.CONTROL)


async def test_old_entries_leave_the_list(
    signer: SignerClient,
    settings: SignerSettings,
    user_key: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once every certificate that they concern has expired, clocks that are behind included; not before."""
    grant = await log_in(signer, user_key)
    minted = await signer.certificate(grant, user_key.public, Profile.CONTROL)
    await signer.revoke("alice", **BY)
    empty = len(await signer.krl())
    real = ends.time.time
    for ahead, held in ((600, True), (270 + 600, True), (302 + 600, False)):
        monkeypatch.setattr(ends.time, "time", lambda ahead=ahead: real() + ahead)
        monkeypatch.setattr(ends.time, "time_ns", lambda ahead=ahead: int((real() + ahead) * 1e9))
        krl = await signer.krl()
        assert (len(krl) == empty) is held
    assert len(krl) < empty and minted.serial.to_bytes(8, "big") not in krl


@pytest.mark.parametrize(
    "target",
    [
        *(
            "",
            "root",
            "no such user!",
            "alice,bob",
            "../alice",
            "alice\nbob",
            "*",
            "\x00",
            "1; DROP TABLE grants",
        ),
        *("12345", "0", "-1", "18446744073709551616", "9" * 400),
        *("hpchub:alice:control:0000000000000000", "hpchub:\n", "SHA256:short", "SHA256:" + "a" * 44),
        *("ssh-ed25519 AAAA", "ssh-rsa x\nssh-rsa y"),
    ],
)
async def test_what_names_nothing(
    target: str, signer: SignerClient, settings: SignerSettings, user_key: Any
) -> None:
    """Refused, recorded on one line, and nobody's login ends."""
    grant = await log_in(signer, user_key)
    with pytest.raises(InvalidRequest):
        await signer.revoke(target, **BY)
    with pytest.raises(InvalidRequest):
        await signer.undo_revocation(target, **BY)
    assert [one["outcome"] for one in records(settings, event="revocation")] == ["refused", "refused"]
    assert all(line.isascii() and line.isprintable() for line in settings.audit_log.read_text().splitlines())
    await signer.certificate(grant, user_key.public, Profile.CONTROL)


async def test_revoking_twice_is_the_same(
    signer: SignerClient, settings: SignerSettings, user_key: Any
) -> None:
    """A replayed request takes nothing more; a user who held nothing is refused too."""
    await log_in(signer, user_key)
    assert (await signer.revoke("alice", **BY))["logins"] == 1
    before = await signer.krl()
    assert (await signer.revoke("alice", **BY))["logins"] == 0
    assert (await signer.krl())[28:] == before[28:]
    await signer.undo_revocation("alice", **BY)
    with pytest.raises(InvalidRequest, match="not revoked"):
        await signer.undo_revocation("alice", **BY)
    assert (await signer.revoke("Dr.Eve-2_long.name.of-32.letters", **BY))["logins"] == 0
    with pytest.raises(NotAllowed):
        await signer.grant("Dr.Eve-2_long.name.of-32.letters", Secret("canary-79"), user_key.public, "")


async def test_logging_out(
    signer: SignerClient, settings: SignerSettings, user_key: Any, tmp_path: Path
) -> None:
    """The grant mints no more, recorded once; the person may log in again at once."""
    grant = await log_in(signer, user_key)
    minted = await signer.certificate(grant, user_key.public, Profile.CONTROL)
    await signer.log_out(grant)
    await signer.log_out(grant)
    with pytest.raises(NotAllowed, match="login has ended"):
        await signer.certificate(grant, user_key.public, Profile.CONTROL)
    again = await log_in(signer, user_key)
    await signer.certificate(again, user_key.public, Profile.CONTROL)
    (record,) = records(settings, event="logout")
    assert (record["user"], record["outcome"], record["factor"]) == ("alice", "done", "password")
    assert not krl_holds(settings, minted.certificate, tmp_path)
    with pytest.raises(NotAllowed, match="not one of ours"):
        await signer.log_out(Secret("x"))
    assert records(settings, event="logout")[-1]["outcome"] == "refused"


async def test_an_account_that_the_site_has_locked(
    signer: SignerClient,
    settings: SignerSettings,
    user_key: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Noticed when a certificate is minted again: everything it held ends, and is named in the KRL."""
    monkeypatch.setattr(account_check, "_FRESH_S", 0.0)
    grant = await log_in(signer, user_key)
    minted = await signer.certificate(grant, user_key.public, Profile.CONTROL)
    file = settings.proof.file
    assert file is not None
    whole = file.read_text()
    file.write_text(whole.replace("alice:", "alice:!"))
    with pytest.raises(NotAllowed, match="login has ended"):
        await signer.certificate(grant, user_key.public, Profile.CONTROL)
    assert krl_holds(settings, minted.certificate, tmp_path)
    assert (await signer.ends(0))[0] == {user_key.private.get_fingerprint(): "locked"}
    (ended,) = records(settings, event="ended")
    assert (ended["user"], ended["reason"]) == ("alice", "locked: locked account")
    file.write_text(whole)
    with pytest.raises(NotAllowed):  # unlocked again: a new login is needed
        await signer.certificate(grant, user_key.public, Profile.CONTROL)


async def test_a_locked_account_that_asks_for_nothing(
    settings: SignerSettings, user_key: Any, other_key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connections may be open: the signer asks about it by itself, and about nobody too often."""
    monkeypatch.setattr(account_check, "_EVERY_S", 0.3)
    monkeypatch.setattr(lookout, "_PAUSE_S", 0.05)
    async with running(settings):
        signer = SignerClient(settings.socket)
        await log_in(signer, user_key)
        bobs = await log_in(signer, other_key, "bob")
        file = settings.proof.file
        assert file is not None
        changed = file.with_name("changed")  # moved there whole, for the signer looks into it all the time
        changed.write_text(file.read_text().replace("alice:", "alice:!"))
        changed.chmod(0o600)
        changed.replace(file)
        async with asyncio.timeout(20):
            while not (await signer.ends(0))[0]:  # noqa: ASYNC110  another process, as far as we know
                await asyncio.sleep(0.02)
        assert (await signer.ends(0))[0] == {user_key.private.get_fingerprint(): "locked"}
        await signer.certificate(bobs, other_key.public, Profile.CONTROL)


async def test_where_nobody_can_tell_nothing_is_granted_and_nobody_is_locked_out(
    signer: SignerClient, settings: SignerSettings, user_key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password file that is broken for a while ends no login."""
    monkeypatch.setattr(account_check, "_FRESH_S", 0.0)
    grant = await log_in(signer, user_key)
    file = settings.proof.file
    assert file is not None
    whole = file.read_text()
    file.write_text("nonsense\n")
    with pytest.raises(SiteError):
        await signer.certificate(grant, user_key.public, Profile.CONTROL)
    file.write_text(whole)
    await signer.certificate(grant, user_key.public, Profile.CONTROL)


async def test_a_list_that_cannot_be_written(
    settings: SignerSettings, user_key: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The revocation is in force, whoever asked is told, `ready` says so, the old list stays meanwhile."""
    folder = tmp_path / "site"
    folder.mkdir()
    settings = replace(settings, krl_file=folder / "revoked_keys")
    assert settings.krl_file is not None
    monkeypatch.setattr(lookout, "_PAUSE_S", 0.05)
    async with running(settings):
        signer = SignerClient(settings.socket)
        old = settings.krl_file.read_bytes()
        grant = await log_in(signer, user_key)
        minted = await signer.certificate(grant, user_key.public, Profile.CONTROL)
        aside = tmp_path / "aside"
        folder.rename(aside)
        folder.touch()  # not even root can write into a file as if it were a folder
        taken = await signer.revoke("alice", **BY)
        assert "revoked_keys cannot be written" in taken["krl_error"]
        with pytest.raises(NotAllowed):
            await signer.certificate(grant, user_key.public, Profile.CONTROL)
        with pytest.raises(RemoteError, match="revocation list is old"):
            await signer.ready()
        assert (aside / "revoked_keys").read_bytes() == old
        folder.unlink()
        aside.rename(folder)
        async with asyncio.timeout(20):
            while not krl_holds(settings, minted.certificate, tmp_path):  # noqa: ASYNC110  likewise
                await asyncio.sleep(0.02)
        await signer.ready()
        assert [one.name for one in folder.iterdir()] == ["revoked_keys"]


async def test_an_audit_log_that_cannot_be_written_stops_no_revocation(
    signer: SignerClient, settings: SignerSettings, user_key: Any
) -> None:
    """It is in force, and whoever asked hears that it is unrecorded."""
    grant = await log_in(signer, user_key)
    settings.audit_log.unlink()
    settings.audit_log.mkdir()
    with pytest.raises(SiteError, match="audit log"):
        await signer.revoke("alice", **BY)
    settings.audit_log.rmdir()
    with pytest.raises(NotAllowed):
        await signer.certificate(grant, user_key.public, Profile.CONTROL)


@pytest.mark.parametrize("content", [b"no database", None])
async def test_a_ledger_that_cannot_be_used(content: bytes | None, settings: SignerSettings) -> None:
    """Garbage or a folder in its place: the signer does not start, and says why."""
    path = settings.state_dir / LEDGER
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="ledger"):
        async with running(settings):
            raise AssertionError("it runs")


async def test_a_full_ledger_grants_nothing(
    signer: SignerClient, settings: SignerSettings, user_key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be revoked later is not given out."""
    grant = await log_in(signer, user_key)
    monkeypatch.setattr(ledger_module.Ledger, "_insert", _full)
    with pytest.raises(SiteError, match="ledger"):
        await signer.certificate(grant, user_key.public, Profile.CONTROL)
    assert records(settings, event="certificate")[-1]["outcome"] == "error"


def _full(_ledger: ledger_module.Ledger, ask: sqlite3.Connection, _made: object) -> None:
    ask.execute("PRAGMA max_page_count = 1")
    ask.execute("CREATE TABLE big AS SELECT randomblob(1000000) AS content")


async def test_who_holds_what(signer: SignerClient, user_key: Any, other_key: Any) -> None:
    """Logins with factor, source, times and certificates; users who may not log in; and no grant."""
    grant = await log_in(signer, user_key)
    minted = await signer.certificate(grant, user_key.public, Profile.TUNNEL)
    await log_in(signer, other_key, "bob")
    await signer.revoke("bob", **BY)
    holdings = await signer.sessions()
    (one,) = holdings.logins
    assert (one["account"], one["factor"], one["source"]) == ("alice", "password", "198.51.100.7")
    assert one["ceiling"] - one["issued"] == 43200 and list(holdings.revoked) == ["bob"]
    row = {"serial": str(minted.serial), "profile": "tunnel", "valid_before": minted.valid_before}
    assert one["certificates"] == [row]
    assert grant.reveal() not in json.dumps(holdings.logins)


@pytest.mark.parametrize(
    "path", ["/v1/revocations", "/v1/revocations/undo", "/v1/logout", "/v1/disconnected"]
)
@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"target": 1, "reason": "", "by": ""}', b"\xff" * 99])
async def test_bodies_that_cannot_be_read(
    path: str, body: bytes, signer: SignerClient, settings: SignerSettings
) -> None:
    """Refused; nothing else happens."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(settings.socket))) as session,
        session.post(f"http://signer{path}", data=body) as response,
    ):
        assert (response.status, (await response.json())["error"]) == (422, "InvalidRequest")
    assert await signer.ends(0) == ({}, 0)


async def test_nothing_that_is_given_forges_a_line(signer: SignerClient, settings: SignerSettings) -> None:
    """Reasons, names and whys with newlines and escapes stay within their record."""
    evil = 'x"}\n{"event": "login", "outcome": "granted"}\x1b[2J\u202e'
    await signer.revoke("alice", reason=evil, by=evil)
    await signer.disconnected(evil, evil, 3)
    lines = settings.audit_log.read_text().splitlines()
    assert len(lines) == 2 and all(line.isascii() and line.isprintable() for line in lines)
    assert json.loads(lines[0])["reason"] == evil and json.loads(lines[1])["user"] == evil
    with pytest.raises(InvalidRequest, match="too long"):
        await signer.revoke("alice", reason="x" * 257, by="")


async def test_the_ledger_is_private(signer: SignerClient, settings: SignerSettings, user_key: Any) -> None:
    """Its files have mode 0600, and hold no grant that could be used."""
    grant = await log_in(signer, user_key)
    files = list(settings.state_dir.glob(f"{LEDGER}*"))
    assert files and all(file.stat().st_mode & 0o077 == 0 for file in files)
    assert not any(grant.reveal().encode() in file.read_bytes() for file in files)


async def test_one_account_that_cannot_be_told_hides_no_other(
    settings: SignerSettings, user_key: Any, other_key: Any
) -> None:
    """The lookout goes on to the next account, and says afterwards that one is unclear."""
    asked = []

    class Accounts:
        async def overdue_problem(self, account: str) -> str:
            asked.append(account)
            raise SiteError(f"nobody can tell of {account}")

    async with running(settings):
        signer = SignerClient(settings.socket)
        await log_in(signer, user_key)
        await log_in(signer, other_key, "bob")
        ledger = ledger_module.Ledger(settings.state_dir / LEDGER)
        try:
            with pytest.raises(SiteError, match="tell of bob"):
                await lookout.look_once(ledger, SimpleNamespace(accounts=Accounts()))  # type: ignore[arg-type]
        finally:
            ledger.close()
    assert asked == ["alice", "bob"]


async def test_capitals_do_not_count(signer: SignerClient, settings: SignerSettings, user_key: Any) -> None:
    """Whoever is revoked is so by any spelling: a directory that takes both for one must not let them in."""
    eve = "Dr.Eve-2_long.name.of-32.letters"
    grant = (await signer.grant(eve, Secret("canary-79"), user_key.public, "")).grant
    minted = await signer.certificate(grant, user_key.public, Profile.CONTROL)
    taken = await signer.revoke(eve.upper(), **BY)
    assert (taken["logins"], taken["serials"]) == (1, [str(minted.serial)])
    with pytest.raises(NotAllowed, match="login has ended"):
        await signer.certificate(grant, user_key.public, Profile.CONTROL)
    with pytest.raises(NotAllowed, match="do not match"):
        await signer.grant(eve, Secret("canary-79"), user_key.public, "")
    assert list((await signer.sessions()).revoked) == [eve.lower()]
    await signer.undo_revocation(eve.swapcase(), **BY)
    fresh = asyncssh.generate_private_key("ssh-ed25519").export_public_key("openssh").decode()
    again = await signer.grant(eve, Secret("canary-79"), fresh, "")
    assert again.username == eve


async def test_revoked_before_capitals_did_not_count(settings: SignerSettings, user_key: Any) -> None:
    """What an earlier version wrote into the ledger with capitals holds for every spelling."""
    async with running(settings):
        pass
    with closing(sqlite3.connect(settings.state_dir / LEDGER)) as file, file:
        file.execute("INSERT INTO refusals VALUES ('account', 'Alice', 1, NULL, 'revoked')")
        file.execute("INSERT INTO refusals VALUES ('key', 'SHA256:AbC', 1, NULL, 'revoked')")
    async with running(settings):
        with pytest.raises(NotAllowed, match="do not match"):
            await log_in(SignerClient(settings.socket), user_key)
    with closing(sqlite3.connect(settings.state_dir / LEDGER)) as file:
        assert file.execute("SELECT value FROM refusals WHERE kind = 'key'").fetchone() == ("SHA256:AbC",)
