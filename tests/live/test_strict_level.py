"""The demo's login nodes are at the strict level: what sshd there refuses, whatever a certificate says.

The certificates are signed by the demo's own authority, as by somebody who has stolen its key.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.demo import Demo, run_hpchub

pytestmark = pytest.mark.live

# The supervisor looks twice a second, on a machine that may be busy.
KRL_REACHES_S = 15.0
# By this id test_logins_that_end.py knows that the signer has no record of them.
FORGED = "forged-by-a-test"
NODE, HUB, OTHER = "10.78.0.11", "10.78.0.1", "login2"

Ssh = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def ssh(demo: Demo, tmp_path: Path) -> Iterator[Ssh]:
    """A function that shows login1 a certificate of that principal, from a host, and runs a command."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    known_hosts = (Path(demo.info["clusters_folder"]) / "demo.known_hosts").read_text()

    def run(
        principal: str, *more: str, user: str = "alice", host: str = "hub", serial: int = 1, options: str = ""
    ) -> subprocess.CompletedProcess[str]:
        sign = [
            "ssh-keygen",
            "-q",
            "-s",
            str(demo.directory / "hub/signer/ca_key"),
            "-I",
            FORGED,
            "-n",
            principal,
        ]
        subprocess.run([*sign, "-V", "+5m", "-z", str(serial), f"{key}.pub"], check=True)
        files = (key.read_text(), Path(f"{key}-cert.pub").read_text(), known_hosts)
        script = 'cd "$(mktemp -d)"; trap \'rm -r "$PWD"\' EXIT; umask 077; '
        for name, content in zip(("key", "key-cert.pub", "known"), files, strict=True):
            script += f"printf %s {shlex.quote(content)} >{name}; "
        given = "-F none -i key -o BatchMode=yes -o IdentitiesOnly=yes -o UserKnownHostsFile=known"
        words = " ".join(map(shlex.quote, more or ("id", "-un")))
        script += (
            f"ssh-agent ssh {given} -o HostKeyAlias=login1 -l {user} {options} {NODE} {words} </dev/null"
        )
        return demo.exec(host, ["sh", "-s"], stdin=script, timeout_s=30)

    yield run


def test_who_is_let_in(ssh: Ssh) -> None:
    """The listed form, from the hub: not a plain name, not another's, not root, not from another host."""
    assert ssh("hpchub:alice").stdout == "alice\n"
    for refused in (
        ssh("alice"),
        ssh("hpchub:bob"),
        ssh("root", user="root"),
        ssh("hpchub:root", user="root"),
        ssh("hpchub:alice", host=OTHER),
    ):
        assert refused.returncode == 255 and "Permission denied" in refused.stderr


def test_what_a_connection_may(ssh: Ssh) -> None:
    """No terminal, no agent, no port opened; for the service account no tunnel, whatever is permitted."""
    assert "PTY allocation request failed" in ssh("hpchub:alice", "true", options="-tt").stderr
    asked = ssh("hpchub:alice", "echo", "agent=$SSH_AUTH_SOCK", options="-A")
    assert asked.stdout == "agent=\n"
    listening = ssh("hpchub:alice", options="-o ExitOnForwardFailure=yes -R 127.0.0.1:0:127.0.0.1:1")
    assert "remote port forwarding failed" in listening.stderr
    watch = ssh("hpchub:slurmwatch", user="slurmwatch", options="-W ctl:6817")
    assert "administratively prohibited" in watch.stderr


def test_a_revoked_certificate_is_refused_by_the_node(demo: Demo, ssh: Ssh, tmp_path: Path) -> None:
    """From `hpchub revoke` to the list on the node: a stolen key and certificate are worth nothing."""
    config = str(demo.directory / "hub" / "bridge.toml")
    public_key = (tmp_path / "key.pub").read_text().strip()
    assert ssh("hpchub:alice").returncode == 0
    done = run_hpchub("revoke", "--config", config, public_key)
    began = time.monotonic()
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        while ssh("hpchub:alice").returncode == 0:
            assert time.monotonic() - began < KRL_REACHES_S
    finally:
        run_hpchub("revoke", "--config", config, "--undo", public_key)


def test_the_doctor_says_strict(demo: Demo) -> None:
    """By trying from the hub, and by what root sees on the node."""
    config = str(demo.directory / "hub" / "bridge.toml")
    script = run_hpchub("doctor", "--sshd-script").stdout
    asked = demo.exec("login1", ["sh", "-s", "alice", HUB, "-h", "/etc/ssh/hpchub/login1"], stdin=script)
    judged = run_hpchub("doctor", "--sshd", "-", "--config", config, "--strict", "--json", stdin=asked.stdout)
    assert judged.returncode == 0, judged.stdout + judged.stderr
    checks = {one["what"]: one for one in json.loads(judged.stdout)["checks"]}
    assert checks["level"]["found"] == "strict"
    assert checks["trustedusercakeys"]["found"].endswith(": the hub's")
