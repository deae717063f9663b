"""Limits on guessing through the whole signer: the words, the audit log, the metrics, restarts, staff."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpchub.audit_files import verify
from hpchub.cli import main
from hpchub.core.secret import Secret
from hpchub.errors import NotAllowed
from hpchub.signer.client import SignerClient
from hpchub.signer.password_file import PasswordFileProof
from hpchub.signer.server import running
from hpchub.signer.settings import SignerSettings

from .test_metrics import scrape
from .test_server import records

HOME = "198.51.100.7"
RIGHT = "canary-alice-77"


async def refusal(client: SignerClient, name: str, password: str, key: Any, source: str = HOME) -> object:
    """All that the person could see of a refusal."""
    with pytest.raises(NotAllowed) as caught:
        await client.grant(name, Secret(password), key.public, source)
    error = caught.value
    return type(error), error.message, error.hint, error.status, error.retryable


async def test_a_limit_says_nothing_of_itself(
    signer: SignerClient, settings: SignerSettings, user_key: Any
) -> None:
    """Wrong, unknown and limited are the same words, also for the right password; the audit log knows."""
    said = set()
    for name in ("alice", "nobody.here", "root"):
        for _ in range(5):
            said.add(await refusal(signer, name, "wrong", user_key))
        said.add(await refusal(signer, name, RIGHT, user_key))
    assert len(said) == 1
    reasons = [record["reason"] for record in records(settings)]
    assert reasons[5::6] == [
        "too many failures of this pair; it was right",
        "too many failures of this pair; unknown user",
        "too many failures of this pair; unsafe account name",
    ]
    numbers = await scrape(settings)
    assert numbers["hpchub_signer_logins_limited_total", "pair"] == 3
    assert numbers["hpchub_signer_logins_limited_total", "account"] == 0
    assert numbers["hpchub_signer_logins_total", "refused"] == 18


async def test_two_workers_and_a_restart_keep_one_count(settings: SignerSettings, user_key: Any) -> None:
    """Failures at two signers on one state folder, then a new one: still limited, elsewhere not."""
    workers = [replace(settings, socket=settings.socket.with_name(f"{number}.sock")) for number in range(2)]
    async with AsyncExitStack() as stack:
        clients: Sequence[SignerClient] = [SignerClient(worker.socket) for worker in workers]
        for worker in workers:
            await stack.enter_async_context(running(worker))
        for number in range(5):
            await refusal(clients[number % 2], "alice", "wrong", user_key)
        for client in clients:
            await refusal(client, "alice", RIGHT, user_key)
    async with running(settings):
        client = SignerClient(settings.socket)
        await refusal(client, "alice", RIGHT, user_key)
        login = await client.grant("alice", Secret(RIGHT), user_key.public, "203.0.113.9")
        assert login.username == "alice"
    assert [record["reason"][:8] for record in records(settings)].count("too many") == 3


@pytest.mark.slow
async def test_staff_and_signer_write_one_chain(settings: SignerSettings, user_key: Any) -> None:
    """Staff at a terminal while people log in, each in a process of their own: no line is lost or forked."""
    config = settings.state_dir.parent / "signer.toml"
    config.write_text(
        'socket = "run/signer.sock"\nstate_dir = "state"\naudit_log = "audit.jsonl"\n'
        'source_addresses = ["127.0.0.1"]\n[proof]\nkind = "password-file"\nfile = "passwords"\n'
    )
    argv = [sys.executable, "-m", "hpchub.cli", "signer", "--config", str(config)]
    actions = [("lift-limit", "alice"), ("know-address", "alice", "203.0.113.9")] * 2
    async with running(settings):
        client = SignerClient(settings.socket)
        staff = [await asyncio.create_subprocess_exec(*argv, *action, stdout=PIPE) for action in actions]
        people = 0
        while any(one.returncode is None for one in staff) or not people:
            people += 1
            await client.grant("alice", Secret(RIGHT), user_key.public, "203.0.113.9")
        assert [await one.wait() for one in staff] == [0] * 4
    report = verify(settings.audit_log)
    assert (report.faults, report.records, report.unchained) == ([], people + 4, 0)


async def test_every_refusal_costs_one_proof(
    signer: SignerClient, user_key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known, unknown and limited: one argon2 computation each, so that time tells nothing."""
    computed = 0
    matches = PasswordFileProof._matches

    def counted(self: PasswordFileProof, digest: str, password: Secret) -> bool:
        nonlocal computed
        computed += 1
        return matches(self, digest, password)

    monkeypatch.setattr(PasswordFileProof, "_matches", counted)
    for name in ("alice", "nobody.here"):
        for _ in range(8):
            await refusal(signer, name, "wrong", user_key)
    assert computed == 16


def test_staff_show_and_lift(
    settings: SignerSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`limits` shows, `lift-limit` and `know-address` change, and both are in the audit log."""
    config = tmp_path / "signer.toml"
    config.write_text(
        'socket = "run/signer.sock"\nstate_dir = "state"\naudit_log = "audit.jsonl"\n'
        'source_addresses = ["127.0.0.1"]\n[proof]\nkind = "password-file"\nfile = "passwords"\n'
    )

    def call(*action: str) -> tuple[int, str]:
        code = main(["signer", "--config", str(config), *action])
        done = capsys.readouterr()
        return code, done.out + done.err

    assert call("limits") == (0, "Nothing is counted.\n")
    assert call("know-address", "alice", "2001:db8::7")[0] == 0
    assert "2001:db8::/64" in call("limits", "alice")[1]
    assert call("lift-limit", "alice") == (0, "Forgotten for alice: 0 counts.\n")
    assert call("lift-limit", "198.51.100.7")[0] == 0
    for wrong in (("lift-limit", "root"), ("know-address", "alice", "bob"), ("limits", "a b")):
        assert call(*wrong)[0] == 1
    found = [json.loads(line) for line in settings.audit_log.read_text().splitlines()]
    assert [(one["event"], one["user"], one["source"], one["factor"]) for one in found] == [
        ("address-known", "alice", "2001:db8::7", "staff"),
        ("limit-lifted", "alice", "", "staff"),
        ("limit-lifted", "", "198.51.100.7", "staff"),
    ]
