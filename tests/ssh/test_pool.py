from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from hpchub.core.certificate import Profile
from hpchub.core.command import Command
from hpchub.errors import (
    AccountProblem,
    CertificateExpired,
    HostKeyMismatch,
    HostUnreachable,
    InvalidRequest,
    NoSession,
)
from hpchub.ssh import runner
from hpchub.ssh.credentials import Credential
from hpchub.ssh.detours import Detours
from hpchub.ssh.pool import Pool
from support.children import frozen, kill_descendants
from support.ports import free_port

from .conftest import (
    IMPATIENT,
    QUICK,
    USER,
    RealNode,
    Source,
    Starter,
    known_hosts_line,
    start_sshd,
    stop_sshd,
)

PoolFor = Callable[..., Pool]
ECHO = Command(argv=("echo", "hello"))


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_callers_share_one_connection(fake_node: Starter, pool_for: PoolFor, source: Source) -> None:
    """Ten commands at once for one user cost one handshake and one certificate."""
    async with fake_node() as node, pool_for(node.port) as pool:
        results = await asyncio.gather(*(pool.run("alice", "alpha", ECHO) for _ in range(10)))
        assert [one.stdout for one in results] == ["hello\n"] * 10
        assert node.logins == 1 and source.asked == [("alice", Profile.CONTROL)]


async def test_a_query_is_the_certificates_own_command(
    bash_node: RealNode, pool_for: PoolFor, source: Source
) -> None:
    """Its input reaches the forced command, its argv nobody; noise before the marker is kept apart."""
    (bash_node.home / ".bashrc").write_text("echo welcome\n")
    try:
        async with pool_for(bash_node.port) as pool:
            asked = Command(argv=("squeue", "--canary"), stdin=b"status - 42\n")
            answers = await asyncio.gather(*(pool.query(USER, "alpha", asked) for _ in range(3)))
            for answer in answers:
                assert (answer.exit_code, answer.noise) == (7, "welcome\n")
                assert answer.stdout == "forced\nstatus - 42\n30\n"
            # A person of that name would have connections of their own.
            assert (await pool.run(USER, "alpha", ECHO)).stdout == "hello\n"
        assert source.asked == [(USER, Profile.QUERY), (USER, Profile.CONTROL)]
    finally:
        (bash_node.home / ".bashrc").unlink()


async def test_ninth_session_waits(fake_node: Starter, pool_for: PoolFor) -> None:
    """Of twenty commands no more than eight are open at once, and none is refused."""
    async with fake_node() as node, pool_for(node.port) as pool:
        node.gate.clear()
        running = [asyncio.create_task(pool.run("alice", "alpha", ECHO)) for _ in range(20)]
        await until(lambda: node.sessions >= 8)
        await asyncio.sleep(0.1)
        assert node.sessions == 8
        node.gate.set()
        await asyncio.gather(*running)
        assert node.most_sessions == 8 and node.refused_sessions == 0


async def test_fewer_sessions_than_usual(fake_node: Starter, pool_for: PoolFor) -> None:
    """A site with MaxSessions 2 costs waiting, not failures."""
    async with fake_node() as node, pool_for(node.port) as pool:
        node.max_sessions = 2
        results = await asyncio.gather(*(pool.run("alice", "alpha", ECHO) for _ in range(8)))
        assert {one.stdout for one in results} == {"hello\n"}


async def test_many_users_lose_no_handshake(fake_node: Starter, pool_for: PoolFor) -> None:
    """Twenty users at once: at most four handshakes in flight, and all get in."""
    async with fake_node() as node, pool_for(node.port, limits=replace(QUICK, login_timeout_s=20)) as pool:
        await asyncio.gather(*(pool.run(f"user{n}", "alpha", ECHO) for n in range(20)))
        assert node.logins == 20 and node.most_handshakes <= 4


async def test_dropped_handshake_is_tried_again(fake_node: Starter, pool_for: PoolFor) -> None:
    """Where sshd drops handshakes because others keep it busy, the pool tries again."""
    async with fake_node() as node, pool_for(node.port) as pool:
        node.max_startups = 0
        waiting = asyncio.create_task(pool.run("alice", "alpha", ECHO))
        await until(lambda: node.most_handshakes >= 1)
        node.max_startups = 10
        assert (await waiting).stdout == "hello\n"


async def test_next_node_when_one_is_down(fake_node: Starter, pool_for: PoolFor) -> None:
    """A login node that refuses is passed over, and the user's later commands stay on the other."""
    async with fake_node() as node:
        for user in ("alice", "bob"):  # of which one prefers the dead node
            async with pool_for(free_port(), node.port) as pool:
                await pool.run(user, "alpha", ECHO)
                assert await pool.node_of(user, "alpha") == "login2"
                assert (await pool.run(user, "alpha", ECHO)).stdout == "hello\n"
        assert node.logins == 2


async def test_another_node_where_one_answers_nothing(fake_node: Starter, pool_for: PoolFor) -> None:
    """A login node that lets people in and whose commands hang, as where it is cut off from the cluster, is
    passed over by whoever met that, for a while; where there is no other, it is tried again.
    """
    async with fake_node() as one, fake_node() as two, pool_for(one.port, two.port) as pool:
        slow = await pool.node_of("alice", "alpha")
        hanging, other = (one, two) if slow == "login1" else (two, one)
        hanging.gate.clear()
        with pytest.raises(HostUnreachable, match=f"echo on {slow}"):
            await pool.run("alice", "alpha", replace(ECHO, timeout_s=0.2))
        assert (await pool.run("alice", "alpha", ECHO)).stdout == "hello\n"
        assert await pool.node_of("alice", "alpha") != slow and other.logins == 1
        with pytest.raises(HostUnreachable):  # a named node is what was asked for
            await pool.run("alice", "alpha", replace(ECHO, timeout_s=0.2), node=slow)
        hanging.gate.set()
        pool.avoid("alice", "alpha", next(name for name in ("login1", "login2") if name != slow))
        assert await pool.node_of("alice", "alpha") == slow


@pytest.mark.slow
async def test_another_node_where_one_opens_no_session(fake_node: Starter, pool_for: PoolFor) -> None:
    """A login node that lets people in and starts nothing for them is passed over, as one that hangs is."""
    async with fake_node() as one, fake_node() as two, pool_for(one.port, two.port) as pool:
        full = await pool.node_of("alice", "alpha")
        (one if full == "login1" else two).max_sessions = 0
        with pytest.raises(HostUnreachable, match=f"{full} opens no session"):
            await pool.run("alice", "alpha", ECHO)
        assert (await pool.run("alice", "alpha", ECHO)).stdout == "hello\n"
        assert await pool.node_of("alice", "alpha") != full


def test_detours_end() -> None:
    """They hold for one person on one cluster, and for ten minutes."""
    now = [100.0]
    detours = Detours(lambda: now[0])
    for node in ("login1", "login2"):
        detours.avoid("alice", "alpha", node)
        now[0] += 1
    assert [detours.since("alice", "alpha", node) for node in ("login1", "login2", "login3")] == [100, 101, 0]
    assert detours.since("bob", "alpha", "login1") == detours.since("alice", "beta", "login1") == 0
    now[0] += 599
    assert [detours.since("alice", "alpha", node) for node in ("login1", "login2")] == [0, 101]


async def test_users_spread_over_nodes(fake_node: Starter, pool_for: PoolFor) -> None:
    """Each user has a node of their own choice, and all of their connections go there."""
    async with fake_node() as one, fake_node() as two, pool_for(one.port, two.port) as pool:
        names = [await pool.node_of(f"user{n}", "alpha") for n in range(8)]
        assert set(names) == {"login1", "login2"}
        logins = one.logins
        await asyncio.gather(*(pool.tunnel(f"user{n}", "alpha") for n in range(8)))
        assert one.logins == logins + names.count("login1")


async def test_all_nodes_down(pool_for: PoolFor) -> None:
    """The refusal names every node that was tried, and why, and may be tried again."""
    async with pool_for(free_port(), free_port()) as pool:
        with pytest.raises(HostUnreachable, match=r"login\d: .*refused; login\d: ") as caught:
            await pool.run("alice", "alpha", ECHO)
        assert caught.value.retryable


async def test_wrong_host_key(fake_node: Starter, pool_for: PoolFor, source: Source) -> None:
    """A host with another key is never logged in to, nor is the next node tried."""
    other = asyncssh.generate_private_key("ssh-ed25519")
    async with fake_node() as node, fake_node() as second:
        async with pool_for(node.port, second.port, lines=known_hosts_line("127.0.0.1", other)) as pool:
            with pytest.raises(HostKeyMismatch, match=r"login\d showed") as caught:
                await pool.run("alice", "alpha", ECHO)
        assert not caught.value.retryable and node.logins + second.logins == 0


async def test_a_wrong_host_key_is_not_looked_at_again(
    fake_node: Starter, pool_for: PoolFor, host_key: asyncssh.SSHKey, tmp_path: Path
) -> None:
    """However often somebody asks: before the file has changed, the host is not spoken to. Then it is."""
    other = asyncssh.generate_private_key("ssh-ed25519")
    async with (
        fake_node() as node,
        pool_for(node.port, lines=known_hosts_line("127.0.0.1", other)) as pool,
    ):
        for _ in range(5):
            with pytest.raises(HostKeyMismatch, match=r"login1 showed"):
                await pool.run("alice", "alpha", ECHO)
        assert node.seen == 1
        (tmp_path / "known_hosts").write_text(known_hosts_line("127.0.0.1", host_key))
        assert (await pool.run("alice", "alpha", ECHO)).exit_code == 0


async def test_known_by_name_and_by_authority(
    fake_node: Starter, pool_for: PoolFor, host_key: asyncssh.SSHKey
) -> None:
    """A known_hosts line may give the node's name instead of its address."""
    async with fake_node() as node:
        async with pool_for(node.port, lines=known_hosts_line(f"[login1]:{node.port}", host_key)) as pool:
            assert (await pool.run("alice", "alpha", ECHO)).exit_code == 0
        async with pool_for(node.port, lines=known_hosts_line("login7", host_key)) as pool:
            with pytest.raises(HostKeyMismatch):
                await pool.run("alice", "alpha", ECHO)


async def test_host_certificate(
    bash_node: RealNode, ca: asyncssh.SSHKey, host_key: asyncssh.SSHKey, pool_for: PoolFor
) -> None:
    """An `@cert-authority` line admits a host whose certificate bears the node's name, and no other."""
    hosts = asyncssh.generate_private_key("ssh-ed25519")
    for name in ("login1", "elsewhere"):
        certificate = hosts.generate_host_certificate(host_key, "h", principals=[name])
        path = bash_node.home.parent / f"host-{name}-cert.pub"
        path.write_bytes(certificate.export_certificate())
        node = start_sshd(ca, host_key, "/bin/bash", f"HostCertificate {path}\n")
        try:
            async with pool_for(node.port, lines="@cert-authority " + known_hosts_line("*", hosts)) as pool:
                if name == "login1":
                    assert (await pool.run(USER, "alpha", ECHO)).stdout == "hello\n"
                else:
                    with pytest.raises(HostKeyMismatch):
                        await pool.run(USER, "alpha", ECHO)
        finally:
            stop_sshd(node)


async def test_refused_certificate(bash_node: RealNode, pool_for: PoolFor, source: Source) -> None:
    """sshd's refusal is an AccountProblem, logged there once: the bare key is not offered after it."""
    source.principal = "somebody-else"
    before = bash_node.log.read_text().count("Failed publickey")
    async with pool_for(bash_node.port) as pool:
        with pytest.raises(AccountProblem, match=f"login1 refused {USER}'s certificate"):
            await pool.run(USER, "alpha", ECHO)
    assert bash_node.log.read_text().count("Failed publickey") == before + 1


async def test_expired_certificate_is_not_tried(
    fake_node: Starter, pool_for: PoolFor, source: Source
) -> None:
    """A certificate that has run out is never offered: sshd would count it against the hub."""
    source.lifetime_s = -1
    async with fake_node() as node, pool_for(node.port) as pool:
        with pytest.raises(CertificateExpired):
            await pool.run("alice", "alpha", ECHO)
        assert node.most_handshakes == 0


@pytest.mark.slow
async def test_open_connection_outlives_its_certificate(
    fake_node: Starter, pool_for: PoolFor, source: Source
) -> None:
    """Expiry ends no connection, and a new connection asks for a new certificate."""
    async with fake_node() as node, pool_for(node.port) as pool:
        source.lifetime_s = 3
        await pool.run("alice", "alpha", ECHO)
        await asyncio.sleep(3)
        await pool.run("alice", "alpha", ECHO)
        assert len(source.asked) == 1
        await pool.drop_user("alice")
        await pool.run("alice", "alpha", ECHO)
        assert len(source.asked) == 2


async def test_lost_connection_is_replaced(fake_node: Starter, pool_for: PoolFor) -> None:
    """After a connection is lost, the next command opens a new one."""
    async with fake_node() as node, pool_for(node.port) as pool:
        await pool.run("alice", "alpha", ECHO)
        node.connections[0].abort()
        await asyncio.sleep(0.05)
        assert (await pool.run("alice", "alpha", ECHO)).stdout == "hello\n"
        assert node.logins == 2


async def test_who_lost_a_command_can_still_wait_with_a_limit(fake_node: Starter, pool_for: PoolFor) -> None:
    """A server's life asks, is cut off, and pauses before it tries again: that must not be its end."""
    async with fake_node() as node, pool_for(node.port) as pool:
        node.gate.clear()

        async def cut() -> None:
            await until(lambda: node.begun == 1)
            node.connections[0].abort()

        cutting = asyncio.create_task(cut())
        with pytest.raises(HostUnreachable):
            await pool.run("alice", "alpha", ECHO)
        await cutting
        this = asyncio.current_task()
        assert this is not None and this.cancelling() == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()


async def test_drop_user_closes_only_theirs(fake_node: Starter, pool_for: PoolFor) -> None:
    """Dropping alice ends her running command and leaves bob's."""
    async with fake_node() as node, pool_for(node.port) as pool:
        node.gate.clear()
        alice = asyncio.create_task(pool.run("alice", "alpha", ECHO))
        bob = asyncio.create_task(pool.run("bob", "alpha", ECHO))
        await until(lambda: node.begun == 2)
        await pool.drop_user("alice")
        with pytest.raises(HostUnreachable):
            await alice
        node.gate.set()
        assert (await bob).stdout == "hello\n"


async def test_a_lasting_session_costs_no_second_handshake(bash_node: RealNode, pool_for: PoolFor) -> None:
    """One server's session lives on the connection for its owner's commands; the fifth is elsewhere."""
    async with pool_for(bash_node.port) as pool:
        await pool.run(USER, "alpha", ECHO)
        sessions = [await pool.open_session(USER, "alpha", ["cat"], node="login1") for _ in range(4)]
        assert [(one.use, one.sessions) for one in pool.connections()] == [("commands", 4)]
        sessions.append(await pool.open_session(USER, "alpha", ["cat"], node="login1"))
        assert [(one.use, one.sessions) for one in pool.connections()] == [("commands", 4), ("sessions", 1)]
        await asyncio.gather(*(session.close() for session in sessions))
        assert {one.sessions for one in pool.connections()} == {0}


@pytest.mark.slow
@pytest.mark.parametrize("most", [1, 2, 3])
async def test_lasting_sessions_where_sshd_allows_few(
    most: int, ca: asyncssh.SSHKey, host_key: asyncssh.SSHKey, pool_for: PoolFor
) -> None:
    """With MaxSessions 1 lasting sessions and commands find connections of their own, and none waits."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for a mount namespace")
    node = start_sshd(ca, host_key, "/bin/bash", f"MaxSessions {most}\n")
    try:
        async with pool_for(node.port) as pool, asyncio.timeout(10):
            await pool.run(USER, "alpha", ECHO)
            for _ in range(3):
                session = await pool.open_session(USER, "alpha", ["cat"], node="login1")
                results = await asyncio.gather(*(pool.run(USER, "alpha", ECHO) for _ in range(4)))
                assert {one.stdout for one in results} == {"hello\n"}
                session.streams.writer.write(b"alive\n")
                assert await session.streams.reader.readline() == b"alive\n"
    finally:
        stop_sshd(node)


async def test_lasting_sessions_do_not_starve_commands(bash_node: RealNode, pool_for: PoolFor) -> None:
    """Ten sessions that stay leave room on the connection for commands: one still runs at once."""
    async with pool_for(bash_node.port) as pool:
        sessions = await asyncio.gather(
            *(pool.open_session(USER, "alpha", ["cat"], node="login1") for _ in range(10))
        )
        async with asyncio.timeout(5):
            assert (await pool.run(USER, "alpha", ECHO)).stdout == "hello\n"
        for number, session in enumerate(sessions):
            session.streams.writer.write(b"%d\0\n" % number)
            assert await session.streams.reader.readline() == b"%d\0\n" % number
        await asyncio.gather(*(session.close() for session in sessions))


async def test_idle_connections_are_closed(fake_node: Starter, pool_for: PoolFor) -> None:
    """A connection that nobody uses is closed after a while."""
    async with fake_node() as node, pool_for(node.port, limits=replace(QUICK, idle_s=0.2)) as pool:
        await pool.run("alice", "alpha", ECHO)
        async with asyncio.timeout(10):
            await node.connections[0].wait_closed()


@pytest.mark.slow
async def test_frozen_peer_is_detected(
    ca: asyncssh.SSHKey, host_key: asyncssh.SSHKey, pool_for: PoolFor
) -> None:
    """A login node that stops answering without closing anything is given up by keepalive."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for a mount namespace")
    node = start_sshd(ca, host_key, "/bin/bash")
    try:
        async with pool_for(node.port, limits=IMPATIENT) as pool:
            connection = await pool.tunnel(USER, "alpha")
            with frozen(node.process.pid):
                async with asyncio.timeout(30):  # far below what TCP itself would take to notice
                    await connection.wait_closed()
    finally:
        stop_sshd(node)


@pytest.mark.slow
async def test_connection_lost_amid_a_command_is_said(
    ca: asyncssh.SSHKey, host_key: asyncssh.SSHKey, pool_for: PoolFor
) -> None:
    """A command whose connection dies raises our own error, which may be tried again; the pool goes on."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for a mount namespace")
    node = start_sshd(ca, host_key, "/bin/bash")
    try:
        async with pool_for(node.port) as pool:
            await pool.run(USER, "alpha", Command(argv=("true",)))
            note = node.home / "begun"
            stays = Command(argv=("sh", "-c", 'cat >"$1"; sleep 60', "sh", str(note)), stdin=b"begun")
            running = asyncio.create_task(pool.run(USER, "alpha", stays))
            # Its input is sent by who knows that it has begun: before that it would be sent again.
            await until(lambda: note.exists() and note.read_bytes() == b"begun")
            kill_descendants(node.process.pid)
            with pytest.raises(HostUnreachable) as caught:
                async with asyncio.timeout(30):
                    await running
            assert caught.value.retryable
            again = await pool.run(USER, "alpha", Command(argv=("echo", "back")))
            assert again.stdout == "back\n"
    finally:
        stop_sshd(node)


@pytest.mark.parametrize(("cluster", "node"), [("beta", ""), ("alpha", "login9")])
async def test_unknown_places_are_refused(pool_for: PoolFor, cluster: str, node: str) -> None:
    """A cluster or a login node that nobody described is an invalid request."""
    async with pool_for(free_port()) as pool:
        with pytest.raises(InvalidRequest):
            await pool.run("alice", cluster, ECHO, node=node)


async def test_a_session_whose_command_will_not_end_is_left(
    bash_node: RealNode, pool_for: PoolFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sshd holds a channel while its command lives, and srun lives on when its node is gone: nobody waits."""
    monkeypatch.setattr(runner, "_CLOSE_LIMIT_S", 0.2)
    async with pool_for(bash_node.port) as pool:
        stubborn = ("sh", "-c", "trap : HUP TERM PIPE; sleep 3; sleep 3")
        session = await pool.open_session(USER, "alpha", stubborn, node="login1")
        async with asyncio.timeout(2):
            await session.close()
        assert (await pool.run(USER, "alpha", ECHO)).exit_code == 0


async def test_a_user_s_servers_may_keep_their_connections(fake_node: Starter, pool_for: PoolFor) -> None:
    """Then only the connection for commands is closed; how many were open is told."""
    async with fake_node() as node, pool_for(node.port) as pool:
        await pool.run("alice", "alpha", ECHO)
        tunnel = await pool.tunnel("alice", "alpha")
        assert await pool.drop_user("alice", keep_servers=True) == 1
        assert [one.use for one in pool.connections()] == ["tunnels"]
        assert not tunnel.is_closed()
        assert await pool.drop_user("alice") == 1
        assert pool.connections() == []
        assert await pool.drop_user("alice") == 0


async def test_a_server_on_the_connection_for_commands_keeps_it_for_itself_alone(
    bash_node: RealNode, pool_for: PoolFor, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lasting session outlives the login; no command goes through its connection, which ends with it."""
    async with pool_for(bash_node.port) as pool:
        await pool.run(USER, "alpha", ECHO)
        sessions = [await pool.open_session(USER, "alpha", ["cat"], node="login1") for _ in range(2)]
        assert [(one.use, one.sessions) for one in pool.connections()] == [("commands", 2)]
        assert await pool.drop_user(USER, keep_servers=True) == 0

        async def refuse(_user: str, _profile: Profile, _form: str) -> Credential:
            raise NoSession("logged out")

        with monkeypatch.context() as patch:
            patch.setattr(source, "credential", refuse)
            with pytest.raises(NoSession):
                await pool.run(USER, "alpha", ECHO)
            with pytest.raises(NoSession):
                await pool.open_session(USER, "alpha", ["cat"], node="login1")
        await pool.run(USER, "alpha", ECHO)  # after the next login: over a connection of its own
        for session in sessions:
            session.streams.writer.write(b"alive\n")
            assert await session.streams.reader.readline() == b"alive\n"
        assert sorted(one.sessions for one in pool.connections()) == [0, 2]
        await sessions[0].close()
        assert sorted(one.sessions for one in pool.connections()) == [0, 1]
        await sessions[1].close()
        assert [one.sessions for one in pool.connections()] == [0]


async def test_a_kept_connection_is_closed_by_a_revocation(bash_node: RealNode, pool_for: PoolFor) -> None:
    """What a logout has left open, a later call for all of a user's connections finds and closes."""
    async with pool_for(bash_node.port) as pool:
        await pool.run(USER, "alpha", ECHO)
        session = await pool.open_session(USER, "alpha", ["cat"], node="login1")
        assert await pool.drop_user(USER, keep_servers=True) == 0
        assert await pool.drop_user(USER) == 1
        assert await session.streams.reader.read() == b""
        assert pool.connections() == []
        await session.close()


async def test_commands_that_wait_do_not_get_a_kept_connection(
    bash_node: RealNode, pool_for: PoolFor, source: Source
) -> None:
    """Who waited for a session on it when the login ended is told at once, or goes another way."""
    async with pool_for(bash_node.port, limits=replace(QUICK, sessions_per_connection=2)) as pool:
        await pool.run(USER, "alpha", ECHO)
        session = await pool.open_session(USER, "alpha", ["cat"], node="login1")
        slow = asyncio.create_task(pool.run(USER, "alpha", Command(argv=("sleep", "1"))))
        waiting = asyncio.create_task(pool.run(USER, "alpha", ECHO))
        await until(lambda: [one.sessions for one in pool.connections()] == [2])
        asked = len(source.asked)
        assert await pool.drop_user(USER, keep_servers=True) == 0
        assert (await waiting).stdout == "hello\n"
        assert len(source.asked) == asked + 1
        await slow
        await session.close()
        assert len(pool.connections()) == 1
