"""What the tests of this folder stand on: a real JupyterHub with its proxy, and the real signer."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import argon2
import pytest
from hub.recorded_bridge import RecordedBridge

from hpchub.core.secret import Secret
from hpchub.signer.factor_key import make_factor_key
from hpchub.signer.keys import init_keys
from hpchub.signer.password_file import set_password
from hpchub.signer.server import running
from hpchub.signer.settings import load_settings
from support.hub import HubSession
from support.ports import free_port

ADMIN_TOKEN = "an-admin-token-of-the-tests"
PASSWORDS = {"alice": "alice's canary 7391", "bob": "bob's word", "carol": "carol's word", "Dot.Cap": "dot"}
ADMIN = "Dot.Cap"
# Somebody of whom the signer asks a second factor; she has none when the tests begin.
NEEDS_FACTOR, NEEDS_FACTOR_PASSWORD = "erin", "erin's canary 8842"

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1kzBTMVi4NGTvCMSzYwdZAVMCnfPHjIYVVSiFwHE7b"

CLUSTER = """
title = "Demo"
known_hosts = "demo.known_hosts"

[scheduler]
kind = "slurm"

[[login_nodes]]
name = "login1"

[placements.login]
[placements.compute]

[partitions.cpu]
title = "Everyday work"
max_time = "01:00:00"
max_cpus = 4
max_memory = "4G"

[partitions.gpu]
max_time = "00:20:00"
max_cpus = 2
max_memory = "2G"
max_gpus = 2
gpu_type = "a100"

[environments.lab]
title = "JupyterLab"
description = "Python 3.11 with numpy."

[environments.bare]
title = "Bare Python"
placements = ["compute"]

[defaults]
placement = "compute"
time = "00:30:00"
memory = "1G"
"""

HUB_CONFIG = """
from hpchub.hub.config import configure

configure(
    c,
    clusters={clusters!r},
    bridge_socket={bridge!r},
    signer_socket={signer!r},
    hub_socket={folder!r} + "/hub.sock",
    proxy_socket={folder!r} + "/proxy.sock",
    proxy_command=[{chp!r}],
)
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.db_url = "sqlite:///{folder}/hub.sqlite"
c.JupyterHub.cookie_secret_file = {folder!r} + "/cookie_secret"
c.ConfigurableHTTPProxy.pid_file = {folder!r} + "/proxy.pid"
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {{{admin!r}}}
c.Authenticator.auth_refresh_age = 1
c.JupyterHub.log_level = "DEBUG"
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 0.3}}
c.JupyterHub.services.append({{"name": "tests", "api_token": {token!r}}})
c.JupyterHub.load_roles.append({{
    "name": "tests", "services": ["tests"],
    "scopes": ["admin:users", "admin:servers", "access:servers"],
}})
"""


PASSWORD_PROOF = f"""
[proof]
kind = "password-file"
file = "signer/passwords"
[second_factor]
required = "some"
users = ["{NEEDS_FACTOR}"]
kinds = ["totp", "webauthn"]
[second_factor.webauthn]
rp_id = "localhost"
origins = ["{{origin}}"]
"""


@dataclass
class RunningHub:
    """The hub, and what stands behind it."""

    url: str
    folder: Path
    bridge: RecordedBridge
    stop_signer: Callable[[], None]
    start_signer: Callable[[], None]
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    sessions: list[HubSession] = field(default_factory=list)

    def session(self) -> HubSession:
        """A browser that nobody has logged in with."""
        session = HubSession(self.url)
        self.sessions.append(session)
        return session

    def login(self, user: str) -> HubSession:
        """A browser with somebody logged in."""
        return self.session().login(user, PASSWORDS[user])

    def api(self) -> HubSession:
        """The API with an administrator's token."""
        session = self.session()
        session.headers["Authorization"] = f"token {ADMIN_TOKEN}"
        return session

    def log(self) -> str:
        """All that the hub and its proxy have printed."""
        return (self.folder / "hub.log").read_text()

    def begin(self) -> None:
        """Start JupyterHub; returns once it answers."""
        with (self.folder / "hub.log").open("ab") as log:
            self.process = subprocess.Popen(self.command, cwd=self.folder, stdout=log, stderr=log)
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.session().get("hub/api/").ok:
                    return
            except OSError:
                pass  # neither it nor its proxy listens yet
            time.sleep(0.1)
        raise AssertionError(f"the hub did not start:\n{self.log()[-5000:]}")

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop JupyterHub."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(60)


def configurable_http_proxy() -> str:
    """The proxy's command: HPCHUB_CHP, the checkout's node_modules or the PATH; else a visible skip."""
    checkout = Path(__file__).resolve().parents[2]
    local = checkout / "node_modules" / ".bin" / "configurable-http-proxy"
    for candidate in (os.environ.get("HPCHUB_CHP", ""), str(local), "configurable-http-proxy"):
        if candidate and (found := shutil.which(candidate)):
            return found
    pytest.skip("configurable-http-proxy is not installed; HPCHUB_CHP may name it")


class Signer:
    """The real signer, in a thread of its own."""

    def __init__(self, folder: Path, proof: str, port: int) -> None:
        # Browsers have security keys over plain HTTP for this name only.
        proof = proof.replace("{origin}", f"http://localhost:{port}")
        settings = folder / "signer.toml"
        settings.write_text(
            'socket = "signer/signer.sock"\nstate_dir = "signer/state"\naudit_log = "signer/audit.log"\n'
            'krl_file = "signer/revoked_keys"\n'
            f'source_addresses = ["127.0.0.1"]\n[terminal]\n{proof}'
        )
        (folder / "signer").mkdir(mode=0o700)
        self.settings = load_settings(settings)
        init_keys(self.settings.state_dir)
        make_factor_key(self.settings.factor_key)
        cheap = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        for user, password in {**PASSWORDS, NEEDS_FACTOR: NEEDS_FACTOR_PASSWORD}.items():
            set_password(folder / "signer" / "passwords", user, Secret(password), cheap)
        self.socket = self.settings.socket
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()

        async def serve() -> None:
            async with running(self.settings):
                ready.set()
                await self._ended.wait()

        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(serve(),), daemon=True)
        self._thread.start()
        assert ready.wait(10)

    def stop(self) -> None:
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join(10)
            self._loop.close()
            self._thread = None


@contextmanager
def short_folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="hpchub-hub-") as made:
        # mkdtemp's names hold capitals on no platform of ours, but they may hold `_`, which is fine.
        yield made


@contextmanager
def a_hub(
    clusters_dir: Path,
    *,
    proof: str = PASSWORD_PROOF,
    more: str = "",
    port: int = 0,
    host: str = "127.0.0.1",
) -> Iterator[RunningHub]:
    """A running hub: `proof` is of the signer's settings, `more` stands at the end of JupyterHub's."""
    chp = configurable_http_proxy()
    port = port or free_port()
    with ExitStack() as stack:
        # A unix socket's path is short and, in a URL of JupyterHub's, all lower case.
        folder = Path(stack.enter_context(short_folder()))
        signer = Signer(folder, proof, port)
        stack.callback(signer.stop)
        signer.start()
        bridge = RecordedBridge(folder, clusters_dir, signer.socket)
        stack.callback(bridge.close)
        bridge.start()
        config = folder / "jupyterhub_config.py"
        text = HUB_CONFIG.format(
            clusters=str(clusters_dir),
            bridge=str(bridge.socket),
            signer=str(signer.socket),
            folder=str(folder),
            chp=chp,
            port=port,
            token=ADMIN_TOKEN,
            admin=ADMIN,
        )
        config.write_text(text + more)
        hub = RunningHub(
            url=f"http://{host}:{port}",
            folder=folder,
            bridge=bridge,
            stop_signer=signer.stop,
            start_signer=signer.start,
            command=[sys.executable, "-m", "jupyterhub", "-f", str(config)],
        )
        stack.callback(hub.end)  # also one that does not come up in time
        hub.begin()
        yield hub
        for session in hub.sessions:
            session.close()
