"""One person cannot take a login node down: what is beyond the limits ends, and others work on."""

from __future__ import annotations

import itertools

import pytest

from support.demo import Demo
from support.servers import Server, ServerOf

pytestmark = pytest.mark.live

WHERE = "import socket; print(socket.gethostname())"
# Bounded in itself as well: at most 500 that sleep, and all of them ended.
FORKS = """
import os, signal, time
pids = []
try:
    for _ in range(500):
        pid = os.fork()
        if not pid:
            time.sleep(60)
            os._exit(0)
        pids.append(pid)
except BlockingIOError as error:
    print("refused:", error.strerror)
finally:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    print(len(pids))
"""


def _two_on_one_node(server_of: ServerOf) -> tuple[Server, Server]:
    """Servers of two people on the same login node: with two nodes, two of three people share one."""
    started = [(server_of(user).start(placement="login")) for user in ("alice", "bob", "carol")]
    nodes = {server.user: server.run(WHERE) for server in started}
    return next(
        pair for pair in itertools.combinations(started, 2) if nodes[pair[0].user] == nodes[pair[1].user]
    )


def test_a_hog_ends_and_a_neighbour_answers(demo: Demo, server_of: ServerOf) -> None:
    """Forks end at the limit on processes and memory at its own; the neighbour's kernel answers meanwhile,
    and the hog's server goes on.
    """
    hog, neighbour = _two_on_one_node(server_of)
    with hog.kernel() as kernel, neighbour.kernel() as other:
        assert kernel.run("import resource as r; print(r.getrlimit(r.RLIMIT_NPROC)[1])") == "300"
        said = kernel.run(FORKS)
        assert "refused: Resource temporarily unavailable" in said, said
        assert 0 < int(said.split()[-1]) < 300
        assert other.run("print(6 * 7)") == "42"
        assert "MemoryError" in kernel.run("hog = bytearray(3 << 30)")
        assert kernel.run("import os; print(os.nice(0))") == "5"
        assert other.run("print(6 * 7)") == "42"
        assert kernel.run("print('still here')") == "still here"
    log = demo.exec("login1", ["cat", f"{hog.folder}/server.log"], user=hog.user, check=True).stdout
    assert "limited by ulimit" in log
