"""The ways into a job: each on a demo cluster of its own that knows only that way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support import require
from support.demo import Demo, private_demo
from support.hub import HubSession
from support.servers import Server
from support.slurm import job_fields, job_id_of, jobs_of

pytestmark = pytest.mark.live


@pytest.fixture(scope="module", params=["ssh", "tcp"])
def other(request: pytest.FixtureRequest) -> Iterator[Demo]:
    """A demo whose compute nodes are entered another way than the main demo's."""
    require.cluster()
    with private_demo(attach=request.param) as found:
        yield found


def test_a_job_is_entered(other: Demo) -> None:
    """A server in a job is reached that way, computes on its node, and is gone once stopped."""
    with HubSession(other.url) as session:
        session.login("alice", other.users["alice"])
        server = Server(other, session, "alice").start(placement="compute")
        folder = server.folder
        job = job_fields(other, job_id_of(other, "alice"))
        assert server.run("import socket; print(socket.gethostname())") == job["NodeList"]
        # A megabyte each way through the whole path.
        printed = server.run("print('x' * 1_000_000)")
        assert len(printed) == 1_000_000
        server.stop()
        assert jobs_of(other, "alice") == {}
        assert other.exec("login1", ["test", "-e", folder]).returncode == 1


def test_a_login_node_too(other: Demo) -> None:
    """A login node needs no second hop, whatever the way into jobs."""
    with HubSession(other.url) as session:
        session.login("bob", other.users["bob"])
        server = Server(other, session, "bob").start(placement="login")
        assert server.run("import socket; print(socket.gethostname())") in {"login1", "login2"}
        server.stop()


def test_broken_environment_is_noticed(other: Demo) -> None:
    """A job that dies while starting is noticed whatever the way in."""
    with HubSession(other.url) as session:
        session.login("bob", other.users["bob"])
        server = Server(other, session, "bob")
        _, message = server.refusal(placement="compute", environment="broken")
        assert "server.log" in message
        assert "did not answer within" not in message
        assert jobs_of(other, "bob") == {}


def test_no_port_but_where_the_way_is_one(other: Demo) -> None:
    """With attach `tcp` the launcher's port is open on the node alone; with `ssh` nothing new is."""
    with HubSession(other.url) as session:
        session.login("alice", other.users["alice"])
        server = Server(other, session, "alice")
        before = {node: _listeners(other, node) for node in ("c1", "c2")}
        server.start(placement="compute")
        node = job_fields(other, job_id_of(other, "alice"))["NodeList"]
        new = _listeners(other, node) - before[node]
        server.stop()
    if other.info["attach"] == "tcp":
        assert len(new) == 1, new
        assert not new.pop().startswith(("0.0.0.0:", "*:", "[::]:"))
    else:
        assert new == set()


def _listeners(demo: Demo, host: str) -> set[str]:
    listed = demo.exec(host, ["ss", "-Hltn"], check=True).stdout
    return {line.split()[3] for line in listed.splitlines()}
