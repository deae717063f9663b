"""Our unix sockets under a burst."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

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
