"""Restarts: what the hub's own processes lose, their servers keep."""

from __future__ import annotations

import pytest
import requests

from support.demo import Demo
from support.hub import HubSession
from support.processes import restart
from support.servers import Server, ServerOf, until
from support.slurm import job_id_of

pytestmark = pytest.mark.live


def test_bridge(demo: Demo, server_of: ServerOf) -> None:
    """A bridge that was killed takes up its servers once their owner logs in: same job, same process."""
    job = server_of("alice", "job").start(placement="compute")
    here = server_of("alice", "here").start(placement="login")
    job_id, ids = job_id_of(demo, "alice", "job"), (job.server_id, here.server_id)
    code = "import os; print(os.getppid())"
    parents = (job.run(code), here.run(code))

    restart(demo, "bridge")
    with HubSession(demo.url) as again:
        until(lambda: again.submit_login("alice", demo.users["alice"], to="/hub/home").ok, "alice can log in")
        servers = [Server(demo, again, "alice", name) for name in ("job", "here")]
        for server in servers:
            until(lambda server=server: server.open().ok, f"{server.name} answers again")
        assert tuple(server.run(code) for server in servers) == parents
    assert job_id_of(demo, "alice", "job") == job_id
    assert (job.server_id, here.server_id) == ids


def test_hub(demo: Demo, server_of: ServerOf) -> None:
    """A hub that was killed comes back with the same servers, which answered all the while."""
    server = server_of("bob").start(placement="login")
    code = "import os; print(os.getppid())"
    parent = server.run(code)
    restart(demo, "jupyterhub")
    assert server.session.get(f"{server.base}api/status").status_code == 200, (
        "through the proxy, hub or no hub"
    )
    until(lambda: _is_up(demo), "the hub answers")
    assert server.run(code) == parent
    assert server.model()["ready"]


def _is_up(demo: Demo) -> bool:
    try:
        return requests.get(f"{demo.url}hub/api/", timeout=5).status_code == 200
    except requests.RequestException:
        return False
