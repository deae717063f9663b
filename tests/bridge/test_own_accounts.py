"""Signer, bridge and hub as three accounts: the real processes, and who of them can do what."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import argon2
import pytest

from hpchub.core.secret import Secret
from hpchub.signer.keys import init_keys
from hpchub.signer.password_file import set_password
from support import require

pytestmark = pytest.mark.slow

GROUP, SIGNER, BRIDGE, HUB = 20630, 20631, 20632, 20633
CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)

CLUSTER = """
known_hosts = "known_hosts"
[[login_nodes]]
name = "login1"
[placements.login]
[environments.lab]
prefix = "/opt/lab"
"""

_AS_HUB = """
import asyncio, json, sys
from pathlib import Path
from hpchub.bridge.client import BridgeClient
from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.errors import HpchubError
from hpchub.signer.client import SignerClient

async def main(folder):
    signer, bridge = SignerClient(folder / "s/signer.sock"), BridgeClient(folder / "b/bridge.sock")
    said = {}
    key_id, public_key = await bridge.new_key()
    granted = await signer.grant("alice", Secret("canary-alice"), public_key, "192.0.2.7")
    await bridge.open_session("alice", key_id, granted.grant)
    said["session"] = await bridge.session("alice") > 0
    calls = {
        "mint": signer.certificate(granted.grant, public_key, Profile.CONTROL),
        "revoke": signer.revoke("alice", reason="", by=""),
    }
    for name, call in calls.items():
        try:
            await call
        except HpchubError as error:
            said[name] = error.message
    for name in ("s/state/ca_key", "s/state", "b/bridge.db", "agent/agent.sock"):
        try:
            path = folder / name
            said[name] = path.read_bytes() if path.is_file() else list(path.iterdir())
        except OSError as error:
            said[name] = type(error).__name__
    print(json.dumps(said))

asyncio.run(main(Path(sys.argv[1])))
"""


def as_account(uid: int, *argv: str) -> tuple[str, ...]:
    return ("setpriv", f"--reuid={uid}", f"--regid={GROUP}", "--clear-groups", "--", *argv)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Each account's own folder in one that all may enter."""
    require.root()
    require.programs("setpriv", "ssh-agent")
    with TemporaryDirectory(prefix="hpchub-3-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for part, uid, mode in (
            ("s", SIGNER, 0o750),
            ("b", BRIDGE, 0o750),
            ("agent", BRIDGE, 0o700),
        ):
            (folder / part).mkdir(mode=mode)
            os.chown(folder / part, uid, GROUP)
            (folder / part).chmod(mode)
        (folder / "clusters.d").mkdir()
        (folder / "clusters.d" / "alpha.toml").write_text(CLUSTER)
        (folder / "clusters.d" / "known_hosts").touch()
        set_password(folder / "s" / "passwords", "alice", Secret("canary-alice"), CHEAP)
        init_keys(folder / "s" / "state")
        for path in (folder / "s").rglob("*"):
            os.chown(path, SIGNER, GROUP)
        (folder / "signer.toml").write_text(
            'socket = "s/signer.sock"\nstate_dir = "s/state"\naudit_log = "s/audit.jsonl"\n'
            'source_addresses = ["192.0.2.1"]\n[proof]\nkind = "password-file"\nfile = "s/passwords"\n'
            f'[callers]\ngroup = "{GROUP}"\nhub = ["{HUB}"]\nbridge = ["{BRIDGE}"]\n'
        )
        (folder / "bridge.toml").write_text(
            'runtime_dir = "b"\nsigner_socket = "s/signer.sock"\nagent_socket = "agent/agent.sock"\n'
            f'hub_socket = "hub.sock"\nclusters = "clusters.d"\ndatabase = "sqlite:///{folder}/b/bridge.db"\n'
            f'[callers]\ngroup = "{GROUP}"\nhub = ["{HUB}"]\n'
        )
        yield folder


def test_three_accounts(folder: Path) -> None:
    """People log in; the hub's account mints nothing, revokes nobody, and reads neither key nor database."""
    hpchub = str(Path(sys.executable).with_name("hpchub"))
    with ExitStack() as stack:

        def start(until: str, *argv: str) -> None:
            process = stack.enter_context(subprocess.Popen(argv, stdout=log, stderr=log))
            stack.callback(process.terminate)
            deadline = time.monotonic() + 60
            while not (folder / until).exists():
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)

        log = stack.enter_context((folder / "log").open("wb"))
        config = str(folder / "signer.toml")
        start("s/signer.sock", *as_account(SIGNER, hpchub, "signer", "--config", config))
        agent = str(folder / "agent" / "agent.sock")
        start("agent/agent.sock", *as_account(BRIDGE, "ssh-agent", "-D", "-a", agent))
        config = str(folder / "bridge.toml")
        start("b/s", *as_account(BRIDGE, hpchub, "bridge", "--config", config))
        said: dict[str, Any] = json.loads(
            subprocess.run(
                as_account(HUB, sys.executable, "-c", _AS_HUB, str(folder)),
                stdout=subprocess.PIPE, check=True, timeout=60,
            ).stdout
        )  # fmt: skip
    refused = "That is not for this caller."
    assert said == {
        "session": True,
        "mint": refused,
        "revoke": refused,
        "s/state/ca_key": "PermissionError",
        "s/state": "PermissionError",
        "b/bridge.db": "PermissionError",
        "agent/agent.sock": "PermissionError",
    }
