"""The signer's two keys, each a file in its state folder: the authority's, and the one that signs grants.

The CA key is in OpenSSH's own form, so that `ssh-keygen` can read it where a site needs that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import asyncssh
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from hpchub.errors import ConfigError
from hpchub.private_files import (
    check_private_folder,
    make_private_folder,
    read_private_file,
    write_private_file,
)
from hpchub.signer.grants import GrantKey

CA_KEY = "ca_key"
GRANT_KEY = "grant_key"
_CA_ALGORITHMS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")


@dataclass(frozen=True, slots=True)
class Keys:
    """What the signer signs with."""

    ca: asyncssh.SSHKey
    grant: GrantKey


def init_keys(state_dir: Path) -> list[Path]:
    """Make the state folder and the keys that are not there yet; return the files made.

    Raises:
        ConfigError: Something there is not private to us, or cannot be written.
    """
    make_private_folder(state_dir)
    ca_key = asyncssh.generate_private_key("ssh-ed25519", comment="hpchub")
    grant_key = Ed25519PrivateKey.generate()
    contents = {
        state_dir / CA_KEY: ca_key.export_private_key("openssh"),
        state_dir / GRANT_KEY: grant_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    }
    made = []
    for path, content in contents.items():
        if path.exists() or path.is_symlink():
            read_private_file(path)
            continue
        write_private_file(path, content, replace=False)
        made.append(path)
    return made


def load_keys(state_dir: Path) -> Keys:
    """Both keys. ConfigError where a file is missing, loose, or no key."""
    check_private_folder(state_dir)
    return Keys(load_ca_key(state_dir), _load_grant_key(state_dir / GRANT_KEY))


def load_ca_key(state_dir: Path) -> asyncssh.SSHKey:
    """The authority's private key. ConfigError where it is missing, loose, or no key."""
    check_private_folder(state_dir)
    path = state_dir / CA_KEY
    try:
        key = asyncssh.import_private_key(read_private_file(path))
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise ConfigError(f"{path} holds no private key that can be read.") from error
    if key.get_algorithm() not in _CA_ALGORITHMS:
        raise ConfigError(f"{path} must be an ed25519 or ecdsa key.")
    return key


def render_ca_public_key(key: asyncssh.SSHKey) -> str:
    """One line for `TrustedUserCAKeys`."""
    kind, blob = key.export_public_key("openssh").decode("ascii").split()[:2]
    return f"{kind} {blob} hpchub"


def _load_grant_key(path: Path) -> GrantKey:
    content = read_private_file(path)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} holds no private key that can be read.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} must be an ed25519 key.")
    return GrantKey(key)
