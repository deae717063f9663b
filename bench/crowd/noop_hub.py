"""JupyterHub with nothing of ours: a dummy authenticator, and a spawner that returns one shared server.

What it takes then is JupyterHub's own share of what a crowd costs.
"""

from __future__ import annotations

import importlib.util
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.crowd.hub_side import admin_token, answers, free_port
from bench.crowd.processes import Processes, processes
from bench.web import Place
from hpchub.demo.hubside import find_proxy

_SPAWNER = '''
from jupyterhub.spawner import Spawner

class Noop(Spawner):
    """Every server is the one at PORT."""
    async def start(self):
        return "http://127.0.0.1:{port}"
    async def poll(self):
        return None
    async def stop(self, now=False):
        return None
'''
_CONFIG = """
{spawner}
c = get_config()
c.JupyterHub.spawner_class = Noop
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = "{password}"
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {{"admin"}}
c.JupyterHub.bind_url = "http://127.0.0.1:{proxy_port}/"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub_port}/"
c.JupyterHub.db_url = "{database}"
c.JupyterHub.cookie_secret_file = "{folder}/cookie_secret"
c.JupyterHub.cleanup_servers = False
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.log_level = "WARN"
c.ConfigurableHTTPProxy.command = ["{proxy}"]
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.ConfigurableHTTPProxy.pid_file = "{folder}/proxy.pid"
c.JupyterHub.services = [{{"name": "bench", "api_token": "{token}"}}]
c.JupyterHub.load_roles = [
    {{"name": "bench", "services": ["bench"], "scopes": ["admin:users", "admin:servers", "tokens"]}}
]
"""
PASSWORD = "one-for-all"  # noqa: S105  of a hub that lives for a minute, on the loopback


@dataclass(slots=True)
class NoopHub:
    """A running one."""

    folder: Path
    port: int
    token: str = field(repr=False)
    pids: dict[str, int]

    @property
    def url(self) -> str:
        """The proxy's."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def noop_hub(database: str = "") -> Iterator[NoopHub]:
    """Up, with its own proxy and stub server; gone with the block. `database`: SQLite where empty."""
    folder = Path(tempfile.mkdtemp(prefix="hpchub-noop-"))
    try:
        with processes(folder) as children:
            yield _start(folder, children, database or f"sqlite:///{folder}/hub.sqlite")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, children: Processes, database: str) -> NoopHub:
    stub, port, hub_port, api_port = (free_port() for _ in range(4))
    token = secrets.token_hex(32)
    config = folder / "jupyterhub_config.py"
    config.write_text(
        _CONFIG.format(
            spawner=_SPAWNER.format(port=stub), password=PASSWORD, proxy_port=port, hub_port=hub_port,
            database=database, folder=folder, proxy=find_proxy(), api_port=api_port, token=token,
        ),
        encoding="utf-8",
    )  # fmt: skip
    children.start("stub", [sys.executable, "-m", "bench.crowd.stub", str(stub)])
    children.wait_until("stub", lambda: answers(Place(port=stub), "/"))
    children.start("jupyterhub", [sys.executable, "-m", "jupyterhub", "-f", str(config)])
    children.wait_until("jupyterhub", lambda: answers(Place(port=port), "/hub/health"))
    return NoopHub(folder, port, admin_token(Place(port=port), token), children.pids("jupyterhub"))


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL of the bench's own, on a unix socket; empty where there is none to run.

    A driver for it must be installed in the hub's environment.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found or importlib.util.find_spec("psycopg") is None:
        yield ""
        return
    binaries = found[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="hpchub-pg-", dir="/tmp"))
    shutil.chown(folder, "postgres")

    def run(*argv: str) -> None:
        subprocess.run(
            ["runuser", "-u", "postgres", "--", *argv],
            check=True, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    try:
        run(str(binaries / "initdb"), "-D", str(folder / "data"), "-A", "trust", "-U", "postgres")
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c max_connections=50"
        control = (str(binaries / "pg_ctl"), "-D", str(folder / "data"), "-w")
        run(*control, "-o", options, "-l", str(folder / "log"), "start")
        try:
            yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
        finally:
            run(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
