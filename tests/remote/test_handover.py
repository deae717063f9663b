from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpchub.errors import ConfigError
from hpchub.remote.handover import (
    end_line,
    extension_source,
    handover_line,
    launcher_source,
    notebook_argv,
    notebook_environ,
)
from hpchub.remote.launcher import HUB_SOCKET, Refused, proof, read_handover, read_news

HUB = "http+unix://%2Ftmp%2Fhpchub-9f%2Fhub.sock"


def test_environ_names_the_sockets() -> None:
    """The hub's addresses become the socket's, keeping their paths, and Jupyter's own files stay
    on the node; the rest is kept, but for PATH.
    """
    environ = notebook_environ(
        {
            "JUPYTERHUB_API_URL": "http+unix://%2Frun%2Fhub.sock/base/hub/api",
            "JUPYTERHUB_ACTIVITY_URL": "http://127.0.0.1:8081/base/hub/api/users/al%40ice/activity",
            "JUPYTERHUB_SERVICE_URL": "http://127.0.0.1:0/",
            "JUPYTERHUB_API_TOKEN": "t",
            "PATH": "/hub/bin",
        },
        runtime_dir="/tmp/hpchub-9f",
    )
    assert environ == {
        "JUPYTERHUB_API_URL": HUB + "/base/hub/api",
        "JUPYTERHUB_ACTIVITY_URL": HUB + "/base/hub/api/users/al%40ice/activity",
        "JUPYTERHUB_SERVICE_URL": "http+unix://%2Ftmp%2Fhpchub-9f%2Fnotebook.sock",
        "JUPYTERHUB_API_TOKEN": "t",
        "JUPYTER_RUNTIME_DIR": "/tmp/hpchub-9f/jupyter",
    }


def test_capitals_are_refused() -> None:
    """JupyterHub's client would look for the socket in lower case."""
    with pytest.raises(ConfigError, match="capital"):
        notebook_environ({}, runtime_dir="/Scratch/hpchub-9f")


def test_handover_round_trip() -> None:
    """What the bridge writes is one line, and what the launcher reads out of it."""
    argv = notebook_argv(runtime_dir="/tmp/r")
    line = handover_line("hub-3f.sock", {"A": "ä\n"}, argv)
    assert line.count(b"\n") == 1
    assert read_handover(line, started=False) == ("hub-3f.sock", ({"A": "ä\n"}, argv))
    assert read_handover(handover_line("hub-3f.sock"), started=True) == ("hub-3f.sock", None)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"{}",
        json.dumps({"hub_socket": "../hub-1.sock"}).encode(),
        json.dumps({"hub_socket": "hub-1.sock\n"}).encode(),
        json.dumps({"hub_socket": "hub-1.sock"}).encode(),
        json.dumps({"hub_socket": "hub-1.sock", "environ": {"A": 1}, "argv": ["x"]}).encode(),
        json.dumps({"hub_socket": "hub-1.sock", "environ": {}, "argv": []}).encode(),
    ],
)
def test_bad_handovers_are_refused(body: bytes) -> None:
    """Whatever is not a whole first handover is refused, and no path leaves the folder."""
    with pytest.raises(Refused):
        read_handover(body, started=False)


def test_proof_binds_everything() -> None:
    """A proof of one side, role or nonce is none for another."""
    proofs = {
        proof(b"k", side, role, server, client)
        for side in ("client", "server")
        for role in ("handover.sock", "notebook.sock")
        for server in ("a", "b")
        for client in ("a", "b")
    }
    assert len(proofs) == 16 and proof(b"l", "client", "handover.sock", "a", "a") not in proofs


def test_launcher_is_one_file_for_python_3_8() -> None:
    """What is uploaded is the module itself, and imports nothing but the standard library."""
    source = launcher_source()
    assert source == (Path(__file__).parents[2] / "hpchub/remote/launcher.py").read_bytes()
    assert b"hpchub." not in source.split(b"from __future__", 1)[1].split(b"HANDOVER,", 1)[0]
    assert HUB_SOCKET.fullmatch("hub-0f.sock") and not HUB_SOCKET.fullmatch("hub-A.sock")


@pytest.mark.parametrize("line", [b"", b"{", b"[1]", b"7", b"\xff\n", b'{"later": "versions"}\n'])
def test_unknown_lines_say_nothing(line: bytes) -> None:
    """A line that this launcher does not know is neither a stop nor an end, and no error."""
    news = read_news(line)
    assert "stop" not in news
    assert "ends_at" not in news


def test_end_line_is_read() -> None:
    """What the bridge tells of the end arrives as it was."""
    line = end_line(1000, (60, 30), True)
    assert line.endswith(b"\n")
    assert read_news(line) == {"ends_at": 1000, "warn_before_s": [60, 30], "successor": True}


def test_extension_is_one_file() -> None:
    """The uploaded extension is the file itself; it loads nothing from elsewhere."""
    source = extension_source()
    assert source == (Path(__file__).parents[2] / "hpchub/remote/time_left.js").read_bytes()
    assert b"import(" not in source
    assert b"eval" not in source
