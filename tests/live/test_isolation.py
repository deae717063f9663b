"""What cannot reach what, and that no TCP port is opened for a notebook."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence

import pytest

from support.demo import Demo
from support.servers import ServerOf

pytestmark = pytest.mark.live

_CLUSTER = ("ctl", "login1", "login2", "c1", "c2")


def _addresses(demo: Demo, host: str) -> list[str]:
    """Every IPv4 and IPv6 address of a host but its loopback's and link-local ones."""
    shown = demo.exec(host, ["ip", "-json", "addr", "show", "up"], check=True).stdout
    return [
        entry["local"]
        for link in json.loads(shown)
        for entry in link["addr_info"]
        if entry["scope"] == "global"
    ]


def _connects(demo: Demo, host: str, targets: Sequence[tuple[str, int]]) -> dict[str, str]:
    """What connect(2) says from a host: `ok` or the error's name, by target."""
    code = (
        "import errno, json, socket, sys\n"
        "said = {}\n"
        "for address, port in json.load(sys.stdin):\n"
        "    try:\n"
        "        socket.create_connection((address, port), timeout=2).close()\n"
        "        said[f'{address}:{port}'] = 'ok'\n"
        "    except TimeoutError:\n"
        "        said[f'{address}:{port}'] = 'timeout'\n"
        "    except OSError as error:\n"
        "        said[f'{address}:{port}'] = errno.errorcode.get(error.errno, str(error))\n"
        "print(json.dumps(said))\n"
    )
    argv = ["/usr/bin/python3", "-c", code]
    said: dict[str, str] = json.loads(demo.exec(host, argv, stdin=json.dumps(targets), check=True).stdout)
    return said


def _ports(demo: Demo, host: str) -> set[str]:
    """Where anything on a host listens, TCP and UDP, any address: but for srun.

    An srun listens on its node for its own step, in Slurm's own protocol, whoever starts it.
    """
    listed = demo.exec(host, ["ss", "-Hltunp"], check=True).stdout
    return {
        " ".join(line.split()[i] for i in (0, 4)) for line in listed.splitlines() if '(("srun",' not in line
    }


def test_hub_cannot_reach_compute_nodes(demo: Demo) -> None:
    """The hub has no route to any address of a compute node or the controller; login nodes answer on 22."""
    behind = [
        (address, port)
        for host in ("c1", "c2", "ctl")
        for address in _addresses(demo, host)
        for port in (22, 6818, 6817, 8888)
    ]
    assert len(behind) >= 12
    said = _connects(demo, "hub", behind)
    assert set(said.values()) == {"ENETUNREACH"}, said

    hub_networks = {address.rpartition(".")[0] for address in _addresses(demo, "hub")}
    edges = [
        (address, 22)
        for host in ("login1", "login2")
        for address in _addresses(demo, host)
        if address.rpartition(".")[0] in hub_networks
    ]
    assert len(edges) == 2
    assert set(_connects(demo, "hub", edges).values()) == {"ok"}


def test_compute_nodes_cannot_reach_the_hub(demo: Demo) -> None:
    """A compute node has no route to any address of the hub, nor to the hub's port on the loopback."""
    port = int(demo.url.rstrip("/").rpartition(":")[2])
    targets = [(address, number) for address in _addresses(demo, "hub") for number in (port, 22, 8081, 8000)]
    assert targets
    for host in ("c1", "c2"):
        said = _connects(demo, host, targets)
        assert set(said.values()) == {"ENETUNREACH"}, (host, said)
        assert _connects(demo, host, [("127.0.0.1", port)]) == {f"127.0.0.1:{port}": "ECONNREFUSED"}


@pytest.mark.parametrize("host", ["hub", *_CLUSTER])
def test_no_way_around(demo: Demo, host: str) -> None:
    """No host has a default route, and none forwards from one network to the other."""
    for family in ("-4", "-6"):
        routes = demo.exec(host, ["ip", family, "route", "show", "default"], check=True).stdout
        assert routes.strip() == ""
    if host != "hub":  # its /proc/sys is the machine's until read from inside; it joins one network only
        assert demo.exec(host, ["cat", "/proc/sys/net/ipv4/ip_forward"], check=True).stdout.strip() == "0"


def test_no_port_for_a_notebook(demo: Demo, server_of: ServerOf) -> None:
    """With servers on both placements and a kernel in each, no host listens anywhere it did not before."""
    hosts = ("login1", "login2", "c1", "c2", "hub")
    before = {host: _ports(demo, host) for host in hosts}
    job = server_of("alice", "job").start(placement="compute")
    here = server_of("alice", "here").start(placement="login")
    assert job.run("print(1)") == here.run("print(1)") == "1"
    after = {host: _ports(demo, host) for host in hosts}
    new = {host: after[host] - before[host] for host in hosts}
    assert not any(new.values()), new


@pytest.mark.parametrize("placement", ["login", "compute"])
def test_no_port_while_a_kernel_runs(demo: Demo, server_of: ServerOf, placement: str) -> None:
    """A kernel's channels are unix sockets; its server opens no port at all.

    One loopback port is ipykernel's own (`IOPubThread`): it carries what forked children print, takes
    nothing without a random key that never leaves the process, and cannot be turned off.
    """
    server = server_of("alice").start(placement=placement)
    with server.kernel() as kernel:
        node = kernel.run("import socket; print(socket.gethostname())")
        own = kernel.run("import sys; print(f'127.0.0.1:{sys.stdout.pub_thread._pipe_port}')")
        pids = kernel.run("import os; print(os.getpid(), os.getppid())").split()
        inside = demo.exec(node, ["ss", "-Hltunp"], check=True).stdout.splitlines()
    hers = [row.split()[4] for row in inside if any(f"pid={pid}," in row for pid in pids)]
    assert hers == [own]


def test_the_hub_listens_on_the_loopback_only(demo: Demo) -> None:
    """The hub's one port is not on any address that another machine could reach."""
    port = int(demo.url.rstrip("/").rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    assert _ports(demo, "hub") == set()


def test_sockets_are_their_owners(demo: Demo, server_of: ServerOf) -> None:
    """bob can neither list alice's runtime folder or her job's, nor connect to a socket there."""
    code = (
        "import socket, sys\n"
        "for name in ('notebook.sock', 'handover.sock', 'hub.sock'):\n"
        "    try:\n"
        "        socket.socket(socket.AF_UNIX).connect(f'{sys.argv[1]}/{name}')\n"
        "        print(name, 'connected')\n"
        "    except OSError as error:\n"
        "        print(name, type(error).__name__)\n"
    )
    for placement in ("compute", "login"):
        server = server_of("alice", placement).start(placement=placement)
        node = server.run("import socket; print(socket.gethostname())")
        runtime = f"/tmp/hpchub-{server.server_id[:16]}"
        argv = ["/usr/bin/python3", "-c", code, runtime]
        mine = demo.exec(node, argv, user="alice", check=True).stdout.split()
        assert mine[1::2] == ["connected"] * 3, mine
        his = demo.exec(node, argv, user="bob", check=True).stdout.split()
        assert his[1::2] == ["PermissionError"] * 3, his
        for folder in (runtime, server.folder, "/home/alice/.hpchub/servers"):
            refused = demo.exec(node, ["ls", folder], user="bob")
            assert refused.returncode != 0, (node, folder, refused.stdout)
            assert "Permission denied" in refused.stderr
