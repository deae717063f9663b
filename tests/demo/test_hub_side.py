"""The demo's hub side: what listens where, who can read what."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import time
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from hpchub.core.cluster_file import load_clusters
from support.demo import Demo

pytestmark = pytest.mark.live

_HUB_SIDE = {"signer", "bridge", "proxy", "jupyterhub"}


def _pids(demo: Demo) -> dict[str, int]:
    rows = json.loads((demo.directory / "processes.json").read_text())
    return {row["name"]: row["pid"] for row in rows if row["name"] in _HUB_SIDE}


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_info_is_private_and_complete(demo: Demo) -> None:
    """info.json is 0600 and holds what the tests and people are promised."""
    assert _mode(demo.directory / "info.json") == 0o600
    assert {"alice", "bob", "carol", "site-admin"} <= set(demo.users)
    assert demo.info["clusters"] == {
        "demo": {"login_hosts": ["login1", "login2"], "compute_hosts": ["c1", "c2"]}
    }
    assert Path(demo.info["logs"]).is_dir()
    assert requests.get(demo.url + "hub/api/users", headers=demo.admin_headers, timeout=10).status_code == 200


def test_cluster_file_is_valid(demo: Demo) -> None:
    """The cluster file passes the check that every component makes, and names the attach in use."""
    cluster = load_clusters(Path(demo.info["clusters_folder"]))["demo"]
    assert cluster.compute is not None
    assert cluster.compute.attach == demo.info["attach"]


def test_sockets_are_private(demo: Demo) -> None:
    """Every socket of the hub side is its owner's alone, in a 0700 folder."""
    folder = Path(demo.info["sockets"])
    assert _mode(folder) == 0o700
    found = {path.name: _mode(path) for path in folder.iterdir() if path.is_socket()}
    assert {"signer.sock", "bridge.sock", "hub.sock", "proxy.sock"} <= set(found)
    assert not [name for name, mode in found.items() if mode & 0o077]


def test_one_loopback_port(demo: Demo) -> None:
    """The hub side's processes listen on one TCP port together, on 127.0.0.1."""
    inodes = set()
    for pid in _pids(demo).values():
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed since it was listed; a listening one stays open
                if match := re.match(r"socket:\[(\d+)\]", str(handle.readlink())):
                    inodes.add(match[1])
    listening = []
    for pid in _pids(demo).values():
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and fields[9] in inodes:
                    listening.append(fields[1])
    port = int(demo.url.rstrip("/").rpartition(":")[2])
    assert set(listening) == {f"0100007F:{port:04X}"}


def test_no_secret_in_an_argv(demo: Demo) -> None:
    """No password and no token stands in any process's command line."""
    secrets = [*demo.users.values(), demo.info["admin_api_token"]]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended between the listing and the look
        assert not [secret for secret in secrets if secret in line]


def test_a_killed_hub_comes_back(demo: Demo) -> None:
    """The supervisor starts JupyterHub again, as a service manager would; the proxy stays up."""
    before = _pids(demo)
    os.kill(before["jupyterhub"], signal.SIGKILL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        time.sleep(0.1)
        after = _pids(demo)
        if after.get("jupyterhub") != before["jupyterhub"]:
            break
    while time.monotonic() < deadline:
        answer = requests.get(demo.url + "hub/api/", timeout=10)
        if answer.status_code == 200:
            break
        time.sleep(0.2)
    assert answer.status_code == 200
    assert after["proxy"] == before["proxy"]
