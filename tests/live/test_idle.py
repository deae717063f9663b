"""Idle servers are stopped; whoever computes, prints or works is not. With an idle time of seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from websockets.sync.client import connect

from hpchub.hub.idle import SCOPES
from support.demo import Demo
from support.servers import Server, ServerOf, until

pytestmark = pytest.mark.live

IDLE_S = 4


@pytest.fixture
def culler(demo: Demo, tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """Starts the culler as JupyterHub runs it, with its role's scopes and no more, but impatient; its log."""
    folder = Path(demo.directory, "clusters.d")
    text = (folder / "demo.toml").read_text()
    for name in folder.iterdir():
        (tmp_path / name.name).write_bytes(name.read_bytes())
    lines = [line for line in text.splitlines() if not line.startswith(("idle_time", "max_age"))]
    place = lines.index("[placements.login]")
    lines.insert(place + 1, f'idle_time = "00:00:{IDLE_S:02}"')
    (tmp_path / "demo.toml").write_text("\n".join(lines))
    sockets = Path(demo.directory, "sockets")
    admin = "site-admin"
    answer = requests.post(
        f"{demo.url}hub/api/users/{admin}/tokens",
        headers=demo.admin_headers,
        json={"expires_in": 300, "scopes": list(SCOPES)},
        timeout=30,
    )
    assert answer.status_code == 201, answer.text
    environ = os.environ | {
        "JUPYTERHUB_API_TOKEN": answer.json()["token"],
        "JUPYTERHUB_API_URL": f"http+unix://{quote(str(sockets / 'hub.sock'), safe='')}/hub/api",
    }
    argv = [sys.executable, "-m", "hpchub.hub.idle_culler", "--every-s", "1"]
    argv += ["--clusters", str(tmp_path), "--bridge-socket", str(sockets / "bridge.sock")]
    log = tmp_path / "culler.log"
    with ExitStack() as stack:

        def start() -> Path:
            out = stack.enter_context(log.open("w"))
            process = stack.enter_context(subprocess.Popen(argv, env=environ, stdout=out, stderr=out))
            stack.callback(process.terminate)
            return log

        yield start


@contextmanager
def _computing(server: Server, code: str) -> Iterator[None]:
    """A kernel that runs code for as long as it takes, with nobody connected to it."""
    with server.kernel() as kernel:
        header = {"msg_id": "x", "msg_type": "execute_request", "session": "x", "version": "5.3"}
        content = {"code": code, "silent": False}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        kernel.socket.send(json.dumps(message | {"channel": "shell"}))
        until(lambda: _busy(server), "the kernel computes", 20)
        kernel.socket.close()
        yield


def _busy(server: Server) -> bool:
    kernels = server.session.get(f"{server.base}api/kernels").json()
    return any(kernel["execution_state"] == "busy" for kernel in kernels)


def test_only_the_idle_one_ends(demo: Demo, server_of: ServerOf, culler: Callable[[], Path]) -> None:
    """A kernel that sleeps in silence, a terminal that prints, and a job whose placement has no idle time
    stay; the server that does nothing is gone.
    """
    silent = server_of("alice", "silent").start(placement="login")
    prints = server_of("alice", "prints").start(placement="login")
    job = server_of("bob", "job").start(placement="compute")
    with _computing(silent, "import time\nfor _ in range(600): time.sleep(1)"):
        _print_in_a_terminal(prints)
        log = culler()  # not before: whoever has not begun to work is idle
        idle = server_of("bob", "idle").start(placement="login")
        began = time.monotonic()
        until(lambda: not idle.model(), f"it is stopped:\n{log.read_text()}", 60)
        assert time.monotonic() - began > IDLE_S - 1
        time.sleep(2 * IDLE_S)
        said = log.read_text()
        assert all(server.model().get("ready") for server in (silent, prints, job)), said
        assert _busy(silent)
    assert "idle.cannot_tell" not in said and "Error" not in said, said
    # The hub knows now what it was not told.
    assert said.count("idle.idle") == 1 and "bob/idle" in said
    until(lambda: not silent.model(), "the kernel is gone, and its server is idle", 60)


def _print_in_a_terminal(server: Server) -> None:
    """Have a shell print for two minutes, and leave it."""
    server.open().raise_for_status()
    name = server.session.post(f"{server.base}api/terminals").json()["name"]
    path = f"{server.base}terminals/websocket/{name}"
    address = f"{server.demo.url}{path}?_xsrf={quote(server.session.xsrf_token('/' + path))}"
    cookies = {"Cookie": server.session.cookie_header(path)}
    with connect(address.replace("http", "ws", 1), additional_headers=cookies, proxy=None) as socket:
        socket.send(json.dumps(["stdin", "for i in $(seq 1200); do echo $i; sleep 0.5; done\n"]))
        until(lambda: '"2' in str(socket.recv(timeout=20)), "it prints", 20)


def test_the_hub_runs_the_culler(demo: Demo) -> None:
    """As a service of its own, alive."""
    answer = requests.get(f"{demo.url}hub/api/services/idle-culler", headers=demo.admin_headers, timeout=30)
    assert answer.status_code == 200, answer.text
    assert Path(f"/proc/{answer.json()['pid']}").exists()
