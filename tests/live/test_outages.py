"""Parts of the cluster fail while people work: no server is lost, and people are told what is wrong."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from hpchub.demo.site import LOGIN_HOSTS
from support import faults
from support.demo import Demo
from support.hub import HubSession
from support.inside import hub_process
from support.servers import Server, until
from support.slurm import job_fields, job_id_of, jobs_of, partition_state, processes_of
from support.witness import Witness

pytestmark = pytest.mark.live

# Longer than what `short_patience` allows.
_OUTLASTS_COMMANDS_S = 8.0
_OUTLASTS_KEEPALIVE_S = 10.0
# Attempts to reach what is away, for each server: some at once, then fewer and fewer. More is a spin.
_FIRST_ATTEMPTS = 16
_MOST_ATTEMPTS_PER_S = 1.0


@pytest.fixture(scope="module")
def impatient(demo: Demo) -> Iterator[Demo]:
    """The demo with a bridge of short patience."""
    with faults.short_patience(demo):
        yield demo


@pytest.fixture(scope="module")
def people(impatient: Demo) -> Iterator[dict[str, HubSession]]:
    """Alice and Bob, logged in."""
    with ExitStack() as stack:
        sessions = {}
        for name in ("alice", "bob"):
            session = sessions[name] = stack.enter_context(HubSession(impatient.url))
            password = impatient.users[name]
            until(lambda: session.submit_login(name, password, to="/hub/home").ok, f"{name} logs in")  # noqa: B023
        yield sessions


@pytest.fixture(scope="module")
def workers(impatient: Demo, people: dict[str, HubSession]) -> Iterator[list[Witness]]:
    """Alice works in a job, Bob on a login node; both must outlive every fault of this file."""
    job = Server(impatient, people["alice"], "alice", "job").start(placement="compute")
    here = Server(impatient, people["bob"], "bob", "here").start(placement="login")
    yield [Witness.of(job), Witness.of(here)]
    for server in (job, here):
        server.stop()


@pytest.fixture
def fresh(impatient: Demo, people: dict[str, HubSession]) -> Iterator[Server]:
    """A server of Bob's for the test to start; what is left of it is stopped."""
    server = Server(impatient, people["bob"], "bob", "fresh")
    yield server
    if server.model():
        server.stop()


@pytest.fixture
def waiting(impatient: Demo, people: dict[str, HubSession]) -> Iterator[Server]:
    """A server of Alice's whose job waits in the queue."""
    change = ["scontrol", "update", "PartitionName=short"]
    impatient.exec("ctl", [*change, "State=DOWN"], check=True)
    server = Server(impatient, people["alice"], "alice", "waits")
    asking = threading.Thread(target=server.ask, kwargs={"partition": "short"}, daemon=True)
    asking.start()
    until(lambda: server.model().get("pending") == "spawn", "the start has begun", 10)
    server.until_said("the partition is down")
    job_id = job_id_of(impatient, "alice", "waits")
    yield server
    assert job_id_of(impatient, "alice", "waits") == job_id, "the job that waited is another"
    impatient.exec("ctl", [*change, "State=UP"], check=True)
    server.stop()
    asking.join(30)


@contextmanager
def nothing_lost(demo: Demo, workers: list[Witness]) -> Iterator[None]:
    """Around a fault: afterwards every server is the same as before, and the bridge did not spin."""
    bridge, began, attempts = hub_process(demo, "bridge"), time.monotonic(), _attempts(demo)
    yield
    took_s = time.monotonic() - began
    for worker in workers:
        worker.is_back()
    made = _attempts(demo) - attempts
    most = (_FIRST_ATTEMPTS + _MOST_ATTEMPTS_PER_S * took_s) * len(workers)
    assert made <= most, f"{made} attempts in {took_s:.0f} s"
    assert hub_process(demo, "bridge") == bridge, "the bridge has ended"
    back_s = time.monotonic() - began - took_s
    print(f"servers: {len(workers)}, lost: 0, attempts: {made}, back after {back_s:.1f} s")


def _attempts(demo: Demo) -> int:
    """How often the bridge has failed to reach something, and logged it."""
    log = (Path(demo.info["logs"]) / "bridge.log").read_text(errors="replace")
    return sum(log.count(words) for words in ("attach_failed", "verdict_failed", "query_failed"))


@pytest.mark.parametrize("how", [faults.daemon_frozen, faults.daemon_dead])
def test_slurmctld_away(impatient: Demo, workers: list[Witness], waiting: Server, how: object) -> None:
    """The controller is away for longer than a command may take: who works goes on, who waits is told."""
    with nothing_lost(impatient, workers), how(impatient, "slurmctld"):  # type: ignore[operator]
        began = time.monotonic()
        said = waiting.until_said("Still trying")
        assert "squeue" in said
        assert all(worker.answers() for worker in workers)
        time.sleep(max(0, began + _OUTLASTS_COMMANDS_S - time.monotonic()))
        assert all(worker.answers() for worker in workers)


def test_squeue_answers_nonsense(impatient: Demo, workers: list[Witness], waiting: Server) -> None:
    """What nobody can read decides nothing; the person reads that squeue answers strangely."""
    with nothing_lost(impatient, workers):
        for what in ("an error", "garbage", "half a line"):
            with faults.squeue_answers(impatient, what):
                assert "squeue answered" in waiting.until_said("Still trying")
                before = faults.squeue_calls(impatient)
                time.sleep(2.5)
                assert faults.squeue_calls(impatient) - before < 5, what
    assert all(worker.answers() for worker in workers)


def test_squeue_takes_a_minute(
    impatient: Demo, workers: list[Witness], waiting: Server, people: dict[str, HubSession]
) -> None:
    """squeue answers long after everybody has given up: who works goes on, who waits reads so, somebody who
    stops a server gets it stopped, and no heap of squeue processes grows on the login nodes.
    """
    server = Server(impatient, people["bob"], "bob", "slow").start(placement="compute")
    with nothing_lost(impatient, workers):
        with faults.squeue_answers(impatient, "after 60 s"):
            assert "did not answer" in waiting.until_said("Still trying")
            server.stop()
            time.sleep(_OUTLASTS_COMMANDS_S)
            assert all(worker.answers() for worker in workers)
            assert faults.squeue_processes(impatient) <= 4
        server.start(placement="compute")
        _says_after(waiting, "Still trying", "the partition is down")
        server.stop()


def _says_after(server: Server, first: str, then: str) -> None:
    """Wait until a progress message has the words `then`, later than one that has `first`."""
    seen = False
    for event in server.events():
        seen = seen or first in event["message"]
        if seen and then in event["message"]:
            return
    raise AssertionError(f"the progress ended without {then!r}")


def test_accounting_away(impatient: Demo, workers: list[Witness], fresh: Server) -> None:
    """Without slurmdbd jobs still start: sbatch checks the account from what slurmctld remembers."""
    with nothing_lost(impatient, workers), faults.daemon_dead(impatient, "slurmdbd"):
        assert fresh.start(placement="compute").run("print(6 * 7)") == "42"
        fresh.stop()


def test_stop_without_the_scheduler(impatient: Demo, people: dict[str, HubSession]) -> None:
    """A person can end a server although slurmctld does not answer; the job is over when it is back."""
    server = Server(impatient, people["bob"], "bob", "stops").start(placement="compute")
    job_id = job_id_of(impatient, "bob", "stops")
    with faults.daemon_frozen(impatient, "slurmctld"):
        server.stop()
    until(lambda: "stops" not in str(jobs_of(impatient, "bob")), "the job is over", 40)
    assert job_fields(impatient, job_id)["JobState"] != "RUNNING"


def test_another_job_of_that_number(impatient: Demo, people: dict[str, HubSession]) -> None:
    """slurmctld forgets a job and gives its number to another of Alice's: that one is neither taken for the
    server nor for its end, and a stop leaves it alone.
    """
    server = Server(impatient, people["alice"], "alice", "forgotten")
    asking = threading.Thread(target=server.ask, kwargs={"partition": "short"}, daemon=True)
    time.sleep(faults.SLURM_SAVES_WITHIN_S)  # it must forget this job, and no end of another
    with partition_state(impatient, "short", "DOWN"):  # slurmctld saves that now, and next in five seconds
        asking.start()
        until(lambda: server.model().get("pending") == "spawn", "the start has begun", 10)
        server.until_said("the partition is down")
        job_id = job_id_of(impatient, "alice", "forgotten")
        with faults.daemon_dead(impatient, "slurmctld", at_once=True):
            pass
    until(lambda: "forgotten" not in str(jobs_of(impatient, "alice")), "slurmctld is back, and has forgotten")
    script = "#!/bin/bash\nsleep 600\n"
    argv = ["sbatch", "--parsable", "--job-name=another-0", "--output=/dev/null"]
    another = impatient.exec("login1", argv, user="alice", stdin=script, check=True).stdout.strip()
    assert another == job_id, "slurmctld has saved the job after all"
    until(lambda: jobs_of(impatient, "alice").get("another") == job_id, "the other job is there")
    time.sleep(5)
    assert server.model().get("pending") == "spawn"
    server.stop()
    asking.join(30)
    assert job_fields(impatient, another)["JobState"] == "RUNNING"
    impatient.exec("login1", ["scancel", another], user="alice", check=True)


def test_login_node_frozen(impatient: Demo, workers: list[Witness]) -> None:
    """A login node that stands still: the job is reached through the other one, Bob's server waits."""
    node = _node_of(workers[1])
    with nothing_lost(impatient, workers), faults.login_node_frozen(impatient, node):
        time.sleep(_OUTLASTS_KEEPALIVE_S)
        workers[0].is_back(20)
        page = workers[1].server.session.get(f"{workers[1].server.base}lab")
        assert page.status_code == 503
        assert "What runs in it goes on" in page.text and "restarting" not in page.text


def test_fabric_cut(impatient: Demo, workers: list[Witness]) -> None:
    """The job's node is off the network for a while; when it is back, so is the server."""
    node = job_fields(impatient, workers[0].job_id)["BatchHost"]
    with nothing_lost(impatient, workers), faults.fabric_cut(impatient, node):
        time.sleep(_OUTLASTS_KEEPALIVE_S)
        assert not _opens(workers[0])
        assert workers[1].answers()


def test_login_node_cut_off(impatient: Demo, workers: list[Witness]) -> None:
    """The login node that the way into the job goes through lets people in and is off the cluster's own
    network: the job is reached through the other node, with the cable still out.
    """
    [node] = _ways_into(impatient, workers[0])
    with nothing_lost(impatient, workers), faults.fabric_cut(impatient, node):
        until(lambda: not _opens(workers[0]), "the way is lost", _OUTLASTS_KEEPALIVE_S)
        workers[0].is_back(40)
        assert workers[1].answers()
        other = [host for host in LOGIN_HOSTS if host != node]
        until(lambda: _ways_into(impatient, workers[0]) == other, "no srun is left where it went before", 10)


def _ways_into(demo: Demo, worker: Witness) -> list[str]:
    """The login nodes where an srun of a job's attachment runs."""
    step = f"--jobid={worker.job_id} "
    return [
        host
        for host in LOGIN_HOSTS
        if any(step in line for line in processes_of(demo, host, worker.server.user))
    ]


def _opens(worker: Witness) -> bool:
    return worker.server.session.get(f"{worker.server.base}api/status").ok


def test_login_node_dead(impatient: Demo, workers: list[Witness]) -> None:
    """sshd and all sessions of a login node are killed: the job is reached through the other node at once,
    and a server on the node itself outlives it.
    """
    node = _node_of(workers[1])
    with nothing_lost(impatient, workers), faults.login_node_dead(impatient, node):
        workers[0].is_back(20)
        until(lambda: not _opens(workers[1]), "the way to Bob's server is lost", 5)


def test_login_node_refuses(impatient: Demo, workers: list[Witness]) -> None:
    """sshd drops every new login while the old sessions die: the job is reached through the other node, a
    server on the node itself outlives it.
    """
    node = _node_of(workers[1])
    with nothing_lost(impatient, workers), faults.login_node_refuses(impatient, node):
        faults.end_sessions(impatient, node)
        workers[0].is_back(20)
        until(lambda: not _opens(workers[1]), "the way to Bob's server is lost", 5)
        time.sleep(4)


def test_login_node_without_munge(impatient: Demo, workers: list[Witness], fresh: Server) -> None:
    """A node that cannot prove who people are: who works goes on. A new start goes through the other node as
    soon as sacctmgr has not answered; what may have been submitted does not, and says what is wrong.
    """
    node = _node_of(workers[1])
    with nothing_lost(impatient, workers), faults.daemon_dead(impatient, "munged", node):
        workers[0].is_back(20)
        answer = fresh.ask(placement="compute")
        if answer.ok:
            until(lambda: bool(fresh.model().get("ready")), "it has started through the other node")
        else:
            assert node in answer.json()["message"]


def test_login_node_out_of_processes(impatient: Demo, workers: list[Witness], fresh: Server) -> None:
    """A node that lets people in and starts nothing for them: who works goes on, and a new start goes through
    the other node.
    """
    node = _node_of(workers[1])
    with nothing_lost(impatient, workers), faults.login_node_out_of_processes(impatient, node):
        workers[0].is_back(20)
        assert fresh.start(placement="compute").model()["ready"]


def test_full_disk(impatient: Demo, workers: list[Witness], fresh: Server) -> None:
    """The bridge's disk is full: who works goes on, a server can be stopped, nothing new begins."""
    fresh.start(placement="compute")
    with nothing_lost(impatient, workers), faults.bridge_disk_full(impatient):
        assert all(worker.answers() for worker in workers)
        fresh.stop()
        status, message = fresh.refusal(placement="compute")
        assert status in {202, 503} and "begins nothing new" in message
    fresh.start(placement="compute")


def test_compute_node_dies(impatient: Demo, workers: list[Witness], people: dict[str, HubSession]) -> None:
    """The job of a node that lost its power has ended: the person reads why. The others go on."""
    victim = Server(impatient, people["bob"], "bob", "victim").start(placement="compute", partition="gpu")
    victim_job = job_id_of(impatient, "bob", "victim")
    assert job_fields(impatient, workers[0].job_id)["BatchHost"] == "c1"
    assert _sruns(impatient, victim_job)
    with nothing_lost(impatient, workers), faults.compute_node_dead(impatient, "c2"):
        impatient.exec("ctl", ["scontrol", "update", "NodeName=c2", "State=DOWN", "Reason=crash"], check=True)
        until(lambda: not victim.model().get("ready"), "the hub has noticed", 30)
        assert "its node failed (NODE_FAIL)" in _why_ended(victim)
    until(lambda: not _sruns(impatient, victim_job), "no srun of it is left", 10)


def test_requeued_by_the_operator(impatient: Demo, people: dict[str, HubSession]) -> None:
    """A job that is put back into the queue has lost its memory: the person reads so, and no job is left."""
    server = Server(impatient, people["bob"], "bob", "again").start(placement="compute")
    job_id = job_id_of(impatient, "bob", "again")
    impatient.exec("ctl", ["scontrol", "update", f"JobId={job_id}", "Requeue=1"], check=True)
    impatient.exec("ctl", ["scontrol", "requeue", job_id], check=True)
    until(lambda: not server.model().get("ready"), "the hub has noticed", 30)
    assert "put back into the queue" in _why_ended(server)
    assert "again" not in str(jobs_of(impatient, "bob"))
    server.start(placement="compute")  # and the words are gone with the next start
    server.stop()
    assert "put back" not in _why_ended(server)


def _node_of(worker: Witness) -> str:
    return worker.server.run("import socket; print(socket.gethostname())")


def _sruns(demo: Demo, job_id: str) -> list[str]:
    """The processes on login nodes that lead into a job."""
    find = ["pgrep", "--full", f"^srun --jobid={job_id} "]
    return [pid for host in LOGIN_HOSTS for pid in demo.exec(host, find).stdout.split()]


def _why_ended(server: Server) -> str:
    """What the person reads where their server was."""
    until(lambda: not server.model(), "the hub has let go", 30)
    return html.unescape(server.page_in_its_place())
