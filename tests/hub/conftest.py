"""A real JupyterHub and its real proxy, with our plugins, the real signer and a recorded bridge."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hub.harness import CLUSTER, HOST_KEY, PASSWORDS, RunningHub, a_hub

from support.hub import HubSession


@pytest.fixture(scope="session")
def clusters_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one cluster file."""
    folder = tmp_path_factory.mktemp("clusters.d")
    (folder / "demo.toml").write_text(CLUSTER)
    (folder / "demo.known_hosts").write_text(f"login1 {HOST_KEY}\n")
    return folder


@pytest.fixture(scope="session")
def running_hub(clusters_dir: Path) -> Iterator[RunningHub]:
    """One hub for all tests of this folder: it takes seconds to start."""
    with a_hub(clusters_dir) as hub:
        yield hub


@pytest.fixture
def hub(running_hub: RunningHub) -> Iterator[RunningHub]:
    """The running hub, with no server left over from another test."""
    bridge = running_hub.bridge
    yield running_hub
    bridge.stays_queued.clear()
    bridge.dies = bridge.asking_fails = None
    api = running_hub.api()
    for user in PASSWORDS:
        for name in _settled(api, user):
            path = f"hub/api/users/{user}/servers/{name}" if name else f"hub/api/users/{user}/server"
            api.delete(path, json={"remove": bool(name)})


def _settled(api: HubSession, user: str) -> Iterable[str]:
    """The user's servers, none of them starting or stopping: to interrupt a start takes JupyterHub 1 s."""
    deadline = time.monotonic() + 5
    while True:
        model = api.get(f"hub/api/users/{user}?include_stopped_servers")
        servers = model.json()["servers"] if model.ok else {}
        if time.monotonic() > deadline or not any(server["pending"] for server in servers.values()):
            return list(servers)
        time.sleep(0.02)
