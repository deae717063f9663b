"""Slurm's own tokens, through the whole path: as the person over SSH, without Slurm's key."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpchub.bridge.client import BridgeClient
from hpchub.errors import NotAllowed, SiteError
from support.demo import Demo
from support.hub import HubSession

pytestmark = pytest.mark.live


def owner(token: str) -> str:
    claims = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["sun"])


def test_a_token_of_ones_own(demo: Demo, hub_login: Callable[[str], HubSession]) -> None:
    """With auth/jwt: alice's, as long as asked, good at Slurm and in no log. Without it: said in words."""
    hub_login("alice")
    bridge = BridgeClient(demo.directory / "sockets" / "bridge.sock")
    with pytest.raises(NotAllowed):
        asyncio.run(bridge.slurm_token("nobody-here", "demo", 60))
    if "auth/jwt" not in demo.exec("ctl", ["cat", "/etc/slurm/slurm.conf"]).stdout:
        with pytest.raises(SiteError, match="has no tokens"):
            asyncio.run(bridge.slurm_token("alice", "demo", 60))
        return
    token, expires_at = asyncio.run(bridge.slurm_token("alice", "demo", 60))
    assert 0 < expires_at - time.time() <= 65
    # Slurm takes it for alice, whoever shows it.
    shown = "read -r SLURM_JWT; export SLURM_JWT; exec scontrol token lifespan=60"
    answer = demo.exec("login1", ["sh", "-c", shown], user="bob", stdin=token.reveal() + "\n").stdout
    assert owner(answer.strip().removeprefix("SLURM_JWT=")) == "alice"
    logs = [path for path in Path(demo.directory / "logs").iterdir() if path.is_file()]
    assert len(logs) > 5
    assert [path.name for path in logs if token.reveal().encode() in path.read_bytes()] == []
