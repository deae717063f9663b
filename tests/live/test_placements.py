"""A server on each placement: reached, computed on, stopped, and gone."""

from __future__ import annotations

import pytest

from support.demo import Demo
from support.servers import Server, ServerOf
from support.slurm import job_fields, job_id_of, jobs_of, processes_of

pytestmark = pytest.mark.live

WHERE = "import socket; print(socket.gethostname())"


def _has_folder(demo: Demo, folder: str) -> bool:
    return demo.exec("login1", ["test", "-d", folder]).returncode == 0


def _lab_answers(server: Server) -> bool:
    page = server.open()
    return page.status_code == 200 and "jupyter-config-data" in page.text


def test_compute_node(demo: Demo, server_of: ServerOf) -> None:
    """A start on a compute node is a job; JupyterLab and a kernel answer from its node through the proxy;
    a stop leaves no job, no process and no folder.
    """
    server = server_of("alice").start(placement="compute")
    folder = server.folder
    job = job_fields(demo, job_id_of(demo, "alice"))
    assert job["JobState"] == "RUNNING"
    assert _lab_answers(server)
    assert server.run(WHERE) == job["NodeList"]
    assert _has_folder(demo, folder)

    server.stop()
    assert jobs_of(demo, "alice") == {}
    assert processes_of(demo, job["NodeList"], "alice") == []
    assert not _has_folder(demo, folder)
    runtime = f"/tmp/hpchub-{folder.rpartition('/')[2][:16]}"
    assert demo.exec(job["NodeList"], ["test", "-e", runtime]).returncode == 1


def test_login_node(demo: Demo, server_of: ServerOf) -> None:
    """A start on a login node is no job; JupyterLab and a kernel answer from there; a stop leaves nothing."""
    server = server_of("bob").start(placement="login")
    folder = server.folder
    assert jobs_of(demo, "bob") == {}
    assert _lab_answers(server)
    node = server.run(WHERE)
    assert node in demo.info["clusters"]["demo"]["login_hosts"]
    assert any("jupyter" in line or "launcher.py" in line for line in processes_of(demo, node, "bob"))

    server.stop()
    left = [line for line in processes_of(demo, node, "bob") if not line.startswith("sshd")]
    assert left == []
    assert not _has_folder(demo, folder)
    assert demo.exec(node, ["test", "-e", f"/tmp/hpchub-{folder.rpartition('/')[2][:16]}"]).returncode == 1


def test_several_at_once(demo: Demo, server_of: ServerOf) -> None:
    """Named servers on different placements run at once; stopping one leaves the others answering."""
    here = server_of("alice", "here").start(placement="login")
    cpu = server_of("alice", "cpu").start(placement="compute", partition="cpu")
    gpu = server_of("alice", "gpu").start(placement="compute", partition="gpu", gpus=1)
    nodes = {server.name: server.run(WHERE) for server in (here, cpu, gpu)}
    assert nodes["here"] in {"login1", "login2"}
    assert nodes["cpu"] in {"c1", "c2"}
    assert nodes["gpu"] == "c2"
    assert set(jobs_of(demo, "alice")) == {"hpchub-cpu", "hpchub-gpu"}

    cpu.stop()
    assert set(jobs_of(demo, "alice")) == {"hpchub-gpu"}
    assert here.run(WHERE) == nodes["here"]
    assert gpu.run(WHERE) == nodes["gpu"]
    gpu.stop()
    assert here.run(WHERE) == nodes["here"]


@pytest.mark.parametrize("user", ["Hans.Peter-2_x", "a_name_with_32_characters_in_all", "emil"])
def test_unusual_people(demo: Demo, server_of: ServerOf, user: str) -> None:
    """Capitals, dots, dashes, 32 characters, and a login shell that prints text: all work in a job."""
    server = server_of(user).start(placement="compute")
    assert server.run("import getpass; print(getpass.getuser())") == user
    server.stop()
    assert jobs_of(demo, user) == {}


def test_shell_that_prints_on_a_login_node(server_of: ServerOf) -> None:
    """A login shell that prints text is no trouble on a login node either."""
    server = server_of("emil").start(placement="login")
    assert server.run(WHERE) in {"login1", "login2"}


def test_nobody_else_gets_in(server_of: ServerOf) -> None:
    """bob, logged in, is refused at alice's server."""
    server = server_of("alice").start(placement="login")
    bob = server_of("bob")
    page = bob.session.get(f"{server.base}lab")
    assert page.status_code == 403
    assert bob.session.get(f"{server.base}api/contents").status_code in {403, 404}
