"""A real sshd for the real ssh client: Debian's, as root on a loopback port, with one account of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import require
from support.sshd import an_sshd, new_host_key

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
    host_key = new_host_key(folder)
    (folder / "ca.pub").write_text(f"{ca_public_key}\n")
    lines = (
        f"TrustedUserCAKeys {folder}/ca.pub",
        f"RevokedKeys {revoked_keys}",
        "AuthenticationMethods publickey",
        "Subsystem sftp internal-sftp",
    )
    with an_sshd(folder, (str(_NAMESPACE), str(folder)), *lines) as port:
        known = f"[127.0.0.1]:{port} {host_key.export_public_key('openssh').decode().strip()}"
        yield Sshd(port, known, home, folder / "log")
