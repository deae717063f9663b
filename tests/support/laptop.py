"""A laptop: what stands in ~/.ssh, and a real sshd to connect to."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import asyncssh
from ssh.conftest import USER, RealNode

from slurm_magics.remote import Remote
from slurm_magics.settings import read_target

HOUR = 3600


@dataclass
class Laptop:
    """A folder with what stands in ~/.ssh, and a configuration that names nothing outside of it."""

    folder: Path
    node: RealNode
    ca: asyncssh.SSHKey
    host_key: asyncssh.SSHKey

    def config(self, extra: str = "") -> str:
        path = self.folder / "config"
        path.write_text(
            f"{extra}\nHost cluster\n  HostName 127.0.0.1\n  Port {self.node.port}\n  User {USER}\n"
            f"  IdentityFile {self.folder}/key\n"
            f"Host *\n  UserKnownHostsFile {self.folder}/known_hosts\n  GlobalKnownHostsFile none\n"
        )
        return str(path)

    def know(self, key: asyncssh.SSHKey | None = None, before: str = "") -> None:
        public = (key or self.host_key).export_public_key().decode().strip()
        (self.folder / "known_hosts").write_text(f"{before}[127.0.0.1]:{self.node.port} {public}\n")

    def key(self, kind: str = "ssh-ed25519", valid_s: int = HOUR) -> None:
        """A key, and a certificate for it."""
        key = asyncssh.generate_private_key(kind)
        key.write_private_key(self.folder / "key")
        (self.folder / "key").chmod(0o600)
        ends = int(time.time()) + valid_s
        certificate = self.ca.generate_user_certificate(
            key, "a test", principals=[USER], valid_after=ends - 2 * HOUR, valid_before=ends
        )
        certificate.write_certificate(self.folder / "key-cert.pub")

    def connect(self, extra: str = "", host: str = "cluster") -> Remote:
        return Remote(read_target(["-F", self.config(extra), host]))


def logins(node: RealNode) -> int:
    """How often somebody has logged in."""
    return node.log.read_text().count("Accepted publickey")
