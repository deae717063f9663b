"""Live connections are closed when their login ends, whoever restarts meanwhile; nobody else's are."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from typing import Any

import pytest

from hpchub.bridge.ends import Ends
from hpchub.bridge.service_account import WithServiceAccounts
from hpchub.bridge.sessions import Sessions
from hpchub.bridge.store import Store
from hpchub.core.certificate import Profile
from hpchub.core.server import ConnectionView
from hpchub.errors import ConfigError, NotAllowed
from hpchub.signer.client import SignerClient
from hpchub.signer.server import running
from hpchub.signer.settings import SignerSettings
from hpchub.ssh.key_agent import KeyAgent

from .conftest import Login
from .slurm import FakeSlurm

BY = {"reason": "test", "by": "tests"}


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pool() -> FakeSlurm:
    """What stands for the pool holds two connections of alice's and one of bob's."""
    pool = FakeSlurm()
    pool.open = [
        connection("alice", "commands"),
        connection("alice", "tunnels"),
        connection("bob", "tunnels"),
    ]
    return pool


def connection(user: str, use: str) -> ConnectionView:
    return ConnectionView(
        user=user, cluster="alpha", node="login1", use=use, sessions=0, channels=0, idle_s=0.0
    )


def holders(pool: FakeSlurm) -> list[str]:
    return sorted({one.user for one in pool.open})


@pytest.fixture
def sessions(signer: SignerClient, clock: Clock, agent: KeyAgent, store: Store) -> Sessions:
    return Sessions(signer, agent, store, now=clock)


def watching(
    sessions: Sessions, pool: FakeSlurm, signer: SignerClient, *, keep_tunnels: bool = False
) -> Ends:
    accounts = WithServiceAccounts(sessions, signer)
    return Ends(sessions, pool, signer, accounts, keep_tunnels=keep_tunnels)  # type: ignore[arg-type]


@pytest.fixture
def ends(sessions: Sessions, pool: FakeSlurm, signer: SignerClient) -> Ends:
    return watching(sessions, pool, signer)


@pytest.fixture
async def both(sessions: Sessions, login: Login) -> None:
    for user in ("alice", "bob"):
        await login.open(sessions, user)


def recorded(settings: SignerSettings, event: str) -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in settings.audit_log.read_text().splitlines()]
    return [(one["user"], one["reason"]) for one in lines if one["event"] == event]


@pytest.mark.usefixtures("both")
async def test_revoked(
    ends: Ends, sessions: Sessions, pool: FakeSlurm, signer: SignerClient, signer_settings: SignerSettings,
    agent: KeyAgent, store: Store,
) -> None:  # fmt: skip
    """The user's connections are closed and recorded, the session and its key are gone; bob goes on."""
    await ends.look()
    assert holders(pool) == ["alice", "bob"]
    held = len(await agent.held())
    await signer.revoke("alice", **BY)
    await ends.look()
    assert holders(pool) == ["bob"] and sessions.users() == ["bob"]
    assert len(await agent.held()) == held - 1 and [one.user for one in store.sessions()] == ["bob"]
    with pytest.raises(NotAllowed):
        await sessions.credential("alice", Profile.CONTROL)
    await sessions.credential("bob", Profile.TUNNEL)
    await ends.look()
    assert recorded(signer_settings, "disconnected") == [("alice", "revoked: 2 connections")]


async def test_revoked_while_the_session_is_opened(
    ends: Ends, sessions: Sessions, signer: SignerClient, agent: KeyAgent, login: Login,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """After the first certificate, before the session is there: it does not begin, and its key is gone."""
    held, add = len(await agent.held()), agent.add

    async def slow(*given: Any) -> None:
        await add(*given)
        await signer.revoke("alice", **BY)
        await ends.look()

    monkeypatch.setattr(agent, "add", slow)
    with pytest.raises(NotAllowed, match="no live session"):
        await login.open(sessions, "alice")
    assert sessions.users() == [] and len(await agent.held()) == held


@pytest.mark.parametrize("target", ["slurmwatch", "serial"])
async def test_a_service_account(
    sessions: Sessions, pool: FakeSlurm, signer: SignerClient, signer_settings: SignerSettings, target: str
) -> None:
    """Its connections are closed too, its key is used no more; where the signer lets it, it goes on."""
    accounts = WithServiceAccounts(sessions, signer)
    ends = Ends(sessions, pool, signer, accounts)  # type: ignore[arg-type]
    before = await accounts.credential("slurmwatch", Profile.QUERY)
    pool.open.append(connection("slurmwatch", "queries"))
    serial = str(before.certificate._serial)  # type: ignore[attr-defined]
    await signer.revoke(serial if target == "serial" else target, **BY)
    await ends.look()
    assert holders(pool) == ["alice", "bob"]
    assert recorded(signer_settings, "disconnected") == [("slurmwatch", "revoked: 1 connections")]
    if target != "serial":
        with pytest.raises(ConfigError):
            await accounts.credential("slurmwatch", Profile.QUERY)
        await signer.undo_revocation(target, **BY)
    after = await accounts.credential("slurmwatch", Profile.QUERY)
    assert after.certificate.key != before.certificate.key


@pytest.mark.slow
async def test_within_five_seconds(
    ends: Ends, sessions: Sessions, pool: FakeSlurm, signer: SignerClient, login: Login
) -> None:
    """By itself, and for a service that somebody revokes by serial."""
    await login.open(sessions, "alice")
    credential = await sessions.credential("alice", Profile.TUNNEL)
    ends.begin()
    try:
        await asyncio.sleep(0.05)
        began = time.monotonic()
        await signer.revoke(str(credential.certificate._serial), **BY)  # type: ignore[attr-defined]
        async with asyncio.timeout(5):
            while "alice" in holders(pool):  # noqa: ASYNC110  what the bridge does is seen from outside
                await asyncio.sleep(0.02)
        assert time.monotonic() - began < 2
    finally:
        await ends.close()


@pytest.mark.usefixtures("both")
async def test_logged_out(
    ends: Ends, sessions: Sessions, pool: FakeSlurm, signer_settings: SignerSettings, login: Login
) -> None:
    """The signer mints no more for that grant; the next login is not touched by the end of the one before."""
    await ends.log_out("alice")
    assert holders(pool) == ["bob"]
    assert recorded(signer_settings, "logout") == [("alice", "by the person")]
    assert recorded(signer_settings, "disconnected") == [("alice", "logged out: 2 connections")]
    await login.open(sessions, "alice")
    pool.open.append(connection("alice", "commands"))
    await ends.look()
    assert holders(pool) == ["alice", "bob"]


@pytest.mark.usefixtures("both")
async def test_the_ceiling(ends: Ends, sessions: Sessions, pool: FakeSlurm, clock: Clock) -> None:
    """At the ceiling all is closed, once; a clock that jumped back finds the session again."""
    clock.ahead = 43_100
    await ends.look()
    assert holders(pool) == ["alice", "bob"]
    clock.ahead = 43_210
    await ends.look()
    assert holders(pool) == []
    with pytest.raises(NotAllowed):
        await sessions.credential("alice", Profile.CONTROL)
    clock.ahead = 0
    await sessions.credential("alice", Profile.CONTROL)
    await ends.look()
    pool.open.append(connection("alice", "commands"))
    clock.ahead = 43_210
    await ends.look()
    assert holders(pool) == []


@pytest.mark.usefixtures("both")
async def test_a_key_of_an_earlier_login(
    ends: Ends, sessions: Sessions, pool: FakeSlurm, signer: SignerClient, login: Login
) -> None:
    """Connections that it opened may still be open: they are closed, and the newer login stays."""
    key = (await sessions.credential("alice", Profile.TUNNEL)).certificate
    await login.open(sessions, "alice")
    await ends.look()  # to log in again ends the earlier login, and closes nothing
    assert holders(pool) == ["alice", "bob"]
    await signer.revoke(str(key._serial), **BY)  # type: ignore[attr-defined]
    await ends.look()
    assert holders(pool) == ["bob"]
    await sessions.credential("alice", Profile.TUNNEL)


async def test_the_signer_restarts(
    signer_settings: SignerSettings, clock: Clock, agent: KeyAgent, store: Store, pool: FakeSlurm,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """While it is away nothing is closed, the log says so once; what was revoked before is heard after."""
    signer = SignerClient(signer_settings.socket)
    sessions = Sessions(signer, agent, store, now=clock)
    ends = watching(sessions, pool, signer)
    async with running(signer_settings):
        await Login(signer).open(sessions, "alice")
        await ends.look()
        await signer.revoke("alice", **BY)
    await ends.look()
    await ends.look()
    assert holders(pool) == ["alice", "bob"] and caplog.text.count("ends.unknown") == 1
    async with running(signer_settings):
        await ends.look()
    assert holders(pool) == ["bob"]


async def test_the_bridge_restarts(
    ends: Ends, sessions: Sessions, pool: FakeSlurm, signer: SignerClient, clock: Clock, agent: KeyAgent,
    store: Store, login: Login,
) -> None:  # fmt: skip
    """A revocation while no bridge ran is heard by the next: it closes, and forgets the session."""
    await login.open(sessions, "alice")
    await signer.revoke("alice", **BY)
    following = Sessions(signer, agent, store, now=clock)
    await following.restore()
    assert following.users() == ["alice"]
    await watching(following, pool, signer).look()
    assert following.users() == [] and holders(pool) == ["bob"]
    assert store.sessions() == []


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize("trouble", ["session.unwritable", "ends.crashed"])
async def test_one_person_s_trouble_is_not_the_others(
    trouble: str, ends: Ends, sessions: Sessions, pool: FakeSlurm, signer: SignerClient,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """A store that cannot be written, or an agent that fails as nobody foresaw, keeps no connection open."""
    await signer.revoke("alice", **BY)
    await signer.revoke("bob", **BY)

    def full(_user: str) -> None:
        raise OSError("disk full")

    async def broken(_key: object) -> None:
        raise OSError("unforeseen")

    if trouble == "session.unwritable":
        monkeypatch.setattr(sessions._store, "drop_session", full)
    else:
        monkeypatch.setattr(sessions._agent, "remove", broken)
    await ends.look()
    assert holders(pool) == [] and sessions.users() == []
    assert caplog.text.count(trouble) == 2


@pytest.mark.usefixtures("both")
async def test_a_site_may_keep_tunnels(
    sessions: Sessions, pool: FakeSlurm, signer: SignerClient, clock: Clock, login: Login
) -> None:
    """Logging out and the ceiling then close commands alone; a revocation closes all the same."""
    ends = watching(sessions, pool, signer, keep_tunnels=True)
    await ends.log_out("alice")
    assert [(one.user, one.use) for one in pool.open] == [("alice", "tunnels"), ("bob", "tunnels")]
    with pytest.raises(NotAllowed):
        await sessions.credential("alice", Profile.TUNNEL)
    clock.ahead = 43_210
    await ends.look()
    assert holders(pool) == ["alice", "bob"]
    clock.ahead = 0
    await signer.revoke("bob", **BY)
    await ends.look()
    assert holders(pool) == ["alice"]


@pytest.mark.usefixtures("both")
async def test_what_the_signer_refuses_is_over(
    ends: Ends, sessions: Sessions, pool: FakeSlurm, signer_settings: SignerSettings
) -> None:
    """A login that the ledger does not know, revoked with its user, ends when it asks for a certificate."""
    path = signer_settings.state_dir / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as ledger, ledger:
        ledger.execute("DELETE FROM grants")
        ledger.execute(
            "INSERT INTO refusals VALUES ('before', 'alice', ?, NULL, 'revoked')", (int(time.time()) + 9,)
        )
    await ends.look()
    assert holders(pool) == ["alice", "bob"]
    with pytest.raises(NotAllowed):
        await sessions.credential("alice", Profile.TUNNEL)
    await ends.look()
    assert holders(pool) == ["bob"] and sessions.users() == ["bob"]
