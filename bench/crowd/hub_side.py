"""The real hub, bridge, signer and proxy, with the demo's own settings, before simulated clusters."""

from __future__ import annotations

import http.client
import json
import secrets
import shutil
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import argon2
import asyncssh

from bench.crowd.processes import Processes, processes
from bench.private_demo import HPCHUB
from bench.web import Connection, Hub, Place
from hpchub.demo.accounts import STATUS_ACCOUNT
from hpchub.demo.hubside import find_proxy, listens
from hpchub.demo.site import render
from hpchub.signer.keys import Keys, init_keys, load_keys, render_ca_public_key
from hpchub.signer.policy import Policy

_CLUSTER = """
title = "{name}"
known_hosts = "known_hosts"
[scheduler]
kind = "slurm"
status_account = "{account}"
{nodes}
[placements.compute]
attach = "{attach}"
[partitions.cpu]
max_time = "08:00:00"
max_cpus = 8
max_memory = "16G"
[environments.lab]
prefix = "/opt/hpc/lab"
[defaults]
placement = "compute"
"""
_NODE = '[[login_nodes]]\nname = "{name}-login{number}"\naddress = "{address}"\nport = {port}\n'


@dataclass(slots=True)
class HubSide:
    """A running hub side. Its processes: signer, bridge, proxy, jupyterhub, and the simulators."""

    folder: Path
    processes: Processes
    port: int
    token: str = field(repr=False)
    keys: Keys = field(repr=False)
    policy: Policy
    clusters: list[str]

    @property
    def url(self) -> str:
        """The proxy's."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def bridge_socket(self) -> Path:
        """The bridge's API."""
        return self.folder / "bridge.sock"

    @property
    def pids(self) -> dict[str, int]:
        """Of the four that a site runs."""
        return self.processes.pids("jupyterhub", "bridge", "proxy", "signer")

    def start_hub(self) -> None:
        """Start JupyterHub and wait until it answers."""
        config = str(self.folder / "jupyterhub_config.py")
        self.processes.start("jupyterhub", [sys.executable, "-m", "jupyterhub", "-f", config])
        # Through the proxy: a hub that answers has not always given it its own route yet.
        place = Place(port=self.port)
        self.processes.wait_until("jupyterhub", lambda: answers(place, "/hub/health"))

    def start_bridge(self) -> None:
        """Start the bridge and wait until it answers."""
        config = str(self.folder / "bridge.toml")
        self.processes.start("bridge", [*HPCHUB, "bridge", "--config", config])
        place = Place(unix=str(self.bridge_socket))
        self.processes.wait_until("bridge", lambda: answers(place, "/v1/ready"))

    def let_log_in(self, names: Sequence[str], password: str) -> None:
        """Give more people a password. One hash serves all: making it costs as much as checking it."""
        digest = argon2.PasswordHasher.from_parameters(argon2.profiles.RFC_9106_LOW_MEMORY).hash(password)
        text = "".join(f"{name}:{digest}\n" for name in names)
        with (self.folder / "passwords").open("a", encoding="ascii") as file:
            file.write(text)

    def counts(self) -> Counter[str]:
        """What the simulators have counted so far, all together; `hub NNN` are the hub's answers."""
        total: Counter[str] = Counter()
        for name in self.clusters:
            found = self.ask(name, "GET", "/counts")
            total.update(found["counts"])
            total.update({f"hub {status}": number for status, number in found["hub_calls"].items()})
            total["unknown commands"] += len(found["unknown"])
        return total

    def ask(self, cluster: str, method: str, path: str) -> Any:
        """Ask a simulator."""
        connection = Connection(Place(unix=str(self.folder / f"{cluster}.control")))
        try:
            connection.request(method, path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@contextmanager
def hub_side(attach: str, simulators: int, nodes: int) -> Iterator[HubSide]:
    """Everything up; gone with the block, whose failure shows where the logs were.

    Args:
        attach: The way into a job, `srun` or `tcp`.
        simulators: How many clusters, each a process.
        nodes: Login nodes of each.
    """
    # Short and in lower case: sockets lie in it.
    folder = Path(tempfile.mkdtemp(prefix="hpchub-crowd-", dir="/tmp"))
    try:
        with processes(folder) as children:
            side = _lay_out(folder, children, [f"sim{number}" for number in range(1, simulators + 1)])
            _start_simulators(side, attach, nodes)
            _start(side)
            side.token = admin_token(Place(port=side.port), side.token)
            yield side
    except BaseException:
        logs = {path.name: path.read_text(errors="replace")[-1500:] for path in folder.glob("*.log")}
        print("\n".join(f"--- {name} ends:\n{text}" for name, text in logs.items()), file=sys.stderr)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lay_out(folder: Path, children: Processes, clusters: list[str]) -> HubSide:
    values = {
        "sockets": folder,
        "hub": folder,
        "logs": folder,
        "clusters": folder / "clusters.d",
        "port": free_port(),
        "admin": "admin",
        "source_addresses": ["127.0.0.0/8"],
        "status_account": STATUS_ACCOUNT,
    }
    (folder / "clusters.d").mkdir()
    for name in ("signer.toml", "bridge.toml", "jupyterhub_config.py"):
        (folder / name).write_text(render(f"hub/{name}.j2", values), encoding="utf-8")
    tokens = {name: secrets.token_hex(32) for name in ("admin_api_token", "proxy_token")}
    for name, token in tokens.items():
        (folder / name).write_text(token, encoding="ascii")
    (folder / "passwords").touch(mode=0o600)
    state = folder / "signer"
    init_keys(state)
    return HubSide(
        folder=folder,
        processes=children,
        port=int(str(values["port"])),
        token=tokens["admin_api_token"],
        keys=load_keys(state),
        # The signer's own defaults; only the ceiling of a grant is taken from it.
        policy=Policy(
            certificate_lifetime_s=600, login_ceiling_s=12 * 3600, source_addresses=("127.0.0.0/8",)
        ),
        clusters=clusters,
    )


def _start_simulators(side: HubSide, attach: str, nodes: int) -> None:
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    key_file = side.folder / "host_key"
    key_file.write_bytes(host_key.export_private_key())
    key_file.chmod(0o600)
    known, port = [], free_port()
    for number, name in enumerate(side.clusters, start=1):
        addresses = [f"127.77.{number}.{node}" for node in range(1, nodes + 1)]
        known += [f"[{address}]:{port} {host_key.export_public_key().decode()}" for address in addresses]
        listed = "".join(
            _NODE.format(name=name, number=node, address=address, port=port)
            for node, address in enumerate(addresses, start=1)
        )
        (side.folder / "clusters.d" / f"{name}.toml").write_text(
            _CLUSTER.format(name=name, nodes=listed, attach=attach, account=STATUS_ACCOUNT), encoding="utf-8"
        )
        settings: dict[str, Any] = {
            "addresses": addresses,
            "port": port,
            "host_key": str(key_file),
            "ca": render_ca_public_key(side.keys.ca),
            "control": str(side.folder / f"{name}.control"),
        }
        path = side.folder / f"{name}.json"
        path.write_text(json.dumps(settings), encoding="utf-8")
        side.processes.start(name, [sys.executable, "-m", "bench.crowd.simulator", str(path)])
        control = Place(unix=settings["control"])
        side.processes.wait_until(name, lambda place=control: answers(place, "/counts"))  # type: ignore[misc]
    (side.folder / "clusters.d" / "known_hosts").write_text("".join(known), encoding="ascii")


def _start(side: HubSide) -> None:
    folder = side.folder
    side.processes.start("signer", [*HPCHUB, "signer", "--config", str(folder / "signer.toml"), "serve"])
    side.processes.wait_until(
        "signer", lambda: answers(Place(unix=str(folder / "signer.sock")), "/v1/health")
    )
    agent = folder / "agent.sock"
    side.processes.start("agent", ["ssh-agent", "-D", "-a", str(agent)])
    side.processes.wait_until("agent", lambda: listens(agent))
    side.start_bridge()
    side.processes.start(
        "proxy",
        [find_proxy(), "--ip", "127.0.0.1", "--port", str(side.port), "--log-level", "warn",
         "--api-socket", str(folder / "proxy.sock")],
        {"CONFIGPROXY_AUTH_TOKEN": (folder / "proxy_token").read_text(encoding="ascii")},
    )  # fmt: skip
    side.start_hub()


def admin_token(place: Place, service_token: str) -> str:
    """A token as JupyterHub itself makes them.

    It hashes one from a configuration file 16,384 times at each call, 4 ms, which no person's costs.
    """
    hub = Hub(place, service_token)
    hub.call("POST", "/users/admin")
    status, answer = hub.call("POST", "/users/admin/tokens", {"note": "bench"})
    if status != 201:
        raise RuntimeError(f"the hub gives no token: {status} {answer}")
    return str(answer["token"])


def answers(place: Place, path: str) -> bool:
    """Whether an HTTP server says 200 there."""
    connection = Connection(place, timeout_s=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
