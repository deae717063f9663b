"""`hpchub login` through the real bridge: the certificate opens a login node to plain ssh."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.demo import Demo
from support.hub import HubSession

pytestmark = pytest.mark.live

_XSRF = re.compile(r'name="_xsrf" value="([^"]*)"')


def test_plain_ssh_from_where_login_nodes_can_be_reached(
    demo: Demo, hub_login: Callable[[str], HubSession], tmp_path: Path
) -> None:
    """As alice, with Debian's client and the hub's known hosts; logged out, nothing is left to try with."""
    ssh_dir, key = tmp_path / ".ssh", tmp_path / "key"
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    argv = [sys.executable, "-m", "hpchub.cli"]
    alice = hub_login("alice")
    login = [*argv, "login", demo.url, "--key-file", str(key)]
    with subprocess.Popen(login, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"user_code=([A-Z-]+)", process.stdout.readline())
        assert found
        page = alice.get("hub/hpchub/device", params={"user_code": found[1]})
        token = _XSRF.search(page.text)
        assert token
        form = {"_xsrf": html.unescape(token[1]), "user_code": found[1], "answer": "allow"}
        assert "Allowed" in alice.post("hub/hpchub/device", data=form).text
        assert "ssh demo" in process.stdout.read()
    ssh = ["ssh", "-F", str(ssh_dir / "config"), "-o", "BatchMode=yes", "demo-login2", "id -un; hostname"]
    assert demo.exec("hub", ssh).stdout.split() == ["alice", "login2"]
    done = subprocess.run([*argv, "logout"], env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, key.exists()) == (0, False), done.stdout + done.stderr
