"""Certificates for people's own terminals, through a running signer: who earns one, and its ends."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.core.terminal import LOG_OUT, key_proof, terminal_request
from hpchub.errors import InvalidRequest, NotAllowed
from hpchub.signer.answers import Certificate
from hpchub.signer.client import SignerClient
from hpchub.signer.policy import (
    Plan,
    Policy,
    TerminalPolicy,
    plan_certificate,
    plan_grant,
    plan_terminal_certificate,
)
from hpchub.signer.server import running
from hpchub.signer.settings import SignerSettings

from .conftest import make_user_key

FINGERPRINT, OTHER = "SHA256:" + "a" * 43, "SHA256:" + "b" * 43
NOW = 1_800_000_000
HUB = "hub.example.org"
POLICY = Policy(
    certificate_lifetime_s=600,
    login_ceiling_s=43200,
    source_addresses=("192.0.2.0/24",),
    terminal=TerminalPolicy(lifetime_s=8 * 3600),
)


@pytest.fixture
def settings(settings: SignerSettings) -> SignerSettings:
    """A site that gives certificates to terminals."""
    return replace(settings, policy=replace(settings.policy, terminal=TerminalPolicy(lifetime_s=3600)))


@pytest.fixture
async def signer(settings: SignerSettings) -> AsyncIterator[SignerClient]:
    async with running(settings):
        yield SignerClient(settings.socket)


async def log_in(signer: SignerClient, key: Any, user: str = "alice") -> Secret:
    passwords = {"alice": "canary-alice-77", "bob": "canary-bob-78"}
    return (await signer.grant(user, Secret(passwords[user]), key.public, "198.51.100.7")).grant


async def mint(signer: SignerClient, grant: Secret, login: Any, terminal: Any, by: Any = None) -> Certificate:
    """As the bridge asks, the request signed by the login's key or, where that is given, another's."""
    text = terminal_request(grant.reveal(), terminal.public)
    return await signer.terminal_certificate(
        grant,
        login_key=login.public,
        signature=(by or login).private.sign(text, b"ssh-ed25519"),
        public_key=terminal.public,
        source="203.0.113.9",
    )


def records(settings: SignerSettings) -> list[dict[str, str]]:
    return [json.loads(line) for line in settings.audit_log.read_text().splitlines()]


def in_krl(settings: SignerSettings, certificate: str, tmp_path: Path) -> bool:
    (tmp_path / "asked-cert.pub").write_text(certificate + "\n")
    argv = ["ssh-keygen", "-Q", "-f", str(settings.krl_file), str(tmp_path / "asked-cert.pub")]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 1


def terminal_plan(policy: Policy = POLICY, age_s: int = 0, fingerprint: str = OTHER) -> Plan:
    grant = plan_grant(
        POLICY, account="alice", factor="password", fingerprint=FINGERPRINT, now=NOW, grant_id="0" * 32
    )
    return plan_terminal_certificate(policy, grant, fingerprint=fingerprint, now=NOW + age_s, serial=255)


def test_a_terminal_gets_a_shell_and_no_more_than_the_site_gives() -> None:
    """A pty, forwarding of ports where the site says so, never of the agent or X11; from where it says."""
    assert terminal_plan() == Plan(
        account="alice",
        principal="alice",
        profile=Profile.TERMINAL,
        serial=255,
        key_id="hpchub:alice:terminal:00000000000000ff",
        fingerprint=OTHER,
        valid_after=NOW - 60,
        valid_before=NOW + 8 * 3600,
        source_addresses=(),
        force_command=None,
        extensions=frozenset({"permit-pty", "permit-port-forwarding"}),
    )
    strict = TerminalPolicy(lifetime_s=900, port_forwarding=False, source_addresses=("198.51.100.0/24",))
    planned = terminal_plan(replace(POLICY, terminal=strict))
    assert (planned.extensions, planned.source_addresses) == ({"permit-pty"}, ("198.51.100.0/24",))
    with pytest.raises(ValueError):
        replace(planned, extensions=frozenset({"permit-agent-forwarding"}))


def test_a_terminal_never_outlives_its_login() -> None:
    """Whatever lifetime the site gives, the login's ceiling ends it, and from then on there is none."""
    assert terminal_plan(age_s=43200 - 100).valid_before == NOW + 43200
    with pytest.raises(NotAllowed, match="has ended"):
        terminal_plan(age_s=43200)


def test_no_terminal_unless_the_site_says_so_nor_with_the_logins_own_key() -> None:
    """Off by default. A bridge cannot turn its own key into one; the usual call makes none either."""
    with pytest.raises(NotAllowed, match="gives no certificates"):
        terminal_plan(replace(POLICY, terminal=None))
    with pytest.raises(NotAllowed, match="of its own"):
        terminal_plan(fingerprint=FINGERPRINT)
    grant = plan_grant(
        POLICY, account="alice", factor="password", fingerprint=FINGERPRINT, now=NOW, grant_id="0" * 32
    )
    with pytest.raises(NotAllowed, match="another way"):
        plan_certificate(POLICY, grant, profile=Profile.TERMINAL, fingerprint=FINGERPRINT, now=NOW, serial=1)


async def test_the_certificate_and_its_record(
    signer: SignerClient, settings: SignerSettings, user_key: Any, other_key: Any
) -> None:
    """As planned, field by field, and one record that joins it to its login."""
    grant = await log_in(signer, user_key)
    made = await mint(signer, grant, user_key, other_key)
    found = load_ssh_public_identity(made.certificate.encode())
    assert isinstance(found, SSHCertificate)
    assert (found.valid_principals, found.critical_options) == ([b"alice"], {})
    assert found.extensions == {b"permit-pty": b"", b"permit-port-forwarding": b""}
    login, certificate = records(settings)
    assert certificate["grant_id"].startswith(login["grant_id"])
    assert (certificate["profile"], certificate["source"]) == ("terminal", "203.0.113.9")
    assert (certificate["factor"], certificate["serial"]) == ("password", str(made.serial))
    sessions = (await signer.sessions()).logins
    assert {one["source"] for one in sessions} == {"198.51.100.7", "203.0.113.9"}


@pytest.mark.parametrize("forged", ["other key", "other text", "bare grant", "no grant", "not base64"])
async def test_nobody_without_the_logins_key_gets_one(
    signer: SignerClient, settings: SignerSettings, user_key: Any, other_key: Any, forged: str
) -> None:
    """A stolen grant, another's signature, or one for another terminal: refused, and recorded."""
    grant = await log_in(signer, user_key)
    with pytest.raises((NotAllowed, InvalidRequest)):
        if forged == "other key":
            await mint(signer, grant, user_key, other_key, by=other_key)
        elif forged == "other text":
            signature = user_key.private.sign(
                terminal_request(grant.reveal(), user_key.public), b"ssh-ed25519"
            )
            await signer.terminal_certificate(
                grant, login_key=user_key.public, signature=signature, public_key=other_key.public, source=""
            )
        elif forged == "bare grant":  # signed, but by a key that the grant is not for
            await mint(signer, grant, other_key, user_key)
        elif forged == "no grant":
            await mint(signer, Secret("x.y.z"), user_key, other_key)
        else:
            body = {"grant": grant.reveal(), "login_key": user_key.public, "signature": "%", "source": ""}
            await signer._call("POST", "/v1/terminals", {**body, "public_key": other_key.public})
    last = records(settings)[-1]
    assert (last["event"], last["outcome"], last["profile"]) == ("certificate", "refused", "terminal")


async def test_who_has_logged_out_gets_none(signer: SignerClient, user_key: Any, other_key: Any) -> None:
    """The grant and its key are not enough once the login has ended."""
    grant = await log_in(signer, user_key)
    await signer.log_out(grant)
    with pytest.raises(NotAllowed, match="has ended"):
        await mint(signer, grant, user_key, other_key)


@pytest.mark.parametrize("target", ["user", "login's serial", "login's key", "own serial", "own key"])
async def test_revoking_covers_it(
    signer: SignerClient, settings: SignerSettings, user_key: Any, other_key: Any, tmp_path: Path, target: str
) -> None:
    """By its user, by what its login holds, or by itself: the KRL names it, and its key is worth nothing."""
    grant = await log_in(signer, user_key)
    control = await signer.certificate(grant, user_key.public, Profile.CONTROL)
    made = await mint(signer, grant, user_key, other_key)
    assert not in_krl(settings, made.certificate, tmp_path)
    await signer.revoke(
        {
            "user": "alice",
            "login's serial": str(control.serial),
            "login's key": user_key.public,
            "own serial": str(made.serial),
            "own key": other_key.private.get_fingerprint(),
        }[target],
        reason="stolen laptop",
        by="root",
    )
    assert in_krl(settings, made.certificate, tmp_path)
    with pytest.raises(NotAllowed):
        await prove(signer, other_key, LOG_OUT)
    if target.startswith("own"):  # the login behind it goes on
        assert await signer.certificate(grant, user_key.public, Profile.CONTROL)


async def test_it_outlives_a_logout_in_the_browser_and_not_its_own(
    signer: SignerClient, settings: SignerSettings, user_key: Any, other_key: Any, tmp_path: Path
) -> None:
    """The laptop's login is its own: only its key gives it back, and the KRL then names it."""
    grant = await log_in(signer, user_key)
    made = await mint(signer, grant, user_key, other_key)
    await signer.log_out(grant)
    assert not in_krl(settings, made.certificate, tmp_path)
    assert await prove(signer, other_key, "anything") == ("alice", made.valid_before)
    challenge = "of the hub"
    proof = other_key.private.sign(key_proof(LOG_OUT, HUB, challenge), b"ssh-ed25519")
    await signer.log_out_terminal(
        public_key=other_key.public, hub=HUB, challenge=challenge, signature=base64.b64encode(proof).decode()
    )
    assert in_krl(settings, made.certificate, tmp_path)
    with pytest.raises(NotAllowed, match="has ended"):
        await prove(signer, other_key, "anything")
    with pytest.raises(NotAllowed, match="has ended"):
        await signer.log_out_terminal(
            public_key=other_key.public,
            hub=HUB,
            challenge=challenge,
            signature=base64.b64encode(proof).decode(),
        )
    told = records(settings)[-3:]
    assert [one["event"] for one in told] == ["logout", "terminal-proof", "logout"]
    assert [one["outcome"] for one in told] == ["done", "refused", "refused"]
    assert {one["fingerprint"] for one in told} == {other_key.private.get_fingerprint()}


async def test_a_key_has_one_login(
    signer: SignerClient, settings: SignerSettings, user_key: Any, other_key: Any
) -> None:
    """Nobody has another's key certified for an account of their own: its owner would then act as them."""
    bobs, fresh = make_user_key(), make_user_key()
    grant, bob = await log_in(signer, user_key), await log_in(signer, bobs, "bob")
    await mint(signer, grant, user_key, other_key)
    for taken in (other_key, user_key):
        with pytest.raises(NotAllowed, match="has a login already"):
            await mint(signer, bob, bobs, taken)
    assert records(settings)[-1]["outcome"] == "refused"
    both = [mint(signer, grant, user_key, fresh), mint(signer, bob, bobs, fresh)]
    made = await asyncio.gather(*both, return_exceptions=True)
    assert sum(isinstance(one, Certificate) for one in made) == 1
    assert (await prove(signer, other_key, "anything"))[0] == "alice"


def signed(key: Any, purpose: str, hub: str) -> dict[str, str]:
    made = key.private.sign(key_proof(purpose, hub, "challenge"), b"ssh-ed25519")
    return {
        "public_key": key.public,
        "purpose": purpose,
        "hub": hub,
        "challenge": "challenge",
        "signature": base64.b64encode(made).decode(),
    }


async def prove(signer: SignerClient, key: Any, purpose: str) -> tuple[str, int]:
    return await signer.terminal_holder(**signed(key, purpose, HUB))


async def test_what_a_terminal_proves_is_recorded(
    signer: SignerClient, settings: SignerSettings, user_key: Any, other_key: Any
) -> None:
    """Tokens for days come of it: who, with which key, for what, and whoever had no such key."""
    grant = await log_in(signer, user_key)
    with pytest.raises(NotAllowed):
        await prove(signer, other_key, "manage tokens")
    await mint(signer, grant, user_key, other_key)
    await prove(signer, other_key, "manage tokens")
    with pytest.raises(NotAllowed, match="signed"):
        await signer.terminal_holder(**signed(other_key, "manage tokens", HUB) | {"hub": "false.example.org"})
    refused, granted, _ = [one for one in records(settings) if one["event"] == "terminal-proof"]
    assert (refused["outcome"], refused["reason"]) == ("refused", "The login of this key has ended.")
    assert refused["fingerprint"] == other_key.private.get_fingerprint()
    assert (granted["outcome"], granted["user"], granted["reason"]) == ("granted", "alice", "manage tokens")
    assert granted["fingerprint"] == other_key.private.get_fingerprint()


async def test_the_key_of_a_login_is_no_terminals(signer: SignerClient, user_key: Any) -> None:
    """What the bridge holds cannot pose as somebody's laptop, nor can a key that nobody knows."""
    await log_in(signer, user_key)
    with pytest.raises(NotAllowed, match="has ended"):
        await prove(signer, user_key, LOG_OUT)
    stranger = replace(user_key, private=asyncssh.generate_private_key("ssh-ed25519"))
    with pytest.raises(NotAllowed, match="signed"):
        await prove(signer, stranger, LOG_OUT)
