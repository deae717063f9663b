"""Restarts: whatever of the hub's own processes dies, no server is lost, ended or started twice."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from support.demo import Demo
from support.hub import HubSession
from support.processes import restart
from support.servers import Server, ServerOf, until
from support.slurm import job_fields, job_id_of, jobs_of, partition_state

pytestmark = pytest.mark.live

# What a notebook shows of the process it runs in: another number is another server.
WHO = "import os; print(os.getppid())"


def _hub_answers(demo: Demo) -> bool:
    try:
        return requests.get(f"{demo.url}hub/api/", timeout=5).status_code == 200
    except requests.RequestException:
        return False


def _answers(server: Server) -> bool:
    """Whether the notebook server itself answers, for a session that has its cookie."""
    try:
        return server.session.get(f"{server.base}api/status", timeout=5).status_code == 200
    except requests.RequestException:
        return False


class Crowd:
    """Bob's servers: a job that runs, a server on a login node, and a job that waits in the queue."""

    def __init__(self, demo: Demo, session: HubSession) -> None:
        self.demo = demo
        self.running = [
            Server(demo, session, "bob", "job").start(placement="compute"),
            Server(demo, session, "bob", "here").start(placement="login"),
        ]
        self.waiting = Server(demo, session, "bob", "waits")
        assert self.waiting.ask(placement="compute", partition="short").status_code in {201, 202}
        until(lambda: "hpchub-waits" in jobs_of(demo, "bob"), "the third has a job")
        self.who = [server.run(WHO) for server in self.running]
        self.jobs = jobs_of(demo, "bob")

    def has_lost_nothing(self) -> None:
        """The same processes answer, the same jobs are there, each once, and nobody logged in again."""
        for server, who in zip(self.running, self.who, strict=True):
            until(lambda server=server: _answers(server), f"{server.name} answers again")
            assert server.run(WHO) == who, f"{server.name} is another process"
        assert jobs_of(self.demo, "bob") == self.jobs
        until(lambda: self.waiting.model()["pending"] == "spawn", "the third is still seen as starting")


@pytest.fixture(scope="module")
def crowd(demo: Demo) -> Iterator[Crowd]:
    """One for all tests here: what one restart lost, the next would not find."""
    with HubSession(demo.url) as session, partition_state(demo, "short", "DOWN"):
        crowd = Crowd(demo, session.login("bob", demo.users["bob"]))
        yield crowd
        for server in (*crowd.running, crowd.waiting):
            server.stop()


def test_the_hub(demo: Demo, crowd: Crowd) -> None:
    """No WebSocket drops, and servers answer all the while."""
    with crowd.running[0].kernel() as kernel:
        restart(demo, "jupyterhub")
        assert all(_answers(server) for server in crowd.running), "through the proxy, hub or no hub"
        until(lambda: _hub_answers(demo), "the hub answers")
        assert kernel.run(WHO) == crowd.who[0], "over the WebSocket that was open before"
    crowd.has_lost_nothing()


def test_the_bridge(demo: Demo, crowd: Crowd) -> None:
    """Tunnels are back within seconds with nobody logging in; what waits goes on waiting."""
    restart(demo, "bridge")
    crowd.has_lost_nothing()


def test_the_proxy(demo: Demo, crowd: Crowd) -> None:
    """Its table comes back by itself, in seconds rather than at JupyterHub's next sweep."""
    restart(demo, "proxy")
    crowd.has_lost_nothing()


def test_the_signer(demo: Demo, crowd: Crowd) -> None:
    """Nobody with a session notices, and the next login works."""
    restart(demo, "signer")
    crowd.has_lost_nothing()
    with HubSession(demo.url) as again:
        until(lambda: again.submit_login("alice", demo.users["alice"], to="/hub/home").ok, "alice can log in")


def test_an_upgrade(demo: Demo, crowd: Crowd) -> None:
    """Each process ends as an orderly restart has it, in the order of docs/howto/upgrade.md."""
    for name in ("signer", "bridge", "jupyterhub", "proxy"):
        restart(demo, name, number=signal.SIGTERM)
    until(lambda: _hub_answers(demo), "the hub answers")
    crowd.has_lost_nothing()


def test_all_at_once(demo: Demo, crowd: Crowd) -> None:
    """Hub, bridge, proxy and signer together; only the agent, which nothing restarts, has lived on. The
    job that waited through all of this then runs, and its server becomes ready by itself.
    """
    restart(demo, "jupyterhub", "bridge", "proxy", "signer")
    until(lambda: _hub_answers(demo), "the hub answers")
    crowd.has_lost_nothing()
    demo.exec("ctl", ["scontrol", "update", "PartitionName=short", "State=UP"], check=True)
    until(lambda: crowd.waiting.model().get("ready", False), "the one that waited is ready")
    assert crowd.waiting.run("print(6 * 7)") == "42"
    assert jobs_of(demo, "bob") == crowd.jobs


def test_a_waiting_server_is_watched_and_stopped_after_the_hub(demo: Demo, server_of: ServerOf) -> None:
    """For the new hub it is a start like any other: its progress is told, and a stop ends its job at once."""
    with partition_state(demo, "short", "DOWN"):
        server = server_of("alice", "waits")
        assert server.ask(placement="compute", partition="short").status_code in {201, 202}
        until(lambda: "hpchub-waits" in jobs_of(demo, "alice"), "it has a job")
        restart(demo, "jupyterhub")
        until(lambda: _hub_answers(demo), "the hub answers")
        until(lambda: server.model()["pending"] == "spawn", "it is seen as starting")
        server.until_said("Partition")
        server.stop()
        assert jobs_of(demo, "alice") == {}


@pytest.mark.parametrize("after_s", [0.15, 0.5, 1.0, 1.8])
def test_the_bridge_while_servers_start(demo: Demo, server_of: ServerOf, after_s: float) -> None:
    """Killed at any moment of a start, it goes on where it was: one job, one server, ready in the end."""
    places = {"one": "compute", "two": "login"}
    servers = {name: server_of("alice", name) for name in places}
    # The answer to a start comes once it is ready or has taken long.
    with ThreadPoolExecutor() as threads:
        answers = [threads.submit(servers[name].ask, placement=place) for name, place in places.items()]
        time.sleep(after_s)
        restart(demo, "bridge")
    assert {answer.result().status_code for answer in answers} <= {201, 202}
    for server in servers.values():
        until(lambda server=server: server.model().get("ready", False), f"{server.name} is ready")
        until(lambda server=server: server.open().ok, f"{server.name} answers")
        assert server.run("print(6 * 7)") == "42"
    assert set(jobs_of(demo, "alice")) == {"hpchub-one"}
    assert job_fields(demo, job_id_of(demo, "alice", "one"))["JobState"] == "RUNNING"
