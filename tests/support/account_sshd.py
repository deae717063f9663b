"""A real sshd for the real ssh client: Debian's, as root on a loopback port, with one account of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from support import require

_NAMESPACE = Path(__file__).parents[1] / "signer" / "namespace.sh"
ACCOUNT_ID = 20001


@dataclass(frozen=True)
class Sshd:
    """`known_hosts` is its line for that file, `home` its account's."""

    port: int
    known_hosts: str
    home: Path
    log: Path


@contextmanager
def an_account_sshd(folder: Path, account: str, ca_public_key: str, revoked_keys: Path) -> Iterator[Sshd]:
    """It trusts the authority, obeys the revocation list, and takes nothing but public keys.

    The account must get through to `folder`: none of pytest's, which closes its own at each start.
    """
    require.root()
    require.programs("unshare", "sshd")
    home = folder / "home"
    home.mkdir(mode=0o755)
    folder.chmod(0o755)
    os.chown(home, ACCOUNT_ID, ACCOUNT_ID)
    (folder / "passwd").write_text(
        f"root:x:0:0::/root:/bin/sh\nsshd:x:20100:65534::/run/sshd:/usr/sbin/nologin\n"
        f"{account}:x:{ACCOUNT_ID}:{ACCOUNT_ID}::{home}:/bin/sh\n"
    )
    (folder / "shadow").write_text("".join(f"{name}:*:19000::::::\n" for name in ("root", "sshd", account)))
    (folder / "group").write_text(f"root:x:0:\n{account}:x:{ACCOUNT_ID}:\nnogroup:x:65534:\n")
    (folder / "pam.d").mkdir()
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    (folder / "host_key").write_bytes(host_key.export_private_key())
    (folder / "host_key").chmod(0o600)
    (folder / "ca.pub").write_text(f"{ca_public_key}\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\n"
        f"TrustedUserCAKeys {folder}/ca.pub\nRevokedKeys {revoked_keys}\n"
        "PidFile none\nUsePAM no\nAuthenticationMethods publickey\nSubsystem sftp internal-sftp\n"
    )
    log = folder / "log"
    argv = [str(_NAMESPACE), str(folder), "/usr/sbin/sshd", "-D"]
    process = subprocess.Popen(
        [*argv, "-f", str(folder / "sshd_config"), "-E", str(log)], stdin=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        while not log.exists() or "Server listening" not in log.read_text():
            assert process.poll() is None, log.read_text() if log.exists() else "sshd did not start"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        known = f"[127.0.0.1]:{port} {host_key.export_public_key('openssh').decode().strip()}"
        yield Sshd(port, known, home, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
