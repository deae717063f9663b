"""The keys of a job's own sshd (core/job_sshd.py), for attach `srun`. Pure.

The bridge makes both pairs for each server.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import asyncssh

from hpchub.core import job_sshd


@dataclass(frozen=True, slots=True)
class InnerKeys:
    """A server's two key pairs: what its sshd is known by, and what the bridge is known by."""

    host: asyncssh.SSHKey = field(repr=False)
    client: asyncssh.SSHKey = field(repr=False)

    @property
    def host_public(self) -> asyncssh.SSHKey:
        """What the bridge expects the job's sshd to show."""
        return self.host.convert_to_public()


def new_keys() -> InnerKeys:
    """Two fresh ed25519 pairs."""
    return InnerKeys(
        asyncssh.generate_private_key("ssh-ed25519", comment="hpchub"),
        asyncssh.generate_private_key("ssh-ed25519", comment="hpchub"),
    )


def inner_files(keys: InnerKeys, folder: str) -> dict[str, bytes]:
    """The files to put into a server's folder, mode 0600, by name. `folder` is its absolute path."""
    return {
        "sshd_config": job_sshd.sshd_config(folder).encode(),
        "host_key": keys.host.export_private_key(),
        "authorized_keys": authorized_keys(keys.client),
    }


def authorized_keys(client: asyncssh.SSHKey) -> bytes:
    """The one line of the job's `authorized_keys`. Rewrite it when the bridge has a new key."""
    return job_sshd.authorized_keys(client.export_public_key())
