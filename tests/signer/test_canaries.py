"""What must never be seen, planted and looked for: in logs, reprs, core files, another process, a backup."""

from __future__ import annotations

import asyncio
import base64
import os
import pwd
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncssh
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.errors import EnrolmentRequired, HpchubError
from hpchub.signer.client import SignerClient
from hpchub.signer.factor_key import load_factor_key, make_factor_key
from hpchub.signer.keys import init_keys, load_keys
from hpchub.signer.password_file import set_password
from hpchub.signer.settings import load_settings
from support import require

from .conftest import CHEAP
from .factor import code_of

ROOT = Path(__file__).parents[2]
PASSWORD = "canary-alice-5521"
# The only files that hold one of the canaries: docs/howto/operations.md tells to protect them.
PROTECTED = {"ca_key", "grant_key", "second_factor_key"}


def forms(name: str, secret: bytes) -> dict[str, bytes]:
    """A secret as it is, and as programs show bytes."""
    encoded = {
        "in base64": base64.b64encode(secret).rstrip(b"="),
        "in hexadecimal": secret.hex().encode(),
        "in Python": repr(secret)[2:-1].encode(),
    }
    return {name: secret, **{f"{name} {how}": text for how, text in encoded.items()}}


def key_forms(name: str, key: asyncssh.SSHKey | Ed25519PrivateKey) -> dict[str, bytes]:
    """A private key: its 32 bytes, which are also within OpenSSH's form, and the lines of its files."""
    found = {}
    if isinstance(key, asyncssh.SSHKey):
        file = key.export_private_key("openssh")
        found |= {f"{name}, line": line for line in file.split(b"\n")[2:-2]}
        key = key.pyca_key
    raw = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return found | forms(name, raw) | {f"{name}, PEM": pem.split(b"\n")[1]}


def found_in(text: bytes, canaries: dict[str, bytes]) -> list[str]:
    return [name for name, canary in canaries.items() if canary in text]


def said_of(pid: int, name: str, owner: int) -> str:
    """What an account reads of a process, or is told instead."""
    done = subprocess.run(
        ["cat", f"/proc/{pid}/{name}"], capture_output=True, text=True, check=False, user=owner
    )
    return done.stdout + done.stderr


@contextmanager
def a_signer(folder: Path, owner: int) -> Iterator[tuple[subprocess.Popen[bytes], SignerClient, Path]]:
    """The signer as a site runs it: a process and an account of its own. And where its log goes."""
    log = folder.parent / "signer.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "hpchub.cli", "signer", "--config", str(folder / "signer.toml")],
            cwd=folder, stdout=output, stderr=output, user=owner, group=owner,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder)},
        )  # fmt: skip
    client = SignerClient(folder / "run" / "s.sock")
    try:
        deadline = time.monotonic() + 30
        while not client.socket_path.exists():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield process, client, log
    finally:
        process.kill()
        process.wait()


async def use_it(signer: SignerClient, key: Any) -> dict[str, bytes]:
    """Log in, be refused, be crude: all that might make it say something. What it was given besides."""
    with pytest.raises(EnrolmentRequired) as caught:
        await signer.grant("alice", Secret(PASSWORD), key.public, "192.0.2.1")
    ticket = Secret(caught.value.ticket)
    offer = await signer.offer(ticket)
    seed = offer.seed.reveal()
    codes = await signer.enrol(ticket, Secret(code_of(seed, time.time())), "192.0.2.1")
    login = await signer.grant("alice", Secret(PASSWORD), key.public, "192.0.2.1", codes[0])
    minted = await signer.certificate(login.grant, key.public, Profile.CONTROL)
    for wrong in (
        signer.grant("alice", Secret(PASSWORD + "x"), key.public, "192.0.2.1", codes[1]),
        signer.grant(PASSWORD[::-1], Secret(PASSWORD), "no key " + PASSWORD, "192.0.2.1"),
        signer.certificate(Secret(login.grant.reveal()[:-4]), key.public, Profile.CONTROL),
        signer.certificate(login.grant, key.private.export_private_key().decode(), Profile.TUNNEL),
    ):
        with pytest.raises(HpchubError):
            await wrong
    shown = repr((login, minted, offer, codes, caught.value)).encode()
    plain = seed.replace(" ", "")
    canaries = {
        **forms("seed", base64.b32decode(plain)),
        "seed as typed": seed.encode(),
        "seed in base32": plain.encode(),
        "ticket": ticket.reveal().encode(),
        "grant's signature": login.grant.reveal().rpartition(".")[2].encode(),
        **{f"recovery code {number}": one.reveal().encode() for number, one in enumerate(codes)},
    }
    assert found_in(shown, canaries) == []
    return canaries


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that an account other than root's can get to; every pytest closes its own to others."""
    with TemporaryDirectory(prefix="hpchub-t-", dir="/tmp") as made:
        Path(made).chmod(0o755)
        inner = Path(made, "signer")
        inner.mkdir(mode=0o700)
        yield inner


@pytest.mark.slow
def test_no_canary_sings(folder: Path, user_key: Any) -> None:
    """The authority's key, the grants', the person's, passwords, seeds, codes and tickets: in no log, and in
    no file but the three to be protected; no process of the same account sees them; a crash dumps nothing.
    """
    require.root()
    owner = pwd.getpwnam("nobody").pw_uid
    (folder / "signer.toml").write_text(
        'socket = "run/s.sock"\nstate_dir = "state"\naudit_log = "audit.jsonl"\nkrl_file = "krl"\n'
        'source_addresses = ["127.0.0.1"]\n[proof]\nkind = "password-file"\nfile = "passwords"\n'
        '[second_factor]\nrequired = "all"\n'
    )
    settings = load_settings(folder / "signer.toml")
    init_keys(settings.state_dir)
    make_factor_key(settings.factor_key)
    set_password(folder / "passwords", "alice", Secret(PASSWORD), CHEAP)
    keys = load_keys(settings.state_dir)
    grant_key = load_pem_private_key((settings.state_dir / "grant_key").read_bytes(), None)
    factor_key = base64.b64decode(settings.factor_key.read_bytes())
    canaries = {
        **key_forms("authority's key", keys.ca),
        **key_forms("grants' key", grant_key),  # type: ignore[arg-type]
        **key_forms("person's key", user_key.private),
        **forms("second factors' key", factor_key),
        **forms("password", PASSWORD.encode()),
    }
    shown = repr((keys, keys.ca, keys.grant, settings, load_factor_key(settings.factor_key))).encode()
    assert found_in(shown, canaries) == []
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner, owner)

    with a_signer(folder, owner) as (process, client, log):
        canaries |= asyncio.run(use_it(client, user_key))
        process.send_signal(signal.SIGSTOP)  # alive, and holding all of it
        for name in ("mem", "environ", "maps"):
            assert "Permission denied" in said_of(process.pid, name, owner), name
        # Of another process of the account it can be had: it is not this machine that forbids it.
        with subprocess.Popen(["sleep", "60"], user=owner, env={"PLANTED": "here"}) as other:
            try:
                assert said_of(other.pid, "environ", owner) == "PLANTED=here\0"
            finally:
                other.kill()
        cmdline = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        environ = Path(f"/proc/{process.pid}/environ").read_bytes()
        assert found_in(cmdline + environ, canaries) == []
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGSEGV)
        _, status = os.waitpid(process.pid, 0)
        process.returncode = -os.WTERMSIG(status)
        assert process.returncode == -signal.SIGSEGV and not os.WCOREDUMP(status)

    files = {path: path.read_bytes() for path in (log, *folder.rglob("*")) if path.is_file()}
    assert {path.name for path in files} >= {"signer.log", "audit.jsonl", "state.sqlite", "ledger.sqlite"}
    holding = {path.name for path, content in files.items() if found_in(content, canaries)}
    assert holding == PROTECTED
    assert [path for path in files if re.match(r"core\b", path.name)] == []


def test_a_backup_s_secrets_are_named() -> None:
    """The page that tells what to back up names each file that must be protected, and no other as such."""
    page = (ROOT / "docs" / "howto" / "operations.md").read_text()
    section = page.partition("## Keep and rotate")[2]
    rows = re.findall(r"^\| `([^`|]+)`[^|]*\| \*\*protect\*\*", section, re.M)
    assert {Path(row).name for row in rows} >= PROTECTED
