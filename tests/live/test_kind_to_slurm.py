"""How often Slurm's controller is asked, with a service account and without, and what people are told."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import asyncssh
import pytest

from hpchub.bridge.client import BridgeClient
from hpchub.core.server import ServerView
from hpchub.demo.accounts import STATUS_ACCOUNT
from hpchub.errors import NotAllowed, ProcessAway
from hpchub.signer.client import SignerClient
from support.demo import Demo
from support.processes import restart
from support.servers import Server, ServerOf, until
from support.slurm import job_id_of

pytestmark = pytest.mark.live

_USERS = ("alice", "bob", "Hans.Peter-2_x")
_COUNTED = re.compile(r"^\s+(\S+)\s+\(\s*\d+\) count:(\d+)", re.MULTILINE)
_WATCHED_S = 6.0


@contextmanager
def _full_cluster(demo: Demo) -> Iterator[None]:
    """Somebody's job holds every node for half an hour."""
    argv = ("sbatch", "--parsable", "--exclusive", "--nodes=2", "--time=00:30:00", "--output=/dev/null")
    wrap = ("--wrap", "sleep 1800")
    job_id = demo.exec("login1", [*argv, *wrap], user="jana", check=True).stdout.strip()
    try:
        yield
    finally:
        demo.exec("ctl", ["scancel", job_id], check=True)


@contextmanager
def _no_service_account(demo: Demo) -> Iterator[None]:
    """The cluster file of a site that has none, for the while; the bridge reads it when it starts."""
    path = Path(demo.info["clusters_folder"]) / "demo.toml"
    text = path.read_text()
    path.write_text(re.sub(r"^status_account = .*\n", "", text, flags=re.MULTILINE))
    assert path.read_text() != text
    try:
        _restart_bridge(demo)
        yield
    finally:
        path.write_text(text)
        _restart_bridge(demo)


def _restart_bridge(demo: Demo) -> None:
    restart(demo, "bridge")
    client = BridgeClient(Path(demo.info["sockets"]) / "bridge.sock")

    def answers() -> bool:
        try:
            asyncio.run(client.health())
        except ProcessAway:
            return False
        return True

    until(answers, "the bridge answers again")


def _calls(demo: Demo) -> dict[str, int]:
    """How many requests the controller has had of each user."""
    by_user = demo.exec("ctl", ["sdiag"], check=True).stdout.partition("statistics by user")[2]
    return {name: int(count) for name, count in _COUNTED.findall(by_user)}


def _calls_while_waiting(demo: Demo) -> dict[str, int]:
    before = _calls(demo)
    time.sleep(_WATCHED_S)
    return {name: count - before.get(name, 0) for name, count in _calls(demo).items()}


def _view(demo: Demo, server: Server) -> ServerView:
    client = BridgeClient(Path(demo.info["sockets"]) / "bridge.sock")
    return next(view for view in asyncio.run(client.servers(server.user)) if view.server_name == server.name)


def _all_wait(demo: Demo, servers: Sequence[Server]) -> None:
    for server in servers:
        assert server.ask(placement="compute").ok
    for server in servers:
        server.until_said("Pending: waiting")


def test_one_query_for_all_who_wait(demo: Demo, server_of: ServerOf) -> None:
    """Three people wait: the controller hears of the service account alone, and each hears of their own
    job why it waits, who goes first and when it may start.
    """
    with _full_cluster(demo):
        servers = [server_of(user) for user in _USERS]
        _all_wait(demo, servers)
        calls = _calls_while_waiting(demo)
        print(f"requests to the controller in {_WATCHED_S:.0f} s while three wait: {calls}")
        assert {user: calls.get(user, 0) for user in _USERS} == dict.fromkeys(_USERS, 0)
        # No more than one person alone would have cost: a burst, then one in three seconds.
        assert 0 < calls[STATUS_ACCOUNT] <= 40
        until(lambda: all(_view(demo, one).expected_start for one in servers), "each has an expected start")
        places = [_view(demo, one).queue_place for one in servers]
        assert sorted(places) == [0, 1, 2], places  # type: ignore[type-var]
        message = servers[places.index(1)].until_said("Expected start: ")
        job_id = job_id_of(demo, servers[places.index(1)].user)
        assert message.startswith(f"Job {job_id}: Pending: waiting ")
        assert "About 1 before it in partition cpu." in message
        seen = demo.exec("login1", ["squeue", "--noheader", "--format=%i"], user="alice", check=True).stdout
        assert seen.split() == [job_id_of(demo, "alice")], "people see their own jobs only"
        for server in servers:
            server.stop()


def test_without_a_service_account_each_asks_for_themselves(demo: Demo, server_of: ServerOf) -> None:
    """The other way for a cluster file: each person's own session asks, and nobody's place is known."""
    with _no_service_account(demo), _full_cluster(demo):
        servers = [server_of(user) for user in _USERS[:2]]
        _all_wait(demo, servers)
        calls = _calls_while_waiting(demo)
        print(f"requests to the controller in {_WATCHED_S:.0f} s while two wait, each alone: {calls}")
        assert calls.get(STATUS_ACCOUNT, 0) == 0
        assert all(calls[server.user] > 0 for server in servers)
        views = [_view(demo, server) for server in servers]
        assert all(view.reason and view.queue_place is None for view in views), views
        for server in servers:
            server.stop()


def test_a_running_server_knows_its_end(demo: Demo, server_of: ServerOf) -> None:
    """What Slurm says, in Unix seconds, though the person asked for a time and not for an end."""
    server = server_of("bob").start(placement="compute", time="00:20:00")
    until(lambda: _view(demo, server).ends_at is not None, "the end is known")
    which = f"--jobs={job_id_of(demo, 'bob')}"
    asked = ["env", "SLURM_TIME_FORMAT=%s", "squeue", "--noheader", "--format=%e", which]
    said = int(demo.exec("ctl", asked, check=True).stdout)
    # Ours is at first the time of the start and the time asked for; a second or two are nobody's concern.
    assert abs((_view(demo, server).ends_at or 0) - said) <= 2


def test_the_service_accounts_certificate_does_nothing_else(demo: Demo, tmp_path: Path) -> None:
    """Whoever stole it could ask for the states of jobs: no command, terminal, forward or other account."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    signer = SignerClient(Path(demo.info["sockets"]) / "signer.sock")
    public = key.export_public_key().decode()
    for account in ("root", "alice"):
        with pytest.raises(NotAllowed):
            asyncio.run(signer.query_certificate(account, public))
    minted = asyncio.run(signer.query_certificate(STATUS_ACCOUNT, public))
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_bytes(key.export_private_key())
    (tmp_path / "key-cert.pub").write_text(minted.certificate + "\n")
    known_hosts = Path(demo.info["clusters_folder"]) / "demo.known_hosts"

    def ssh(*argv: str, account: str = STATUS_ACCOUNT, stdin: str = "") -> subprocess.CompletedProcess[str]:
        options = ("-F", "none", "-i", str(tmp_path / "key"), "-o", f"UserKnownHostsFile={known_hosts}")
        more = ("-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "HostKeyAlias=login1")
        address = next(
            line.split()[0].split(",")[1]
            for line in known_hosts.read_text().splitlines()
            if line.startswith("login1,")
        )
        words = ("ssh", *options, *more, "-l", account, *argv[:-1], address, *argv[-1:])
        return demo.exec("hub", [word for word in words if word], stdin=stdin)

    asked = ssh("id", stdin="hpchub-0f\nstatus - 4999999\n")
    assert (asked.stdout, asked.stderr.partition("\n")[0]) == ("hpchub-0f\n", "hpchub-0f")
    assert "Invalid job id" in asked.stderr, "squeue has answered"
    for stdin in ("id\nid\n", "hpchub-0f\nid - 1\n", "hpchub-0f\nstatus - 1;id\n"):
        refused = ssh("id", stdin=stdin)
        assert refused.returncode == 64
        assert "uid=" not in refused.stdout + refused.stderr
    assert "PTY allocation request failed" in ssh("-tt", "id", stdin="id\nid\n").stderr
    forward = ssh("-W", "c1:6818", "")
    assert forward.returncode != 0
    assert "prohibited" in forward.stderr
    back = ssh("-o", "ExitOnForwardFailure=yes", "-N", "-R", "0:127.0.0.1:22", "")
    assert "remote port forwarding failed" in back.stderr
    for account in ("alice", "root"):
        assert "Permission denied" in ssh("id", account=account).stderr
