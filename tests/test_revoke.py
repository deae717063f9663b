"""`hpchub revoke` and `hpchub sessions`, with a signer that runs: what they do, say, and end with."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import argon2
import asyncssh
import pytest

from hpchub import staff_config
from hpchub.cli import main
from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.errors import NotAllowed
from hpchub.revoke import render
from hpchub.sessions import joined
from hpchub.sessions import render as render_sessions
from hpchub.signer.answers import Holdings
from hpchub.signer.client import SignerClient
from hpchub.signer.keys import init_keys
from hpchub.signer.password_file import set_password
from hpchub.signer.server import running
from hpchub.signer.settings import load_settings

CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
KEY = asyncssh.generate_private_key("ssh-ed25519").export_public_key("openssh").decode()
SIGNER = """
socket = "signer.sock"
state_dir = "state"
audit_log = "audit.jsonl"
krl_file = "krl/revoked_keys"
source_addresses = ["192.0.2.1"]
[proof]
kind = "password-file"
file = "passwords"
"""
BRIDGE = """
runtime_dir = "run"
signer_socket = "signer.sock"
agent_socket = "agent.sock"
hub_socket = "hub.sock"
clusters = "clusters.d"
database = "sqlite:///bridge.db"
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="hpchub-r-", dir="/tmp") as name:
        folder = Path(name)
        (folder / "signer.toml").write_text(SIGNER)
        (folder / "bridge.toml").write_text(BRIDGE)
        (folder / "krl").mkdir()
        set_password(folder / "passwords", "alice", Secret("canary-9"), CHEAP)
        init_keys(folder / "state")
        yield folder


@pytest.fixture
async def signer(folder: Path) -> AsyncIterator[SignerClient]:
    settings = load_settings(folder / "signer.toml")
    async with running(settings):
        yield SignerClient(settings.socket)


async def call(folder: Path, verb: str, *arguments: str, config: str = "bridge.toml") -> int:
    return await asyncio.to_thread(main, [verb, "--config", str(folder / config), *arguments])


async def test_revoke_and_undo(
    folder: Path, signer: SignerClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user is out at once, and may come back after `--undo`."""
    login = await signer.grant("alice", Secret("canary-9"), KEY, "")
    await signer.certificate(login.grant, KEY, Profile.TUNNEL)
    assert await call(folder, "revoke", "alice", "--reason", "lost") == 0
    assert capsys.readouterr().out.splitlines() == [
        "alice is revoked: 1 login has ended, 1 certificate was still valid.",
        "The bridge closes its connections within 5 seconds.",
    ]
    with pytest.raises(NotAllowed):
        await signer.certificate(login.grant, KEY, Profile.TUNNEL)
    (record,) = [
        one
        for one in map(json.loads, (folder / "audit.jsonl").read_text().splitlines())
        if one["event"] == "revocation"
    ]
    assert (record["reason"], record["user"]) == ("lost", "alice") and record["source"]
    assert await call(folder, "revoke", "alice", "--undo") == 0
    assert await call(folder, "revoke", "alice", "--undo") == 1
    assert "is not revoked" in capsys.readouterr().err


async def test_a_name_that_held_nothing(
    folder: Path, signer: SignerClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """May be a typing error, so it is said; a serial that nobody knows is an error."""
    assert await call(folder, "revoke", "alicce") == 0
    assert "is the name right?" in capsys.readouterr().out
    assert await call(folder, "revoke", "4711") == 1
    assert "knows no certificate 4711" in capsys.readouterr().err
    assert await call(folder, "revoke", "alice", "--undo", "--stop-servers") == 1


async def test_on_the_signers_own_host(
    folder: Path, signer: SignerClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """With signer.toml alone: who holds what, and revoked; what only a bridge knows or does is said."""
    (folder / "bridge.toml").unlink()
    login = await signer.grant("alice", Secret("canary-9"), KEY, "")
    minted = await signer.certificate(login.grant, KEY, Profile.TUNNEL)
    assert await call(folder, "sessions", config="signer.toml") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[0] == "alice" and lines[2].split()[-2:] == ["-", "-"]
    assert str(minted.serial) in lines[6] and "hpchub status" in lines[-1]
    assert await call(folder, "sessions", "--json", "--user", "ALICE", config="signer.toml") == 0
    (row,) = json.loads(capsys.readouterr().out)["sessions"]
    assert (row["user"], row["connections"], row["servers"]) == ("alice", None, None)
    assert await call(folder, "revoke", "alice", "--stop-servers", config="signer.toml") == 1
    assert "nothing was done" in capsys.readouterr().err
    assert (await signer.certificate(login.grant, KEY, Profile.TUNNEL)).account == "alice"
    krl = (folder / "krl" / "revoked_keys").read_bytes()
    assert await call(folder, "revoke", "alice", config="signer.toml") == 0
    assert "within 5 seconds" in capsys.readouterr().out
    assert (folder / "krl" / "revoked_keys").read_bytes() != krl
    ended, _ = await signer.ends(0)  # what the bridge asks for
    assert list(ended.values()) == ["revoked"]
    with pytest.raises(NotAllowed):
        await signer.certificate(login.grant, KEY, Profile.TUNNEL)


async def test_which_settings_are_meant(
    folder: Path, signer: SignerClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual bridge.toml, else the usual signer.toml; and where neither is there, the first is missed."""
    monkeypatch.setattr(staff_config, "DEFAULT_CONFIG", folder / "none.toml")
    monkeypatch.setattr(staff_config, "SIGNER_CONFIG", folder / "signer.toml")
    assert await asyncio.to_thread(main, ["sessions"]) == 0
    monkeypatch.setattr(staff_config, "SIGNER_CONFIG", folder / "none-either.toml")
    assert await asyncio.to_thread(main, ["sessions"]) == 1
    assert "none.toml" in capsys.readouterr().err


async def test_without_a_bridge_a_user_is_revoked_all_the_same(
    folder: Path, signer: SignerClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """Servers could not be stopped: it is said, the exit code is 1, and nothing is minted any more."""
    assert await call(folder, "revoke", "alice", "--stop-servers") == 1
    assert "NOT STOPPED the servers of alice" in capsys.readouterr().out
    with pytest.raises(NotAllowed):
        await signer.grant("alice", Secret("canary-9"), KEY, "")


async def test_an_old_list_is_loud(
    folder: Path, signer: SignerClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, and until when login nodes take the certificates."""
    login = await signer.grant("alice", Secret("canary-9"), KEY, "")
    await signer.certificate(login.grant, KEY, Profile.TUNNEL)
    (folder / "krl").rename(folder / "gone")
    assert await call(folder, "revoke", "alice") == 1
    out = capsys.readouterr().out
    assert "THE REVOCATION LIST IS OLD" in out and "accept these certificates until" in out


async def test_without_a_signer_nothing_is_claimed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An error on standard error, exit code 1."""
    for verb, *arguments in (("revoke", "alice"), ("revoke", "--undo", "alice"), ("sessions",)):
        assert await call(folder, verb, *arguments) == 1
        told = capsys.readouterr()
        assert "signer does not answer" in told.err and told.out == ""


TAKEN = {
    "account": "",
    "logins": 0,
    "terminals": 0,
    "serials": [],
    "valid_before": 0,
    "has_krl_file": True,
    "krl_error": "",
}


def test_nothing_draws_on_the_terminal() -> None:
    """Whatever was given as a target."""
    lines = render("\x1b[2J\n\u202e", {**TAKEN, "terminals": 2, "krl_error": "\x1b["})
    assert all(char.isprintable() for line in lines for char in line)
    assert any(line.startswith("2 of them are on people's own machines") for line in lines)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("alice", "is the name right?"),
        ("4711", "had ended already"),
        ("hpchub:alice:control:4711", "had ended already"),
        ("ssh-ed25519 AAAA", "No login has that key now"),
        ("SHA256:abc", "No login has that key now"),
    ],
)
def test_words_where_nothing_was_held(target: str, words: str) -> None:
    """Only a user's name can be mistyped and taken all the same; a key is refused from now on."""
    first, second = render(target, TAKEN)
    assert first == f"{target} is revoked: 0 logins have ended, 0 certificates were still valid."
    assert words in second


def test_the_table_of_sessions() -> None:
    """Each login, then whoever has servers or connections without one; no line wider than the terminal."""
    now = int(time.time())
    login = {
        "account": "alice", "factor": "password", "source": "\x1b[2J198.51.100.7", "issued": now,
        "ceiling": now + 43200, "fingerprint": "SHA256:x", "grant_id": "0",
        "certificates": [{"serial": "18446744073709551615", "profile": "tunnel", "valid_before": now + 600}],
    }  # fmt: skip
    query = {"account": "slurmwatch", "profile": "query", "serial": "12", "valid_before": now + 600}
    holdings = Holdings(logins=[login], queries=[query], revoked={"carol": now})
    found = joined(holdings, {"alice": 2, "bob": 1}, {"bob": 1})
    assert [(row["user"], row["connections"], row["servers"]) for row in found["sessions"]] == [
        ("alice", 2, 0),
        ("bob", 1, 1),
    ]
    for width in (80, 200):
        lines = render_sessions(found, width).splitlines()
        assert all(len(line) <= width and line.isprintable() for line in lines)
    assert lines[0] == "Logins: 1" and lines[3].startswith("bob ")
    assert any(line.split()[:3] == ["alice", "tunnel", "18446744073709551615"] for line in lines)
    assert any(line.split()[:3] == ["slurmwatch", "query", "12"] for line in lines)
    assert lines[-1].split()[0] == "carol"
