from __future__ import annotations

import builtins
import contextlib
import http.server
import importlib
import json
import os
import re
import shutil
import socket
import socketserver
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpchub.demo.environments import ready_environments
from hpchub.remote import launcher
from hpchub.remote.handover import (
    end_line,
    extension_source,
    handover_line,
    launcher_source,
    notebook_argv,
    notebook_environ,
)
from hpchub.remote.launcher import (
    END,
    EXIT_ENVIRONMENT,
    EXIT_NO_HANDOVER,
    EXIT_RUNTIME_DIR,
    EXTENSION,
    HANDOVER,
    NOTEBOOK,
    proof,
)

TOKEN = "canary-7d1f"

# Ends only by force, and leaves a child behind that does so too.
STUBBORN = """
import os, signal, subprocess, time
def main():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    with open(os.environ["SAY"], "w") as f:
        f.write(str(child.pid))
    time.sleep(60)
"""


class Run:
    """One launcher, run as a job script would."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.folder = base / "folder"
        self.runtime = base / "hpchub-9f"
        self.folder.mkdir(mode=0o700)
        (base / "home").mkdir()
        (self.folder / "launcher.py").write_bytes(launcher_source())
        self.process: subprocess.Popen[str] | None = None

    def fake(self, server: str) -> dict[str, str]:
        """An environment whose jupyterhub is that text; its jupyterlab is empty."""
        lib = self.base / "lib"
        (lib / "jupyterhub").mkdir(parents=True)
        (lib / "jupyterhub/__init__.py").write_text("")
        (lib / "jupyterhub/singleuser.py").write_text(server)
        (lib / "jupyterlab.py").write_text("")
        return {"PYTHONPATH": str(lib), "SAY": str(self.base / "said")}

    def start(self, *options: str, python: str = "/usr/bin/python3", **environ: str) -> None:
        self.process = subprocess.Popen(
            [python, str(self.folder / "launcher.py"), "--runtime-dir", str(self.runtime),
             "--folder", str(self.folder), *options],
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.base / "home"), **environ},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def wait_for(self, path: Path, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not path.exists():
            assert time.monotonic() < deadline, f"{path} never came"
            time.sleep(0.01)

    def connect(self, connection: socket.socket, path: Path, seconds: float = 30) -> None:
        """Once somebody listens there, which is a moment after the socket's file is there."""
        deadline = time.monotonic() + seconds
        self.wait_for(path, seconds)
        while connection.connect_ex(str(path)):
            assert time.monotonic() < deadline, f"nobody listens at {path}"
            time.sleep(0.01)

    def said(self, seconds: float = 30) -> str:
        """What the server of `fake` has written; the file is there a moment before its content."""
        deadline = time.monotonic() + seconds
        path = self.base / "said"
        while not (path.exists() and path.stat().st_size):
            assert time.monotonic() < deadline, "the server has said nothing"
            time.sleep(0.01)
        return path.read_text()

    def hand_over(self, line: bytes) -> tuple[socket.socket, dict[str, Any]]:
        channel = socket.socket(socket.AF_UNIX)
        channel.settimeout(10)
        self.connect(channel, self.runtime / HANDOVER)
        channel.sendall(line)
        return channel, json.loads(channel.recv(4096))

    def ended(self) -> tuple[int, str]:
        assert self.process
        out, _ = self.process.communicate(timeout=20)
        return self.process.returncode, out


@pytest.fixture
def run() -> Iterator[Run]:
    base = Path(tempfile.mkdtemp(prefix="hpchub-t-"))  # short enough for a socket's path
    run = Run(base)
    yield run
    if run.process:
        run.process.kill()
        run.process.communicate()
    shutil.rmtree(base)


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def test_missing_jupyterhub_is_said(run: Run) -> None:
    """An environment without jupyterhub ends at once with one line that names it."""
    run.start("--wait-s", "1", python="/usr/bin/python3")
    code, out = run.ended()
    assert code == EXIT_ENVIRONMENT
    assert out.count("\n") == 1 and "The environment at /usr has no jupyterhub" in out
    assert not run.runtime.exists()


def test_folder_must_be_new(run: Run) -> None:
    """A runtime folder that exists already, whoever made it, is not used."""
    run.runtime.mkdir()
    run.start(**run.fake(""))
    code, out = run.ended()
    assert code == EXIT_RUNTIME_DIR and "File exists" in out and run.runtime.exists()


def test_handover_that_never_comes(run: Run) -> None:
    """The wait is bounded, says so, and leaves no folder."""
    run.start("--wait-s", "0.3", **run.fake(""))
    code, out = run.ended()
    assert code == EXIT_NO_HANDOVER and "No handover came within" in out and not run.runtime.exists()


def test_sockets_are_private_and_links_follow(run: Run) -> None:
    """The folder is 0700; a later handover moves hub.sock to the new socket and removes the old one."""
    run.start(**run.fake("import time\ndef main(): time.sleep(30)"))
    run.wait_for(run.runtime / HANDOVER)
    assert stat.S_IMODE(run.runtime.stat().st_mode) == 0o700
    assert stat.S_IMODE((run.runtime / HANDOVER).stat().st_mode) & 0o077 == 0
    with listen(run.runtime / "hub-1.sock"), listen(run.runtime / "hub-2.sock"):
        refused, answer = run.hand_over(handover_line("hub-1.sock"))
        assert answer == {"ok": False, "message": "the first handover must carry the environment"}
        refused.close()
        first, answer = run.hand_over(handover_line("hub-1.sock", {}, ["server"]))
        assert run.process and answer == {"ok": True, "pid": run.process.pid}
        assert (run.runtime / "hub.sock").readlink() == Path("hub-1.sock")
        second, answer = run.hand_over(handover_line("hub-2.sock"))
        assert answer["ok"] and (run.runtime / "hub.sock").readlink() == Path("hub-2.sock")
        assert not (run.runtime / "hub-1.sock").exists()
        first.close()
        second.close()


def test_peer_of_another_account_is_refused(run: Run) -> None:
    """Even where the folder's mode did not stop it, another account's connection gets no answer."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to be another account")
    run.start(**run.fake(""))
    run.wait_for(run.runtime / HANDOVER)
    for path in (run.base, run.runtime, run.runtime / HANDOVER):
        path.chmod(0o777)
    script = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
        "s.sendall(b'{}\\n'); print(s.recv(100))"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-c", script, str(run.runtime / HANDOVER)],
        user=48213,
        capture_output=True,
        cwd="/",
    )
    assert b"ok" not in done.stdout


@pytest.mark.slow
def test_stubborn_server_is_killed(run: Run) -> None:
    """A server that ignores SIGTERM is gone after ten seconds, with the children it started."""
    run.start(**run.fake(STUBBORN))
    run.wait_for(run.runtime / HANDOVER)
    with listen(run.runtime / "hub-1.sock"):
        channel, _ = run.hand_over(handover_line("hub-1.sock", {}, ["server"]))
        child = run.said()
        channel.sendall(b'{"stop": true}\n')
        channel.settimeout(20)
        assert channel.recv(10) == b""
        channel.close()
    assert run.ended()[0] == -9
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # gone altogether
        state = Path(f"/proc/{child}/stat").read_text()
        assert state.rpartition(") ")[2][0] == "Z"


def test_tcp_strangers_are_cut_off(run: Run) -> None:
    """Without the key there is no answer, to nonsense, to a wrong proof and to a path."""
    (run.folder / "tcp_key").write_text("ab" * 32)
    run.start("--tcp", **run.fake(""))
    run.wait_for(run.runtime / HANDOVER)
    port = int((run.folder / "tcp_port").read_text())
    host = subprocess.check_output(["hostname", "-i"], text=True).split()[0]
    key = bytes.fromhex("ab" * 32)
    for role, used in ((HANDOVER, b"x" * 32), ("../folder/launcher.py", key), (NOTEBOOK, b"")):
        with socket.create_connection((host, port), 5) as stranger:
            nonce = stranger.recv(100).split()[1].decode()
            stranger.sendall(f"{role} 00 {proof(used, 'client', role, nonce, '00')}\n".encode())
            assert stranger.recv(100) == b""
    with socket.create_connection((host, port), 5) as stranger:
        stranger.recv(100)
        stranger.sendall(b"x" * 4096)
        with contextlib.suppress(ConnectionResetError):  # cut off with bytes unread: so much the better
            assert stranger.recv(100) == b""


# Says where Jupyter would look for extensions, once a test has made its file.
WHERE = """
import json, os, time
def main():
    with open(os.environ["SAY"], "w") as f:
        f.write(os.environ["JUPYTER_PATH"])
    time.sleep(30)
"""


def _extensions(run: Run) -> list[Path]:
    return list((run.runtime / "share" / "labextensions").glob("*/package.json"))


def test_time_left_reaches_the_page(run: Run) -> None:
    """The extension is laid out under a name of its own, private, found besides what the site has; the
    newest end is in it, whole; lines that nobody knows leave the channel open.
    """
    (run.folder / EXTENSION).write_bytes(extension_source())
    run.start(**run.fake(WHERE), JUPYTER_PATH="/site/jupyter")
    run.wait_for(run.runtime / HANDOVER)
    [package] = _extensions(run)
    about = json.loads(package.read_text())
    assert about["name"] == package.parent.name
    assert re.fullmatch("hpchub-[0-9a-f]{16}", about["name"])
    assert (package.parent / about["jupyterlab"]["_build"]["load"]).read_bytes() == extension_source()
    assert stat.S_IMODE(package.parent.stat().st_mode) == 0o700
    with listen(run.runtime / "hub-1.sock"):
        channel, _ = run.hand_over(handover_line("hub-1.sock", {"JUPYTER_PATH": "/of/the/hub"}, ["server"]))
        assert run.said() == f"{run.runtime}/share:/of/the/hub"
        end = package.parent / "static" / END
        for at in (1000, 2000):
            channel.sendall(b'nonsense\n{"unknown": 1}\n[]\n' + end_line(at, [60], True))
            run.wait_for(end)
            _until(lambda at=at: json.loads(end.read_text())["ends_at"] == at)
        channel.close()


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("broken", ["no file", "a folder"])
def test_server_starts_without_the_extension(run: Run, broken: str) -> None:
    """Where the extension cannot be laid out the log says so, JupyterLab finds none, the server starts and
    news of the end is no trouble.
    """
    if broken == "a folder":
        (run.folder / EXTENSION).mkdir()
    run.start(**run.fake(WHERE))
    with contextlib.closing(listen_later(run)) as _hub:
        channel, answer = run.hand_over(handover_line("hub-1.sock", {}, ["server"]))
        assert answer["ok"]
        channel.sendall(end_line(1000, [60], True))
        run.said()
        assert _extensions(run) == []
        channel.sendall(b'{"stop": true}\n')
        channel.settimeout(10)
        assert channel.recv(10) == b""
        channel.close()
    assert "the time left cannot be shown" in run.ended()[1]


def listen_later(run: Run) -> socket.socket:
    run.wait_for(run.runtime / HANDOVER)
    return listen(run.runtime / "hub-1.sock")


class _Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's API as a server asks for at its start."""

    seen: list[tuple[str, str]]

    def do_GET(self) -> None:
        self.seen.append(("GET", self.path))
        body = {
            "version": "6.1.1",
            "name": "alice",
            "kind": "user",
            "scopes": ["access:servers"],
            "groups": [],
        }
        self._answer(json.dumps(body).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append(("POST", self.path))
        self._answer(b"")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("X-JupyterHub-Version", "6.1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Nothing."""

    def address_string(self) -> str:
        return "hub"


@pytest.mark.slow
def test_a_real_notebook_server(run: Run) -> None:
    """jupyterhub-singleuser starts on its socket after early imports, asks the hub, and stops cleanly; all
    that without the extension that shows the time left.
    """
    assert not (run.folder / EXTENSION).exists()
    run.start(python=str(ready_environments(print) / "lab" / "bin" / "python3"))
    run.wait_for(run.runtime / HANDOVER)
    _Hub.seen = []
    with socketserver.ThreadingUnixStreamServer(str(run.runtime / "hub-1.sock"), _Hub) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        environ = notebook_environ(
            {
                "JUPYTERHUB_API_URL": "http://127.0.0.1:8081/hub/api",
                "JUPYTERHUB_ACTIVITY_URL": "http://127.0.0.1:8081/hub/api/users/alice/activity",
                "JUPYTERHUB_API_TOKEN": TOKEN,
                "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-alice",
                "JUPYTERHUB_USER": "alice",
                "JUPYTERHUB_BASE_URL": "/",
                "JUPYTERHUB_SERVICE_PREFIX": "/user/alice/",
                "JUPYTERHUB_OAUTH_CALLBACK_URL": "/user/alice/oauth_callback",
                "JUPYTERHUB_OAUTH_ACCESS_SCOPES": '["access:servers"]',
            },
            runtime_dir=str(run.runtime),
        )
        argv = [*notebook_argv(runtime_dir=str(run.runtime)), "--allow-root"]
        channel, answer = run.hand_over(handover_line("hub-1.sock", environ, argv))
        assert answer["ok"]
        request = f"GET /user/alice/api/status HTTP/1.1\r\nHost: x\r\nAuthorization: token {TOKEN}\r\n\r\n"
        with socket.socket(socket.AF_UNIX) as browser:
            browser.settimeout(10)
            run.connect(browser, run.runtime / NOTEBOOK)
            browser.sendall(request.encode())
            assert browser.recv(12) == b"HTTP/1.1 200"
        assert stat.S_IMODE((run.runtime / NOTEBOOK).stat().st_mode) == 0o600
        assert ("GET", "/hub/api") in _Hub.seen and ("POST", "/hub/api/users/alice/activity") in _Hub.seen
        assert TOKEN.encode() not in Path(f"/proc/{answer['pid']}/cmdline").read_bytes()
        channel.sendall(b'{"stop": true}\n')
        channel.settimeout(20)
        assert channel.recv(10) == b""
        channel.close()
        code, out = run.ended()
        hub.shutdown()
    assert code == 0 and TOKEN not in out and not run.runtime.exists()


@pytest.mark.parametrize("first", ["call", "attribute"])
def test_a_slow_module_is_loaded_when_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """What is put off is there at its first use, once, and whole; a missing module is let be."""
    (tmp_path / "slow_grammar.py").write_text(
        "import builtins\nbuiltins.loads = getattr(builtins, 'loads', 0) + 1\nNAME = 'grammar'\n"
        "def is_valid(text):\n    return text == 'good'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(builtins, "loads", 0, raising=False)
    launcher._postpone("slow_grammar", "is_valid")
    launcher._postpone("no_such_module", "is_valid")
    assert "no_such_module" not in sys.modules
    put_off = importlib.import_module("slow_grammar")
    assert builtins.loads == 0
    if first == "call":
        assert put_off.is_valid("good") and not put_off.is_valid("bad")
    assert put_off.NAME == "grammar" and put_off.is_valid("good")
    assert builtins.loads == 1
    assert importlib.import_module("slow_grammar").is_valid("good")
    del sys.modules["slow_grammar"]
