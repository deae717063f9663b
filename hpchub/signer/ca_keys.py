"""The authority's own key files, and how one follows another while clusters trust both.

`ca_key` signs. `ca_key.next` waits until every login node trusts it; `ca_key.old` has signed before, and
stays until its last certificate has expired. All are in OpenSSH's form, so that `ssh-keygen` can read them.
"""

from __future__ import annotations

import os
from pathlib import Path

import asyncssh

from hpchub.errors import ConfigError, InvalidRequest
from hpchub.private_files import (
    check_private_folder,
    read_private_file,
    sync_folder,
    write_private_file,
)
from hpchub.signer.certificates import line_of

CA_KEY = "ca_key"
NEXT_CA_KEY = "ca_key.next"
OLD_CA_KEY = "ca_key.old"

_CA_ALGORITHMS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")


def new_ca_key() -> bytes:
    """A new private key, as its file has it."""
    return asyncssh.generate_private_key("ssh-ed25519", comment="hpchub").export_private_key("openssh")


def load_ca_key(state_dir: Path, name: str = CA_KEY) -> asyncssh.SSHKey:
    """The authority's private key. ConfigError where it is missing, loose, or no key."""
    check_private_folder(state_dir)
    path = state_dir / name
    try:
        key = asyncssh.import_private_key(read_private_file(path))
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise ConfigError(f"{path} holds no private key that can be read.") from error
    if key.get_algorithm() not in _CA_ALGORITHMS:
        raise ConfigError(f"{path} must be an ed25519 or ecdsa key.")
    return key


def other_keys(state_dir: Path) -> list[str]:
    """The lines of the next key and the old one, as far as there are any."""
    return [
        line_of(load_ca_key(state_dir, name))
        for name in (NEXT_CA_KEY, OLD_CA_KEY)
        if os.path.lexists(state_dir / name)
    ]


def make_next_ca_key(state_dir: Path) -> None:
    """Make the key that is to sign once the clusters trust it.

    Raises:
        InvalidRequest: There is one already, or the one before the present is not retired yet.
    """
    load_ca_key(state_dir)
    for name in (NEXT_CA_KEY, OLD_CA_KEY):
        if os.path.lexists(state_dir / name):
            raise InvalidRequest(
                f"{state_dir / name} is there already.", "Bring that change to its end first."
            )
    write_private_file(state_dir / NEXT_CA_KEY, new_ca_key(), replace=False)


def switch_ca_key(state_dir: Path) -> None:
    """Have the next key sign from the signer's next start on. InvalidRequest where there is none."""
    _follow(state_dir, NEXT_CA_KEY, OLD_CA_KEY)


def switch_ca_key_back(state_dir: Path) -> None:
    """Have the old key sign again, and the present one wait. InvalidRequest where there is none."""
    _follow(state_dir, OLD_CA_KEY, NEXT_CA_KEY)


def retire_ca_key(state_dir: Path) -> None:
    """Remove the old key for good: its certificates have expired. InvalidRequest where there is none."""
    path = state_dir / OLD_CA_KEY
    check_private_folder(state_dir)
    if not os.path.lexists(path):
        raise InvalidRequest(f"There is no {path}: nothing is to be retired.")
    path.unlink()
    sync_folder(state_dir)


def _follow(state_dir: Path, follower: str, keep_as: str) -> None:
    """Put one file into the place of the present key, which gets another name. Can be repeated after a crash:

    there is a present key at every moment, and none is lost.
    """
    load_ca_key(state_dir)
    if not os.path.lexists(state_dir / follower):
        raise InvalidRequest(f"There is no {state_dir / follower} to sign with.")
    load_ca_key(state_dir, follower)
    present, kept = state_dir / CA_KEY, state_dir / keep_as
    try:
        if not kept.exists():
            kept.hardlink_to(present)
        elif not kept.samefile(present):
            raise InvalidRequest(f"{kept} is there already.", "Bring that change to its end first.")
        (state_dir / follower).replace(present)
        sync_folder(state_dir)
    except OSError as error:
        raise ConfigError(f"The keys in {state_dir} cannot be changed: {error.strerror}.") from error
