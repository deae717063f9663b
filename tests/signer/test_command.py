"""`hpchub signer` as staff and supervisors run it: a process of its own."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hpchub.cli import main
from hpchub.core.secret import Secret
from hpchub.signer.client import SignerClient
from hpchub.signer.keys import init_keys
from hpchub.signer.password_file import PasswordFileProof
from hpchub.signer.proofs import Accepted

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "signer.toml"
    path.write_text(
        'socket = "run/s.sock"\nstate_dir = "state"\naudit_log = "audit.jsonl"\n'
        'source_addresses = ["127.0.0.1"]\n[proof]\nkind = "password-file"\nfile = "passwords"\n'
    )
    return path


def argv(config: Path, *action: str) -> list[str]:
    return [sys.executable, "-m", "hpchub.cli", "signer", "--config", str(config), *action]


def call(config: Path, *action: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv(config, *action), capture_output=True, text=True, cwd=ROOT, check=False, timeout=30
    )


@pytest.mark.slow
def test_from_init_to_sigterm(
    config: Path, user_key: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """init, ca-key, set- and check-password, then serve: it answers, ends on SIGTERM, dumps no core."""
    start = ["signer", "--config", str(config)]
    assert main([*start, "init"]) == 0
    assert capsys.readouterr().out.count("made ") == 2
    assert main([*start, "ca-key"]) == 0
    public = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO("canary-typed\n"))
    assert main([*start, "set-password", "alice"]) == 0
    for typed, code, said in (
        ("canary-typed", 0, "accepted: alice"),
        ("canary-other", 1, "refused: wrong password"),
    ):
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        assert main([*start, "check-password", "alice"]) == code
        assert capsys.readouterr().out == said + "\n"
    client = SignerClient(config.parent / "run" / "s.sock")
    process = subprocess.Popen(argv(config), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30
        while not client.socket_path.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert asyncio.run(client.ca_public_key()) == public.strip()
        login = asyncio.run(client.grant("alice", Secret("canary-typed"), user_key.public, ""))
        assert login.username == "alice"
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert "Max core file size        0                    0 " in limits
        assert b"canary" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    finally:
        process.send_signal(signal.SIGTERM)
        log = process.communicate(timeout=20)[1]
    assert process.returncode == 0
    assert "api.closed" in log
    assert "Traceback" not in log
    assert "canary" not in log
    assert not client.socket_path.exists()


@pytest.mark.slow
def test_serve_says_what_is_missing(config: Path) -> None:
    """Without keys, or with loose ones, serve ends with code 1 and names the path; no traceback."""
    config.parent.chmod(0o700)
    done = call(config)
    assert (done.returncode, str(config.parent / "state") in done.stderr) == (1, True)
    init_keys(config.parent / "state")
    (config.parent / "state" / "ca_key").chmod(0o644)
    done = call(config, "serve")
    assert done.returncode == 1
    assert f"chmod 0600 {config.parent / 'state' / 'ca_key'}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("user", "typed"), [("root", "x"), ("al ice", "x"), ("alice", ""), ("alice", "a\nb\n")]
)
def test_set_password_refuses(
    config: Path,
    user: str,
    typed: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Unsafe names and passwords of no line or two change nothing."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert main(["signer", "--config", str(config), "set-password", user]) == 1
    assert "Nothing was changed" in capsys.readouterr().err
    assert not (config.parent / "passwords").exists()


@pytest.mark.slow
def test_set_password_on_a_terminal(config: Path) -> None:
    """On a terminal the password is asked for twice and not shown."""
    outer, inner = pty.openpty()
    process = subprocess.Popen(
        argv(config, "set-password", "alice"), cwd=ROOT, stdin=inner, stdout=inner, stderr=inner,
        start_new_session=True,
    )  # fmt: skip
    os.close(inner)
    shown = b""
    while True:
        try:
            read = os.read(outer, 1024)
        except OSError:  # EIO: the process has closed its end
            break
        shown += read
        if read.rstrip().endswith(b":"):
            os.write(outer, b"canary-pty\n")
    os.close(outer)
    assert process.wait(20) == 0
    assert b"canary" not in shown
    proof = PasswordFileProof(config.parent / "passwords")
    assert proof.verify("alice", Secret("canary-pty")) == Accepted("alice", "password")
