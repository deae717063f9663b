"""What goes wrong with a job, as the person who waits hears it."""

from __future__ import annotations

import html
import threading

import pytest

from support import faults
from support.demo import Demo
from support.servers import Server, ServerOf, until
from support.slurm import job_fields, job_id_of, jobs_of, partition_state, processes_of

pytestmark = pytest.mark.live


def test_slurm_refuses(demo: Demo, server_of: ServerOf) -> None:
    """Where sbatch refuses, its own words reach the person, with what to do; no folder stays behind."""
    server = server_of("bob")
    with partition_state(demo, "short", "DRAIN"):
        status, message = server.refusal(partition="short")
    assert status in {202, 409}
    assert "Slurm refused the job: " in message
    assert "Required partition not available (inactive or drain)" in message
    assert jobs_of(demo, "bob") == {}
    assert not server.model()


def test_a_limit_of_slurms_own(demo: Demo, server_of: ServerOf) -> None:
    """A limit that only Slurm knows is refused in Slurm's words."""
    limit = ["sacctmgr", "-i", "modify", "user", "bob", "set"]
    demo.exec("ctl", [*limit, "MaxSubmitJobs=0"], check=True)
    try:
        _, message = server_of("bob").refusal()
    finally:
        demo.exec("ctl", [*limit, "MaxSubmitJobs=-1"], check=True)
    assert "Slurm refused the job: " in message
    assert "limit" in message
    assert jobs_of(demo, "bob") == {}


def test_munge_down_on_a_login_node(demo: Demo, server_of: ServerOf) -> None:
    """Slurm's commands there do not end in time: a start goes on through the other node, with one job."""
    server = server_of("alice", "elsewhere")
    server.session.get("hub/spawn/alice/elsewhere")  # her accounts are known: the first to ask is sbatch
    asking = threading.Thread(target=server.ask, kwargs={"placement": "compute"}, daemon=True)
    with faults.daemon_dead(demo, "munged", "login2"):
        asking.start()
        until(lambda: server.model().get("pending") == "spawn", "the start has begun", 10)
        # sbatch takes 50 s to give up, and the service account's squeue 30 s if that is there too.
        until(lambda: bool(server.model().get("ready")), "the server is ready", 120)
        assert set(jobs_of(demo, "alice")) == {"hpchub-elsewhere"}
    asking.join(30)


@pytest.mark.parametrize("placement", ["login", "compute"])
def test_dies_while_starting(demo: Demo, server_of: ServerOf, placement: str) -> None:
    """A server that dies while it starts has failed when its process has, not at a limit: the answer has
    the reason, the page the log's end, and both say where the whole log is, which stays.
    """
    server = server_of("bob")
    status, message = server.refusal(placement=placement, environment="broken")
    assert status in {202, 409}
    assert "did not answer within" not in message, "noticed by the limit only"
    assert "server.log" in message
    log = next(word for word in message.split() if word.endswith("server.log"))
    kept = demo.exec("login1", ["cat", log], check=True).stdout
    assert "hpchub:" in kept
    last = kept.strip().splitlines()[-1]
    page = _pending_page(server)
    assert last[:40] in page
    assert jobs_of(demo, "bob") == {}
    assert not server.model()


def _pending_page(server: Server) -> str:
    """What a browser is shown after a failed start, unescaped."""
    return html.unescape(server.session.get(f"hub/spawn-pending/{server.user}").text)


def test_cancelled_by_the_operator(demo: Demo, server_of: ServerOf) -> None:
    """A job that somebody else ends is noticed, and the hub no longer lists its server."""
    server = server_of("alice").start()
    demo.exec("ctl", ["scancel", job_id_of(demo, "alice")], check=True)
    until(lambda: not server.model(), "the hub has noticed", 30)
    assert jobs_of(demo, "alice") == {}
    server.start()  # and nothing stands in the way of the next
    assert server.run("print(6 * 7)") == "42"


def test_killed_on_the_login_node(demo: Demo, server_of: ServerOf) -> None:
    """A server whose process is killed on its login node is noticed, too."""
    server = server_of("bob").start(placement="login")
    node = server.run("import socket; print(socket.gethostname())")
    demo.exec(node, ["pkill", "-KILL", "-u", "bob", "-f", "launcher.py"], check=True)
    until(lambda: not server.model(), "the hub has noticed", 30)
    left = [line for line in processes_of(demo, node, "bob") if not line.startswith("sshd")]
    assert left == []


def test_pending(demo: Demo, server_of: ServerOf) -> None:
    """A job that waits says why in the progress stream; it starts when the reason is gone."""
    server = server_of("alice")
    with partition_state(demo, "short", "DOWN"):
        answer = _ask_aside(server, partition="short")
        said = _said_while_pending(server)
        job_id = job_id_of(demo, "alice")
        assert job_fields(demo, job_id)["JobState"] == "PENDING"
        assert f"Job {job_id}: " in said
        assert "the partition is down" in said
    answer.join(30)
    until(lambda: bool(server.model().get("ready")), "the server is ready", 30)
    assert job_fields(demo, job_id)["JobState"] == "RUNNING"


def test_stop_while_pending(demo: Demo, server_of: ServerOf) -> None:
    """Stopping a server that waits in the queue cancels its job."""
    server = server_of("bob")
    with partition_state(demo, "short", "DOWN"):
        answer = _ask_aside(server, partition="short")
        _said_while_pending(server)
        assert jobs_of(demo, "bob")
        server.stop()
        assert jobs_of(demo, "bob") == {}
    answer.join(30)


def _ask_aside(server: Server, **options: object) -> threading.Thread:
    """Ask for a start without waiting: the hub itself waits ten seconds before it answers 202."""
    asking = threading.Thread(target=server.ask, kwargs=options, daemon=True)
    asking.start()
    until(lambda: server.model().get("pending") == "spawn", "the start has begun", 10)
    return asking


def _said_while_pending(server: Server) -> str:
    """The message that says why the job waits."""
    return server.until_said("the partition is down")
