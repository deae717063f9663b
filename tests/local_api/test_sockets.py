"""Our unix sockets, and JupyterHub's, under a burst."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tornado import netutil
from traitlets.config import Config

from hpchub.hub.config import configure
from hpchub.local_api.sockets import listen_privately

_BURST = 400  # more than the 128 of tornado and aiohttp


@pytest.fixture
def path() -> Iterator[Path]:
    with TemporaryDirectory(prefix="hpchub-t-", dir="/tmp") as folder:
        yield Path(folder) / "s"


def connect_many(path: Path) -> None:
    """BlockingIOError where one is refused: nobody accepts meanwhile."""
    with ExitStack() as stack:
        for _ in range(_BURST):
            caller = stack.enter_context(socket.socket(socket.AF_UNIX))
            caller.setblocking(False)
            caller.connect(str(path))


def test_a_burst_waits_at_our_sockets(path: Path) -> None:
    """Nobody is refused while the process is busy with something else."""
    with listen_privately(path):
        connect_many(path)


def test_a_burst_waits_at_the_hub(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JupyterHub binds its socket with tornado's function, which `configure` gives a longer queue."""
    monkeypatch.setattr(netutil, "bind_unix_socket", netutil.bind_unix_socket)  # put back afterwards
    configure(Config(), clusters="/c", bridge_socket="/b.sock", signer_socket="/s.sock", hub_socket="/h.sock")
    with netutil.bind_unix_socket(str(path), mode=0o600):
        connect_many(path)
