"""The cells of two how-tos, as alice on a login node runs them: Dask and ipyparallel over two nodes."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hpchub.demo.info import find_host
from hpchub.demo.layout import Layout
from support.demo import Demo
from support.tree import ROOT

pytestmark = pytest.mark.live

_PYTHON = "/opt/hpc/data/bin/python"
_FOLDER = "/home/alice/more-than-one-node"
_LIMIT_S = 120

# Runs all cells but the last, says what it sees, and waits for a line before it runs the last.
_PERSON = r"""
import json, os, sys
from traitlets.config import get_config
cells, look = json.loads(sys.stdin.readline())
names = {"__name__": "__main__", "get_config": get_config}
for cell in cells[:-1]:
    exec(cell, names)
print("SEEN", json.dumps(eval(look, names)), flush=True)
sys.stdin.readline()
exec(cells[-1], names)
print("CLOSED", flush=True)
"""


def _cells(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "howto" / page).read_text(), re.M | re.S)


@contextmanager
def _person(demo: Demo, page: str, look: str) -> Iterator[dict[str, Any]]:
    """What alice sees once all cells but the last have run; the last is run on leaving."""
    script = 'rm -rf "$0" && mkdir "$0" && cd "$0" && exec "$@"'
    argv = ("sh", "-c", script, _FOLDER, "env", f"IPYTHONDIR={_FOLDER}/ipython", _PYTHON, "-c", _PERSON)
    entered = find_host(Layout(demo.directory), "login1").enter(argv, "alice")
    with subprocess.Popen(
        entered, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as person:
        assert person.stdin
        assert person.stdout
        try:
            person.stdin.write(json.dumps([_cells(page), look]) + "\n")
            person.stdin.flush()
            lines = [""]
            while not lines[-1].startswith("SEEN "):
                lines.append(person.stdout.readline())
                assert lines[-1], "".join(lines)
            yield json.loads(lines[-1].removeprefix("SEEN "))
            rest, _ = person.communicate("\n", timeout=_LIMIT_S)
            assert rest.endswith("CLOSED\n"), rest
        finally:
            person.kill()


def _nothing_is_left(demo: Demo, name: str) -> None:
    """Waits until no job of this name is in the queue."""
    deadline = time.monotonic() + _LIMIT_S
    while left := demo.exec("login1", ("squeue", "--noheader", f"--name={name}"), check=True).stdout:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def _python(demo: Demo, user: str, program: str, *words: str) -> Any:
    """What a Python program of somebody's prints on a compute node, as JSON on the last line."""
    done = demo.exec("c2", (_PYTHON, "-c", program, *words), user=user, check=True)
    return json.loads(done.stdout.splitlines()[-1])


_ASK_DASK = r"""
import json, sys
from distributed import Client, Security
address, seen = sys.argv[1], []
for scheme, security in (("tcp", None), ("tls", Security.temporary())):
    try:
        Client(f"{scheme}://{address}", security=security, timeout=30)
        seen.append("let in")
    except OSError as error:
        seen.append(str(error))
print(json.dumps(seen))
"""


def test_dask(demo: Demo) -> None:
    """It computes on both nodes; without the keys, which only she can read, the scheduler lets nobody in."""
    look = """{
        "hosts": sorted({host for host, _ in results}),
        "squares": sorted(number for _, number in results),
        "address": cluster.scheduler_address.removeprefix("tls://"),
        "modes": sorted({oct(path.stat().st_mode & 0o777) for path in [keys, *keys.glob(".dask-jobqueue*")]}),
    }"""
    with _person(demo, "dask-on-the-cluster.md", look) as seen:
        plain, with_other_keys = _python(demo, "bob", _ASK_DASK, seen["address"])
    assert seen["hosts"] == ["c1", "c2"]
    assert seen["squares"] == [number**2 for number in range(8)]
    assert seen["modes"] == ["0o600", "0o700"]
    assert "closed" in plain
    assert "certificate does not match" in with_other_keys
    _nothing_is_left(demo, "dask-worker")


# Whether the controller speaks to us: with this connection file's key, or another where we may not read it.
_ASK_IPYPARALLEL = r"""
import json, sys, zmq
from zmq.utils.monitor import recv_monitor_message
try:
    key = json.load(open(sys.argv[2]))["curve_serverkey"].encode()
except PermissionError:
    key = zmq.curve_keypair()[0]
socket = zmq.Context().socket(zmq.DEALER)
socket.linger = 0
socket.curve_serverkey = key
socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
answers = zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.DISCONNECTED
monitor = socket.get_monitor_socket(answers)
socket.connect(sys.argv[1])
assert monitor.poll(30_000)
print(json.dumps(recv_monitor_message(monitor)["event"] == zmq.Event.HANDSHAKE_SUCCEEDED))
"""


def test_ipyparallel(demo: Demo) -> None:
    """It computes on both nodes; the keys are in files of her own, and in no job's environment."""
    look = """{
        "hosts": sorted(set(hosts)),
        "squares": squares,
        "file": cluster.controller.connection_files["client"],
        "environ": engines.apply_sync(lambda: "IPP_CONNECTION_INFO" in __import__("os").environ),
    }"""
    with _person(demo, "ipyparallel-on-the-cluster.md", look) as seen:
        text = demo.exec("login1", ("cat", seen["file"]), user="alice", check=True).stdout
        registration = json.loads(text)
        address = f"{registration['interface']}:{registration['registration']}"
        let_in = {
            user: _python(demo, user, _ASK_IPYPARALLEL, address, seen["file"]) for user in ("alice", "bob")
        }
    assert let_in == {"alice": True, "bob": False}
    assert seen["hosts"] == ["c1", "c2"]
    assert seen["squares"] == [number**2 for number in range(8)]
    assert set(seen["environ"]) == {False}
    _nothing_is_left(demo, "ipengine")
