"""Which host keys a handshake is given."""

from __future__ import annotations

import os
from pathlib import Path

import asyncssh
import pytest

from hpchub.core.cluster import LoginNode
from hpchub.errors import ConfigError
from hpchub.ssh.connect import known_host_keys

NODE = LoginNode(name="login1", address="192.0.2.1")


def write(path: Path, key: asyncssh.SSHKey) -> None:
    path.write_text(f"login1 {key.export_public_key().decode()}")


def known(path: Path) -> list[asyncssh.SSHKey]:
    return list(known_host_keys(path, NODE)("login1", NODE.address, NODE.port)[0])


def test_a_changed_file_counts_at_once(tmp_path: Path) -> None:
    """The next handshake knows the new key and no longer the old one, though neither size differs."""
    path = tmp_path / "known_hosts"
    keys = [asyncssh.generate_private_key("ssh-ed25519").convert_to_public() for _ in range(2)]
    for moment, key in enumerate(keys):
        write(path, key)
        os.utime(path, (moment, moment))  # older kernels tell times 4 ms apart from each other, and no nearer
        assert known(path) == [key]


def test_an_unchanged_file_is_kept_once(tmp_path: Path) -> None:
    """A thousand open connections hold the same keys, not a copy each."""
    path = tmp_path / "known_hosts"
    write(path, asyncssh.generate_private_key("ssh-ed25519"))
    assert known(path)[0] is known(path)[0]


def test_a_file_that_is_gone_is_a_fault_of_the_site(tmp_path: Path) -> None:
    """Also where it was read before."""
    path = tmp_path / "known_hosts"
    write(path, asyncssh.generate_private_key("ssh-ed25519"))
    known(path)
    path.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        known(path)
