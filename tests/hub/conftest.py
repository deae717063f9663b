"""A real JupyterHub and its real proxy, with our plugins, the real signer and a recorded bridge."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hub.harness import (
    ADMIN_TOKEN,
    CLUSTER,
    HUB_CONFIG,
    PASSWORDS,
    RunningHub,
    Signer,
    configurable_http_proxy,
    free_port,
    short_folder,
)
from hub.recorded_bridge import RecordedBridge

from support.hub import HubSession


@pytest.fixture(scope="session")
def clusters_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one cluster file."""
    folder = tmp_path_factory.mktemp("clusters.d")
    (folder / "demo.toml").write_text(CLUSTER)
    return folder


@pytest.fixture(scope="session")
def running_hub(clusters_dir: Path) -> Iterator[RunningHub]:
    """One hub for all tests of this folder: it takes seconds to start."""
    chp = configurable_http_proxy()
    with ExitStack() as stack:
        # A unix socket's path is short and, in a URL of JupyterHub's, all lower case.
        folder = Path(stack.enter_context(short_folder()))
        port = free_port()
        # Browsers have security keys over plain HTTP for this name only.
        signer = Signer(folder, f"http://localhost:{port}")
        stack.callback(signer.stop)
        signer.start()
        bridge = RecordedBridge(folder, clusters_dir, signer.socket)
        stack.callback(bridge.close)
        bridge.start()
        config = folder / "jupyterhub_config.py"
        config.write_text(
            HUB_CONFIG.format(
                clusters=str(clusters_dir),
                bridge=str(bridge.socket),
                signer=str(signer.socket),
                folder=str(folder),
                chp=chp,
                port=port,
                token=ADMIN_TOKEN,
            )
        )
        hub = RunningHub(
            url=f"http://127.0.0.1:{port}",
            folder=folder,
            bridge=bridge,
            stop_signer=signer.stop,
            start_signer=signer.start,
            command=[sys.executable, "-m", "jupyterhub", "-f", str(config)],
        )
        hub.begin()
        stack.callback(hub.end)
        yield hub
        for session in hub.sessions:
            session.close()


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
