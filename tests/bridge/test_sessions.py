"""Sessions with a real signer: who gets one, for how long, and what it mints."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hpchub.bridge.sessions import KEY_LIFETIME_S, Sessions
from hpchub.bridge.store import Store
from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.errors import ConfigError, InvalidRequest, NotAllowed, ProcessAway
from hpchub.signer.answers import Certificate
from hpchub.signer.client import SignerClient
from hpchub.signer.server import running
from hpchub.signer.settings import SignerSettings
from hpchub.ssh.key_agent import KeyAgent

from .conftest import Login


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Counting(SignerClient):
    """The real signer's client, counting what is minted."""

    minted = 0
    change: Callable[[Certificate], Certificate] = staticmethod(lambda made: made)

    async def certificate(
        self, grant: Secret, public_key: str, profile: Profile, form: str = ""
    ) -> Certificate:
        self.minted += 1
        return self.change(await super().certificate(grant, public_key, profile, form))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counting(signer: SignerClient) -> Counting:
    return Counting(signer.socket_path)


@pytest.fixture
def sessions(counting: Counting, clock: Clock, agent: KeyAgent, store: Store) -> Sessions:
    return Sessions(counting, agent, store, now=clock)


async def test_a_session(sessions: Sessions, login: Login) -> None:
    """It lasts until the grant's ceiling, and mints for its own user and key."""
    expires_at = await login.open(sessions, "alice")
    assert abs(expires_at - time.time() - 43200) < 5 and sessions.expires_at("alice") == expires_at
    for profile in (Profile.CONTROL, Profile.TUNNEL):
        credential = await sessions.credential("alice", profile)
        assert credential.certificate.principals == ["alice"]
        assert credential.key.public_data == credential.certificate.key.public_data
        assert 0 < credential.valid_before - time.time() <= 600


async def test_a_key_that_is_not_claimed_in_time(sessions: Sessions, clock: Clock, login: Login) -> None:
    """Five minutes, no longer."""
    for age, accepted in ((KEY_LIFETIME_S - 5, True), (KEY_LIFETIME_S, False)):
        key_id, public_key = sessions.new_key()
        grant = await login.grant("alice", public_key)
        clock.ahead += age
        if accepted:
            await sessions.open("alice", key_id, grant)
        else:
            with pytest.raises(InvalidRequest, match="too long"):
                await sessions.open("alice", key_id, grant)


async def test_a_flood_keeps_the_newest_keys(sessions: Sessions, login: Login) -> None:
    """1,000 unclaimed keys at most: the oldest go, and the newest works."""
    ids = [sessions.new_key()[0] for _ in range(1001)]
    assert len(sessions._unclaimed) == 1000 and ids[0] not in sessions._unclaimed
    await login.open(sessions, "alice")


async def test_a_flood_pushes_out_its_own_keys(sessions: Sessions, login: Login) -> None:
    """Who began to log in from elsewhere, before or meanwhile, still can."""
    early, public_key = sessions.new_key("192.0.2.7")
    for _ in range(1500):
        sessions.new_key("198.51.100.1")
    late, _ = sessions.new_key("192.0.2.8")
    assert len(sessions._unclaimed) == 1000 and late in sessions._unclaimed
    await sessions.open("alice", early, await login.grant("alice", public_key))


async def test_whose_grant_it_is(sessions: Sessions, login: Login) -> None:
    """Another's grant, a grant for another key, a used or invented key id: refused, and no session."""
    key_id, public_key = sessions.new_key()
    with pytest.raises(NotAllowed, match="not bob's"):
        await sessions.open("bob", key_id, await login.grant("alice", public_key))
    with pytest.raises(InvalidRequest):  # the key is used up by the attempt
        await sessions.open("alice", key_id, await login.grant("alice", public_key))
    key_id, _ = sessions.new_key()
    with pytest.raises(NotAllowed, match="another key"):
        await sessions.open("alice", key_id, await login.grant("alice", public_key))
    key_id, _ = sessions.new_key()
    with pytest.raises(NotAllowed):
        await sessions.open("alice", key_id, Secret("nonsense"))
    with pytest.raises(InvalidRequest):
        await sessions.open("alice", "0" * 32, Secret("nonsense"))
    for user in ("alice", "bob"):
        with pytest.raises(NotAllowed, match="no live session"):
            sessions.expires_at(user)


async def test_a_stranger_cannot_end_a_session(sessions: Sessions, login: Login) -> None:
    """A refused attempt under alice's name leaves alice's session as it was."""
    expires_at = await login.open(sessions, "alice")
    key_id, public_key = sessions.new_key()
    with pytest.raises(NotAllowed):
        await sessions.open("alice", key_id, await login.grant("bob", public_key))
    assert sessions.expires_at("alice") == expires_at


async def test_certificates_are_kept_and_made_anew(
    sessions: Sessions, counting: Counting, clock: Clock, login: Login
) -> None:
    """One of each profile at a time, however many ask; a new one in the last minute of the old."""
    await login.open(sessions, "alice")
    profiles = (Profile.CONTROL, Profile.TUNNEL)
    await asyncio.gather(*(sessions.credential("alice", profile) for profile in profiles for _ in range(10)))
    assert counting.minted == 2
    before = (await sessions.credential("alice", Profile.TUNNEL)).valid_before
    clock.ahead = before - time.time() - 65
    await sessions.credential("alice", Profile.TUNNEL)
    assert counting.minted == 2
    clock.ahead += 10
    await asyncio.gather(*(sessions.credential("alice", Profile.TUNNEL) for _ in range(10)))
    assert counting.minted > 2


async def test_the_ceiling(sessions: Sessions, counting: Counting, clock: Clock, login: Login) -> None:
    """At the grant's end there is no session any more, and nobody is asked."""
    expires_at = await login.open(sessions, "alice")
    clock.ahead = expires_at - time.time() + 1
    with pytest.raises(NotAllowed, match="Log in again"):
        await sessions.credential("alice", Profile.CONTROL)
    with pytest.raises(NotAllowed):
        sessions.expires_at("alice")
    assert counting.minted == 1 and sessions.users() == []


async def test_a_clock_that_jumps(sessions: Sessions, clock: Clock, login: Login) -> None:
    """A day ahead nobody has a session; set right again, everybody has theirs, and it mints."""
    await login.open(sessions, "alice")
    clock.ahead = 86400
    with pytest.raises(NotAllowed):
        sessions.expires_at("alice")
    clock.ahead = 0
    await sessions.credential("alice", Profile.TUNNEL)
    clock.ahead = -86400
    await sessions.credential("alice", Profile.CONTROL)


async def test_the_next_bridge_has_the_sessions(
    sessions: Sessions, counting: Counting, agent: KeyAgent, store: Store, login: Login
) -> None:
    """As long as the agent holds the key: it mints for it, and lists who has one."""
    expires_at = await login.open(sessions, "alice")
    await login.open(sessions, "bob")
    await login.open(sessions, "user1")
    await sessions.close("bob")
    await agent.remove(sessions._sessions["user1"].public_key)

    after = Sessions(counting, agent, store)
    await after.restore()
    assert after.users() == ["alice"] and after.expires_at("alice") == expires_at
    credential = await after.credential("alice", Profile.TUNNEL)
    assert credential.certificate.key.public_data in await agent.held()


async def test_after_the_ceiling_there_is_nothing_to_restore(
    sessions: Sessions, counting: Counting, clock: Clock, agent: KeyAgent, store: Store, login: Login
) -> None:
    """A session that is over is over for the next bridge too."""
    expires_at = await login.open(sessions, "alice")
    clock.ahead = expires_at - time.time() + 1
    after = Sessions(counting, agent, store, now=clock)
    await after.restore()
    assert after.users() == []


async def test_no_agent(counting: Counting, store: Store, login: Login, short_dir: Path) -> None:
    """A login fails as one that may pass, and leaves no session behind."""
    sessions = Sessions(counting, KeyAgent(short_dir / "nobody.sock"), store)
    with pytest.raises(ProcessAway, match="key agent"):
        await login.open(sessions, "alice")
    assert sessions.users() == [] and store.sessions() == []


async def test_close(sessions: Sessions, login: Login) -> None:
    """After logout nothing is minted; to log out twice is harmless; others stay."""
    await login.open(sessions, "alice")
    await login.open(sessions, "bob")
    await sessions.close("alice")
    await sessions.close("alice")
    with pytest.raises(NotAllowed):
        await sessions.credential("alice", Profile.CONTROL)
    await sessions.credential("bob", Profile.CONTROL)


async def test_no_signer(signer_settings: SignerSettings, agent: KeyAgent, store: Store) -> None:
    """ProcessAway, at the login and later; the session stays for when the signer is back."""
    sessions = Sessions(SignerClient(signer_settings.socket), agent, store)
    async with running(signer_settings):
        await Login(SignerClient(signer_settings.socket)).open(sessions, "alice")
    with pytest.raises(ProcessAway):
        await sessions.credential("alice", Profile.TUNNEL)
    async with running(signer_settings):
        await sessions.credential("alice", Profile.TUNNEL)


async def test_a_form_that_the_signer_does_not_have(
    sessions: Sessions, counting: Counting, login: Login
) -> None:
    """A cluster's form of principals is asked for, each kept by itself; one the signer lacks is refused."""
    await login.open(sessions, "alice")
    plain = await sessions.credential("alice", Profile.CONTROL, "{account}")
    assert plain.certificate.principals == ["alice"]
    minted = counting.minted
    assert await sessions.credential("alice", Profile.CONTROL, "{account}") is plain
    assert counting.minted == minted
    with pytest.raises(ConfigError, match="makes no certificates"):
        await sessions.credential("alice", Profile.CONTROL, "hpchub:{account}")
    assert not sessions.refused, "the login is as good as before"
    counting.change = lambda made: replace(made, principal="hpchub:alice")
    with pytest.raises(NotAllowed, match="not alice's"):
        await sessions.credential("alice", Profile.TUNNEL)


async def test_a_lying_signer(sessions: Sessions, counting: Counting, login: Login) -> None:
    """A certificate for another principal is refused, whoever signed it."""
    key_id, public_key = sessions.new_key()
    other = await counting.certificate(await login.grant("bob", public_key), public_key, Profile.CONTROL)
    counting.change = lambda made: replace(made, certificate=other.certificate)
    with pytest.raises(NotAllowed, match="not alice's"):
        await sessions.open("alice", key_id, await login.grant("alice", public_key))


async def test_nothing_secret_shows(sessions: Sessions, login: Login) -> None:
    """The repr of a session and of a credential show neither grant nor key."""
    key_id, public_key = sessions.new_key()
    grant = await login.grant("alice", public_key)
    await sessions.open("alice", key_id, grant)
    session = sessions._sessions["alice"]
    shown = repr(session) + repr(sessions) + repr(await sessions.credential("alice", Profile.CONTROL))
    assert grant.reveal() not in shown and "PRIVATE" not in shown
