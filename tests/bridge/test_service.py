"""The whole bridge behind its socket, through its client: every call, and what each refuses."""

from __future__ import annotations

import asyncio
import json
import logging
import stat
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from golden.reader import golden

from hpchub.bridge import service as service_module
from hpchub.bridge.outlook import Outlook
from hpchub.bridge.settings import BridgeSettings
from hpchub.bridge.store import Store
from hpchub.core.cluster import Cluster
from hpchub.core.server import SETTLED, Phase
from hpchub.errors import (
    AccountProblem,
    ConfigError,
    InvalidRequest,
    NotAllowed,
    StartFailed,
    UnexpectedOutput,
)
from hpchub.signer.answers import Certificate
from hpchub.ssh.key_agent import KeyAgent
from support import require

from .bridges import TOKEN, Bridge, a_bridge
from .conftest import PASSWORD, Login
from .slurm import FakeSlurm


async def test_the_socket_is_private(bridge: Bridge) -> None:
    """0600 in a folder of 0700, and so is the folder of the servers' sockets."""
    await bridge.client.health()
    for path, mode in (
        (bridge.socket, 0o600),
        (bridge.socket.parent, 0o700),
        (bridge.socket.parent / "s", 0o700),
    ):
        assert stat.S_IMODE(path.stat().st_mode) == mode


async def test_a_hub_with_an_account_of_its_own(
    settings: BridgeSettings,
    clusters: dict[str, Cluster],
    store: Store,
    login: Login,
    agent: KeyAgent,
    slurm: FakeSlurm,
) -> None:
    """Where the settings name its group, that reaches the servers' sockets, and nobody else does."""
    require.root()
    group = 20620
    shared = replace(settings, group=group, socket=settings.runtime_dir / "api" / "bridge.sock")
    async with a_bridge(shared, clusters, store, login, agent) as bridge:
        await bridge.log_in("alice")
        view = await bridge.start()
        view = await bridge.until(view, Phase.READY)
        for path, mode in ((Path(view.socket), 0o660), (Path(view.socket).parent, 0o750)):
            status = path.stat()
            assert (stat.S_IMODE(status.st_mode), status.st_gid) == (mode, group)


async def test_a_second_bridge_is_refused(
    bridge: Bridge,
    settings: BridgeSettings,
    clusters: dict[str, Cluster],
    store: Store,
    login: Login,
    agent: KeyAgent,
) -> None:
    """Before it touches a socket of the first one's servers."""
    await bridge.log_in("alice")
    view = await bridge.until(await bridge.start(), Phase.READY)
    with pytest.raises(ConfigError, match="already"):
        async with a_bridge(settings, clusters, store, login, agent):
            pass
    assert Path(view.socket).is_socket()


async def test_a_session_over_the_wire(bridge: Bridge) -> None:
    """Opened, asked for, closed; a refusal keeps its class."""
    for call in (
        bridge.client.session("alice"),
        bridge.start(),
        bridge.client.associations("alice", "alpha"),
    ):
        with pytest.raises(NotAllowed, match="no live session"):
            await call
    key_id, public_key = await bridge.client.new_key()
    grant = await bridge._login.grant("alice", public_key)
    with pytest.raises(NotAllowed):
        await bridge.client.open_session("bob", key_id, grant)
    await bridge.log_in("alice")
    assert await bridge.client.session("alice") > time.time() + 43000
    with pytest.raises(NotAllowed):
        await bridge.client.session("bob")
    await bridge.client.close_session("alice")
    with pytest.raises(NotAllowed):
        await bridge.start()


async def test_a_server_over_the_wire(bridge: Bridge) -> None:
    """Started, followed, seen, listed, stopped; its socket is told while it is ready."""
    await bridge.log_in("alice")
    view = await bridge.start()
    assert (view.user, view.cluster, view.placement, view.error) == ("alice", "alpha", "login", None)
    seen, after = [], 0
    while view.phase is not Phase.READY:
        view, events, after = await bridge.client.events(view.id, after, 5)
        seen += events
    assert seen[0].phase is Phase.CONNECTING and len(seen) == after
    assert Path(view.socket).is_socket() and view.node == "c1" and view.job_id == "42"
    assert await bridge.client.server(view.id) == view
    assert await bridge.client.servers("alice") == [view] and await bridge.client.servers("bob") == []
    ended = await bridge.client.stop(view.id)
    assert ended.phase is Phase.ENDED and ended.socket == "" and await bridge.client.servers("alice") == []
    assert await bridge.client.stop(view.id) == ended == await bridge.client.server(view.id)


async def test_events_wait_and_do_not_lie(bridge: Bridge) -> None:
    """Without news the answer comes in the time asked for; who counts beyond the end starts again."""
    await bridge.log_in("alice")
    view = await bridge.until(await bridge.start(name="never-runs"), Phase.QUEUED)
    _, events, after = await bridge.client.events(view.id, 0, 0)
    began = time.monotonic()
    async with asyncio.timeout(20):
        _, none, same = await bridge.client.events(view.id, after, 0.2)
    assert (none, same) == ([], after) and time.monotonic() - began > 0.15
    _, again, count = await bridge.client.events(view.id, after + 7, 5)
    assert (again, count) == (events, after)
    waiting = asyncio.create_task(bridge.client.events(view.id, after, 20))
    await asyncio.sleep(0.05)
    await bridge.client.stop(view.id)
    _, news, _ = await asyncio.wait_for(waiting, 10)
    assert news[0].phase is Phase.STOPPING
    for query in ("after=-1", "after=x", "wait_s=nan", "wait_s=-1", "after=1.5"):
        status, answer = await bridge.raw("GET", f"/v1/servers/{view.id}/events?{query}")
        assert (status, answer["error"]) == (422, "InvalidRequest"), query


async def test_who_waits_for_the_end_of_a_start_hears_nothing_before(bridge: Bridge) -> None:
    """One question covers a whole start, and its answer holds all that was told meanwhile."""
    await bridge.log_in("alice")
    view = await bridge.start()
    async with asyncio.timeout(10):
        view, events, after = await bridge.client.events(view.id, 0, 10, settled=True)
    assert view.phase is Phase.READY and after == len(events)
    assert [events[0].phase, events[-1].phase] == [Phase.CONNECTING, Phase.READY]
    waits = await bridge.start(name="never-runs")
    waits, events, _ = await bridge.client.events(waits.id, 0, 0.3, settled=True)
    assert waits.phase not in SETTLED and events
    told = asyncio.create_task(bridge.client.events(waits.id, 0, 10, settled=True))
    await asyncio.sleep(0.05)
    await bridge.client.stop(waits.id)
    ended, _, _ = await asyncio.wait_for(told, 5)
    assert ended.phase is Phase.ENDED


async def test_a_view_tells_what_is_known_of_the_job(bridge: Bridge) -> None:
    """Why and how long while it waits, until when while it runs, and nothing of either afterwards."""
    await bridge.log_in("alice")
    view = await bridge.until(await bridge.start(), Phase.READY)
    life = bridge.service.lives[view.id]
    life.progress.outlook = Outlook(
        reason="Pending.", partition="cpu", queue_place=3, expected_start=1700000000
    )
    life.progress.end.set(1700003600)
    told = {}
    for phase in (Phase.QUEUED, Phase.READY, Phase.STOPPING):
        life.record.phase = phase
        view = await bridge.client.server(view.id)
        told[phase] = (view.reason, view.queue_place, view.expected_start, view.ends_at)
    life.record.phase = Phase.READY
    assert told == {
        Phase.QUEUED: ("Pending.", 3, 1700000000, None),
        Phase.READY: ("", None, None, 1700003600),
        Phase.STOPPING: ("", None, None, None),
    }


async def test_ends_are_told_over_the_api(bridge: Bridge) -> None:
    """A question that waits is answered by a server's end, and by no other's start."""
    await bridge.log_in("alice")
    view = await bridge.until(await bridge.start(name="never-runs"), Phase.QUEUED)
    name, ended, count = await bridge.client.endings("", 0, 0)
    assert (ended, count) == ([], 0)
    waiting = asyncio.create_task(bridge.client.endings(name, count, 20))
    await asyncio.sleep(0.05)
    await bridge.client.stop(view.id)
    assert await asyncio.wait_for(waiting, 10) == (name, [view.id], 1)


@pytest.mark.slow
async def test_the_last_server_of_a_name(bridge: Bridge) -> None:
    """It lives, was stopped or has ended by itself; one that ended long ago is still known."""
    await bridge.log_in("alice")
    last = bridge.client.last_server
    assert await last("alice", "") is None
    first = await bridge.until(await bridge.start(), Phase.READY)
    assert await last("alice", "") == first and await last("bob", "") is await last("alice", "x") is None
    await bridge.client.stop(first.id)
    found = await last("alice", "")
    assert found is not None and (found.phase, found.error) == (Phase.ENDED, None)
    await bridge.start()
    found = await last("alice", "")
    assert found is not None and found.id != first.id and found.phase is not Phase.ENDED
    died = await bridge.until(await bridge.start(name="dies"), Phase.ENDED)
    assert isinstance(died.error, StartFailed)
    found = await last("alice", "dies")
    assert found is not None and (found.id, str(found.error)) == (died.id, str(died.error))
    await bridge.service.lives[died.id].ended.wait()  # told first, then stored
    bridge.service.lives[died.id].ended_at = 1.0
    await bridge.start(name="other")
    assert died.id not in bridge.service.lives, "forgotten but by the store"
    found = await last("alice", "dies")
    assert found is not None and (found.id, str(found.error)) == (died.id, str(died.error))


async def test_errors_keep_their_class_and_fields(bridge: Bridge) -> None:
    """A refused option names its field, a failed start has its log; also from the store, after a restart."""
    await bridge.log_in("alice")
    with pytest.raises(InvalidRequest) as caught:
        await bridge.start(cpus="999", placement="compute", nonsense="1")
    assert (
        set(caught.value.fields) == {"cpus", "nonsense"} and "Allowed: 1 to 4" in caught.value.fields["cpus"]
    )
    view = await bridge.until(await bridge.start(name="dies"), Phase.ENDED)
    await bridge.service.lives[view.id].ended.wait()  # told first, then stored
    for _ in range(2):
        assert isinstance(view.error, StartFailed)
        assert (view.error.log_tail, view.error.log_path) == ("no jupyterhub", "server.log")
        for life in bridge.service.lives.values():
            await life.ended.wait()  # the end is told before it is stored
        bridge.service.lives.clear()
        view = await bridge.client.server(view.id)
    view, events, after = await bridge.client.events(view.id, 3, 5)
    assert (view.phase, events, after) == (Phase.ENDED, [], 3)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"canary",
        b"[]",
        b"{}",
        b'{"user": "alice"}',
        b"\xff",
        b"[" * 9999,
        b'{"user": 1, "server_name": "", "options": {}, "environ": {"T": "canary"}, "base_url": "/"}',
        b'{"user": "alice", "server_name": "", "options": [], "environ": {"T": "canary"}, "base_url": "/"}',
        b'{"user": "alice", "server_name": "", "options": {}, "environ": {"T": ["canary"]}, "base_url": "/"}',
        b'{"user": "alice", "server_name": "", "options": {}, "environ": {}, "base_url": "/", "canary": 1}',
        b"canary" * 200_000,
    ],
)
async def test_other_bodies_are_refused(bridge: Bridge, body: bytes) -> None:
    """Exactly the keys, each of its kind; nothing of the body comes back, and nothing starts."""
    await bridge.log_in("alice")
    status, answer = await bridge.raw("POST", "/v1/servers", body)
    assert (status, answer["error"]) == (422, "InvalidRequest") and "canary" not in json.dumps(answer)
    status, answer = await bridge.raw("PUT", "/v1/sessions/alice", body)
    assert (status, answer["error"]) == (422, "InvalidRequest") and "canary" not in json.dumps(answer)
    assert bridge.service.lives == {}


@pytest.mark.parametrize(
    "server_id", ["x", "..", "../../etc/passwd", "a b", "' OR 1=1 --", "0" * 5000, "%00", "-rf", "é"]
)
async def test_unknown_ids_are_refused(bridge: Bridge, slurm: FakeSlurm, server_id: str) -> None:
    """Whatever they look like, and nothing runs anywhere."""
    for call in (
        bridge.client.server(server_id),
        bridge.client.stop(server_id),
        bridge.client.events(server_id, 0, 0),
    ):
        with pytest.raises(InvalidRequest):
            await call
    assert slurm.asked == []


async def test_foreign_methods_and_paths(bridge: Bridge) -> None:
    """Answered in our own shape."""
    for method, path, expected in (
        ("PATCH", "/v1/servers", 405),
        ("GET", "/v2/health", 404),
        ("POST", "/", 404),
    ):
        status, answer = await bridge.raw(method, path)
        assert (status, answer["error"]) == (expected, "InvalidRequest")


async def test_terminals(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signer's refusal comes through as it is, here that the site gives none; so does a certificate."""
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1kzBTMVi4NGTvCMSzYwdZAVMCnfPHjIYVVSiFwHE7b"
    with pytest.raises(NotAllowed, match="no live session"):
        await bridge.client.terminal_certificate("alice", key, "192.0.2.1")
    await bridge.log_in("alice")
    with pytest.raises(NotAllowed, match="gives no certificates"):
        await bridge.client.terminal_certificate("alice", key, "192.0.2.1")
    made = Certificate(
        certificate="made",
        serial=1,
        key_id="k",
        account="alice",
        principal="alice",
        valid_before=7,
        expires_at=7,
    )
    asked: list[tuple[str, ...]] = []

    async def make(*given: str) -> Certificate:
        asked.append(given)
        return made

    monkeypatch.setattr(bridge.service.sessions, "terminal_certificate", make)
    assert await bridge.client.terminal_certificate("alice", key, "192.0.2.1") == ("made", 7)
    assert asked == [("alice", key, "192.0.2.1")]


async def test_slurms_own_tokens(bridge: Bridge, slurm: FakeSlurm) -> None:
    """Asked for as the user, for no other and not without a session; somebody else's token is refused."""
    with pytest.raises(NotAllowed):
        await bridge.client.slurm_token("alice", "alpha", 60)
    await bridge.log_in("alice")
    await bridge.log_in("bob")
    slurm.answers["scontrol"] = lambda _command: golden("scontrol_token")
    token, _ = await bridge.client.slurm_token("alice", "alpha", 60)
    assert token.reveal().endswith(".signature-not-kept")
    asked = [(user, command.argv) for user, _, command in slurm.asked if command.name == "scontrol"]
    assert asked == [("alice", ("scontrol", "token", "lifespan=60"))]
    with pytest.raises(UnexpectedOutput, match="somebody else"):
        await bridge.client.slurm_token("bob", "alpha", 60)
    for cluster, lifespan_s in (("gamma", 60), ("alpha", 86400)):
        with pytest.raises(InvalidRequest):
            await bridge.client.slurm_token("alice", cluster, lifespan_s)


async def test_associations(bridge: Bridge, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for once a minute, for each user and cluster apart; who has none is told so, each time anew."""
    for user in ("alice", "bob"):
        await bridge.log_in(user)
    for _ in range(3):
        rows = await bridge.client.associations("alice", "alpha")
        assert [row.account for row in rows] == ["physics", "chemistry"] and rows[0].is_default
    assert slurm.count("sacctmgr") == 1
    bobs = await bridge.client.associations("bob", "alpha")
    assert bobs != rows
    await bridge.client.associations("alice", "beta")
    assert [asked[:2] for asked in slurm.asked] == [("alice", "alpha"), ("bob", "alpha"), ("alice", "beta")]
    monkeypatch.setattr(service_module, "_ASSOCIATIONS_KEPT_S", 0.0)
    await bridge.client.associations("alice", "alpha")
    assert slurm.count("sacctmgr") == 4
    with pytest.raises(InvalidRequest, match="no cluster 'gamma'"):
        await bridge.client.associations("alice", "gamma")
    await bridge.client.close_session("alice")
    with pytest.raises(NotAllowed):  # what is kept is for live sessions alone
        await bridge.client.associations("alice", "alpha")


async def test_nobody_starts_what_they_may_not_charge(bridge: Bridge, slurm: FakeSlurm) -> None:
    """Another's account is refused with its field; no association at all is told as such."""
    for user in ("alice", "bob"):
        await bridge.log_in(user)
    await bridge.client.associations("alice", "alpha")
    with pytest.raises(InvalidRequest) as caught:
        await bridge.start("bob", placement="compute", account="chemistry")
    assert set(caught.value.fields) == {"account"}
    slurm.answers["sacctmgr"] = lambda command: slurm._sacctmgr(
        type(command)(argv=tuple("carol" if word == "bob" else word for word in command.argv))
    )
    bridge.service._associations.clear()
    for _ in range(2):
        with pytest.raises(AccountProblem, match="no association"):
            await bridge.start("bob", placement="compute")
    assert slurm.count("sacctmgr") == 4 and bridge.service.lives == {}


async def test_no_secret_is_kept_or_logged(
    bridge: Bridge, settings: BridgeSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither token, grant nor password is in a log at any level, in the store's file, or in a repr."""
    caplog.set_level(logging.DEBUG)
    grant = await bridge.log_in("alice")
    ready = await bridge.until(await bridge.start(), Phase.READY)
    queued = await bridge.until(await bridge.start(name="never-runs"), Phase.QUEUED)
    await bridge.until(await bridge.start(name="dies"), Phase.ENDED)
    with pytest.raises(InvalidRequest):
        await bridge.start(cpus="-1", placement="compute")
    lives = [vars(bridge.service.lives[view.id]) for view in (ready,)]
    records = [bridge.service.lives[view.id].record for view in (ready, queued)]
    shown = "".join(
        map(repr, (lives, records, bridge.service, vars(bridge.service), vars(bridge.service.sessions)))
    )
    stored = ""
    for path in tmp_path.glob("bridge.db*"):
        with suppress(FileNotFoundError):  # SQLite's journal comes and goes
            stored += path.read_text("latin-1")
    assert "canary" not in repr(await bridge.client.servers("alice"))
    for secret in (TOKEN, PASSWORD, grant.reveal()):
        assert secret not in caplog.text and secret not in stored and secret not in shown
