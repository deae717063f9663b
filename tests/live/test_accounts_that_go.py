"""People who are deleted at the hub, or locked and removed on the cluster, while their servers run."""

from __future__ import annotations

import html
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import requests

from hpchub.demo.site import LOGIN_HOSTS
from support import faults
from support.demo import Demo
from support.hub import HubSession
from support.inside import named, signal_all
from support.servers import Server, ServerOf, until
from support.slurm import job_fields, jobs_of, processes_of
from support.witness import Witness

pytestmark = pytest.mark.live

_WHO = "a_name_with_32_characters_in_all"


def test_deleted_at_the_hub(demo: Demo, server_of: ServerOf) -> None:
    """An administrator deletes somebody with servers in a job and on a login node: both have ended then."""
    here, job = server_of(_WHO, "here").start(placement="login"), server_of(_WHO, "job").start()
    node = here.run("import socket; print(socket.gethostname())")
    answer = requests.delete(f"{demo.url}hub/api/users/{_WHO}", headers=demo.admin_headers, timeout=60)
    assert answer.status_code == 204, answer.text
    assert jobs_of(demo, _WHO) == {}
    left = [line for line in processes_of(demo, node, _WHO) if not line.startswith("sshd")]
    assert left == []
    with HubSession(demo.url) as again:
        again.login(_WHO, demo.users[_WHO])
    assert here.model() == job.model() == {}


@pytest.mark.parametrize("fault", [faults.account_locked, faults.account_gone])
def test_no_account_on_the_cluster(
    demo: Demo, server_of: ServerOf, fault: Callable[[Demo, str], AbstractContextManager[None]]
) -> None:
    """Somebody's account is locked or removed while they work: the server goes on, also when its way is
    lost and cannot be made again; the hub's page says what is the matter. With the account all is back, and
    without it the end of the job is still noticed.
    """
    server = server_of(_WHO).start()
    worker = Witness.of(server)
    with fault(demo, _WHO):
        assert worker.answers()
        _end_sessions(demo)
        until(lambda: "there is no such account there, or it is locked" in _home(server), "the page says so")
        assert server.model()["ready"]
        assert job_fields(demo, worker.job_id)["JobState"] == "RUNNING"
    worker.is_back()
    with fault(demo, _WHO):
        demo.exec("ctl", ["scancel", worker.job_id], check=True)
        until(lambda: not server.model(), "the hub has noticed", 30)


def _home(server: Server) -> str:
    return html.unescape(server.session.get("hub/home").text)


def _end_sessions(demo: Demo) -> None:
    """Kill the person's own sshd processes on every login node, and the connections with them."""
    uid = int(demo.exec("login1", ["stat", "--format=%u", f"/home/{_WHO}"], check=True).stdout)
    for host in LOGIN_HOSTS:
        signal_all([one for one in named(demo, host, "sshd") if one.uid == uid], signal.SIGKILL)
