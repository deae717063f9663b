"""The hub side: signer, bridge, proxy and JupyterHub, on unix sockets and one loopback port.

Only the bridge is in the hub's network namespace: from there, and from nowhere else, the login
nodes can be reached.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpchub.core.cluster import Attach
from hpchub.core.cluster_file import load_clusters
from hpchub.demo.accounts import ADMIN, STATUS_ACCOUNT, new_passwords
from hpchub.demo.hosts import Host
from hpchub.demo.layout import CHECKOUT, Layout
from hpchub.demo.processes import Processes, write_private
from hpchub.demo.site import HUB, LOGIN_HOSTS, Site, render
from hpchub.demo.sshd import PRINCIPAL, TERMINAL_PRINCIPAL, source_addresses
from hpchub.errors import SiteError

_SETUP = "signer-setup"
_HPCHUB = (sys.executable, "-m", "hpchub.cli")


@dataclass(slots=True, kw_only=True)
class HubSide:
    """The hub side of one demo: made by `lay_out_hub`, then started."""

    layout: Layout
    sockets: Path
    port: int
    passwords: dict[str, str] = field(repr=False)
    admin_api_token: str = field(repr=False)
    proxy_token: str = field(repr=False)
    krl_file: Path
    address: str = "127.0.0.1"

    @property
    def url(self) -> str:
        """Where people go."""
        return f"http://127.0.0.1:{self.port}/"

    @property
    def signer_config(self) -> Path:
        """The signer's settings."""
        return self.layout.hub / "signer.toml"

    def begin_keys(self, processes: Processes) -> None:
        """Have the signer make its keys and hash every password, beside whatever else is being started."""
        typed = self.layout.hub / "typed"
        write_private(typed, json.dumps(self.passwords))
        argv = [sys.executable, "-m", "hpchub.demo.signer_setup", str(self.signer_config)]
        with typed.open("rb") as stdin:
            processes.start(_SETUP, argv, dict(os.environ), umask=0o077, stdin=stdin)
        typed.unlink()

    def finish_keys(self, processes: Processes) -> str:
        """The CA's public line, once every password is set."""
        if processes.children.pop(_SETUP).wait(timeout=120) != 0:
            raise SiteError(f"The signer's keys and passwords could not be made:\n{processes.tail(_SETUP)}")
        return next(line for line in processes.tail(_SETUP).splitlines() if line.startswith("ssh-"))

    def start(self, hosts: Mapping[str, Host], processes: Processes, say: Callable[[str], None]) -> None:
        """Start the five, each waited for."""
        environ = {
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
            "HOME": str(self.layout.hub),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
        }

        def start(name: str, *argv: str, stale: Path | None = None, **more: str) -> None:
            processes.start(
                name, argv, environ | more, umask=0o077, lasting=True, cwd=self.layout.hub, stale=stale
            )

        start("signer", *_HPCHUB, "signer", "--config", str(self.signer_config), "serve")
        _wait_for_socket(processes, "signer", self.sockets / "signer.sock")
        say("signer: checks passwords, signs certificates")
        agent = self.sockets / "agent.sock"
        start("agent", "ssh-agent", "-D", "-a", str(agent), stale=agent)
        _wait(processes, "agent", lambda: listens(agent), 20)
        bridge = (*_HPCHUB, "bridge", "--config", str(self.layout.hub / "bridge.toml"))
        start("bridge", *hosts[HUB].enter(bridge))
        _wait_for_socket(processes, "bridge", self.sockets / "bridge.sock")
        say("bridge: holds the SSH connections, in the hub's own network; ssh-agent: their keys")
        start(
            "proxy",
            *(find_proxy(), "--ip", self.address, "--port", str(self.port)),
            *("--api-socket", str(self.sockets / "proxy.sock"), "--log-level", "warn"),
            *(
                "--error-target",
                f"http+unix://{str(self.sockets / 'hub.sock').replace('/', '%2F')}/hub/error",
            ),
            # It leaves its socket behind when it ends, and the next one would listen nowhere.
            stale=self.sockets / "proxy.sock",
            CONFIGPROXY_AUTH_TOKEN=self.proxy_token,
        )
        config = str(self.layout.hub / "jupyterhub_config.py")
        start("jupyterhub", sys.executable, "-m", "jupyterhub", "-f", config)
        _wait_for_hub(processes, self.port)
        say(f"JupyterHub at {self.url}")


def find_proxy() -> str:
    """configurable-http-proxy's own command: the checkout's, else the machine's."""
    ours = CHECKOUT / "node_modules" / ".bin" / "configurable-http-proxy"
    found = str(ours) if ours.exists() else shutil.which("configurable-http-proxy")
    if not found:
        raise SiteError("configurable-http-proxy is missing.", "Install it with `npm ci` in the checkout.")
    return found


def lay_out_hub(
    layout: Layout,
    port: int,
    attach: Attach,
    site: Site,
    address: str = "127.0.0.1",
    krl_file: Path | None = None,
) -> HubSide:
    """Write the hub side's settings and keys. The cluster file comes later: it needs host keys.

    `address` is where the proxy listens: a container's own, which Docker publishes on 127.0.0.1 only.
    `krl_file` is where the signer writes its revocation list; among its own files where left out.
    """
    sockets = Path(tempfile.mkdtemp(prefix="hpchub-", dir="/tmp"))
    layout.sockets.symlink_to(sockets)
    side = HubSide(
        layout=layout,
        sockets=sockets,
        port=port,
        passwords=new_passwords(),
        admin_api_token=secrets.token_hex(32),
        proxy_token=secrets.token_hex(32),
        krl_file=krl_file or layout.hub / "revoked_keys",
        address=address,
    )
    write_private(layout.hub / "admin_api_token", side.admin_api_token)
    write_private(layout.hub / "proxy_token", side.proxy_token)
    values = {
        "sockets": sockets,
        "hub": layout.hub,
        "logs": layout.logs,
        "clusters": layout.clusters,
        "port": side.port,
        "admin": ADMIN,
        "status_account": STATUS_ACCOUNT,
        "source_addresses": source_addresses(attach, site),
        "principal": PRINCIPAL,
        "terminal_principal": TERMINAL_PRINCIPAL,
        "krl_file": side.krl_file,
    }
    for name in ("signer.toml", "bridge.toml", "jupyterhub_config.py"):
        write_private(layout.hub / name, render(f"hub/{name}.j2", values))
    return side


def lay_out_cluster_file(layout: Layout, attach: Attach, known_hosts: str, site: Site) -> None:
    """Describe the cluster in `clusters.d`, and check the description as every component will."""
    layout.clusters.mkdir(mode=0o755)
    (layout.clusters / "demo.known_hosts").write_text(known_hosts, encoding="ascii")
    nodes = [{"name": name, "address": site.edge[name], "port": 22} for name in LOGIN_HOSTS]
    values = {
        "login_nodes": nodes,
        "attach": attach.value,
        "status_account": STATUS_ACCOUNT,
        "principal": PRINCIPAL,
    }
    text = render("demo.toml.j2", values)
    (layout.clusters / "demo.toml").write_text(text, encoding="utf-8")
    load_clusters(layout.clusters)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def _wait_for_socket(processes: Processes, name: str, path: Path) -> None:
    _wait(processes, name, lambda: _answers(_UnixConnection(path), "/v1/health"), 20)


def _wait_for_hub(processes: Processes, port: int) -> None:
    def ready() -> bool:
        return _answers(http.client.HTTPConnection("127.0.0.1", port, timeout=5), "/hub/api/")

    _wait(processes, "jupyterhub", ready, 60)


def listens(path: Path) -> bool:
    """Whether somebody takes connections at a unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _answers(connection: http.client.HTTPConnection, path: str) -> bool:
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _wait(processes: Processes, name: str, ready: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        if processes.children[name].poll() is not None or time.monotonic() > deadline:
            raise SiteError(f"{name} did not start. Its log ends:\n{processes.tail(name)}")
        time.sleep(0.05)
