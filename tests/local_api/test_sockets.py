"""Our unix sockets: under a burst, and for other accounts of the machine."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from aiohttp import web

from hpchub.local_api.server import admit_accounts, listening, make_app
from hpchub.local_api.sockets import listen_privately
from support import require

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


_CALL = """
import os, socket, sys
os.setgroups([int(sys.argv[3])] if sys.argv[3] else [])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
with socket.socket(socket.AF_UNIX) as caller:
    try:
        caller.connect(sys.argv[1])
    except PermissionError:
        print("kept out")
        raise SystemExit
    caller.sendall(b"GET /here HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
    print(b"".join(iter(lambda: caller.recv(4096), b"")).split()[1].decode())
"""


async def test_accounts_of_the_machine(path: Path) -> None:
    """With a group, its members reach the socket; of them, those that are named are answered."""
    require.root()
    path.parent.chmod(0o755)
    group, named, other = 20610, 20611, 20612
    inner = path.with_name("run") / "s.sock"

    async def here(_request: web.Request) -> web.Response:
        return web.Response()

    app = make_app(100, admit_accounts(frozenset({named})))
    app.router.add_get("/here", here)
    async with listening(app, inner, group=group):
        for uid, of_group, expected in (
            (named, group, "200"),
            (other, group, "403"),
            (named, "", "kept out"),
            (other, "", "kept out"),
        ):
            argv = (sys.executable, "-c", _CALL, str(inner), str(uid), str(of_group))
            child = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)
            said = (await asyncio.wait_for(child.communicate(), 20))[0].decode().strip()
            assert said == expected, (uid, of_group)
