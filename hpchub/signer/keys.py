"""The signer's two keys, each a file in its state folder: the authority's, and the one that signs grants."""

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
from hpchub.signer.ca_keys import CA_KEY, load_ca_key, new_ca_key
from hpchub.signer.certificates import line_of
from hpchub.signer.grants import GrantKey

GRANT_KEY = "grant_key"


@dataclass(frozen=True, slots=True)
class Keys:
    """What the signer signs with, where it has the authority's key itself."""

    ca: asyncssh.SSHKey
    grant: GrantKey


def init_keys(state_dir: Path, *, with_ca: bool = True) -> list[Path]:
    """Make the state folder and the keys that are not there yet; return the files made.

    Raises:
        ConfigError: Something there is not private to us, or cannot be written.
    """
    make_private_folder(state_dir)
    grant_key = Ed25519PrivateKey.generate()
    contents = {state_dir / CA_KEY: new_ca_key()} if with_ca else {}
    contents[state_dir / GRANT_KEY] = grant_key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
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
    return Keys(load_ca_key(state_dir), load_grant_key(state_dir))


def load_grant_key(state_dir: Path) -> GrantKey:
    """The key that signs grants. ConfigError where it is missing, loose, or no key."""
    check_private_folder(state_dir)
    path = state_dir / GRANT_KEY
    content = read_private_file(path)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} holds no private key that can be read.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} must be an ed25519 key.")
    return GrantKey(key)


def render_ca_public_key(key: asyncssh.SSHKey) -> str:
    """One line for `TrustedUserCAKeys`."""
    return f"{line_of(key)} hpchub"
