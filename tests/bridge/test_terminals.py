"""Certificates for people's own terminals: a session's key in a real agent vouches, a real signer mints."""

from __future__ import annotations

from dataclasses import replace

import asyncssh
import pytest

from hpchub.bridge.sessions import Sessions
from hpchub.bridge.store import Store
from hpchub.errors import NotAllowed
from hpchub.signer.answers import Certificate
from hpchub.signer.client import SignerClient
from hpchub.signer.policy import TerminalPolicy
from hpchub.signer.settings import SignerSettings
from hpchub.ssh.key_agent import KeyAgent

from .conftest import Login

FORM = "hpchub:{account}"


@pytest.fixture
def signer_settings(signer_settings: SignerSettings) -> SignerSettings:
    """A site that gives them, by another name than the bridge's own certificates have."""
    policy = replace(
        signer_settings.policy,
        principals=("{account}", FORM),
        terminal=TerminalPolicy(lifetime_s=3600, principal=FORM),
    )
    return replace(signer_settings, policy=policy)


@pytest.fixture
def sessions(signer: SignerClient, agent: KeyAgent, store: Store) -> Sessions:
    return Sessions(signer, agent, store)


def new_key() -> str:
    return asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()


async def test_the_sessions_key_vouches_for_its_own_user(sessions: Sessions, login: Login) -> None:
    """Who has a session gets one for the key that was brought, comment or not; who has none gets none."""
    terminal = f"{new_key()} alice@laptop"
    with pytest.raises(NotAllowed, match="no live session"):
        await sessions.terminal_certificate("alice", terminal, "192.0.2.1")
    await login.open(sessions, "alice")
    made = await sessions.terminal_certificate("alice", terminal, "192.0.2.1")
    certificate = asyncssh.import_certificate(made.certificate)
    assert certificate.principals == ["hpchub:alice"]
    assert certificate.key.public_data == asyncssh.import_public_key(terminal).public_data
    with pytest.raises(NotAllowed, match="no live session"):
        await sessions.terminal_certificate("bob", terminal, "192.0.2.1")


async def test_without_its_key_a_session_vouches_for_nothing(
    sessions: Sessions, login: Login, agent: KeyAgent
) -> None:
    """The grant that the bridge keeps is not enough: once the agent has forgotten the key, nobody signs."""
    await login.open(sessions, "alice")
    await agent.remove(sessions._session("alice").public_key)
    with pytest.raises(NotAllowed, match="does not hold your key"):
        await sessions.terminal_certificate("alice", new_key(), "")


async def test_a_certificate_of_somebody_elses_is_not_passed_on(
    sessions: Sessions, login: Login, signer: SignerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signer that answers for another user is not believed."""
    await login.open(sessions, "alice")
    await login.open(sessions, "bob")
    bobs = await sessions.terminal_certificate("bob", new_key(), "")

    async def mixed_up(*_args: object, **_more: object) -> Certificate:
        return bobs

    monkeypatch.setattr(signer, "terminal_certificate", mixed_up)
    with pytest.raises(NotAllowed, match="not alice's"):
        await sessions.terminal_certificate("alice", new_key(), "")
