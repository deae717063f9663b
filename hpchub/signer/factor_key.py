"""The key that seals what second factors keep on disk. It is in another file than what it seals."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hpchub.errors import ConfigError, SiteError
from hpchub.private_files import read_private_file, write_private_file

FACTOR_KEY = "second_factor_key"
_KEY_BYTES = 32
_NONCE_BYTES = 12  # NIST SP 800-38D, section 5.2.1.1


class FactorKey:
    """Seals seeds and hashes recovery codes, each for one account: what is moved to another does not open."""

    def __init__(self, key: bytes) -> None:
        self._seal = AESGCM(_derived(key, b"seal"))
        self._digest_key = _derived(key, b"digest")
        self._tag_key = _derived(key, b"tag")

    def seal(self, account: str, content: bytes) -> bytes:
        """The content, encrypted for that account."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._seal.encrypt(nonce, content, account.encode())

    def open(self, account: str, sealed: bytes) -> bytes:
        """What was sealed for that account. SiteError where it was not, or with another key."""
        try:
            return self._seal.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], account.encode())
        except (InvalidTag, ValueError) as error:
            raise SiteError("Second factors cannot be checked now.", "Tell the site's staff.") from error

    def digest(self, account: str, code: str) -> bytes:
        """Under what a recovery code is kept. Without the key it cannot be tried out."""
        return hmac.digest(self._digest_key, f"{account}\0{code}".encode(), "sha256")

    def tag(self, content: bytes) -> bytes:
        """32 bytes that only the signer can make of this content; always the same."""
        return hmac.digest(self._tag_key, content, "sha256")


def make_factor_key(path: Path) -> None:
    """Write a new key. ConfigError where there is one already, or it cannot be written."""
    write_private_file(path, base64.b64encode(secrets.token_bytes(_KEY_BYTES)) + b"\n", replace=False)


def load_factor_key(path: Path) -> FactorKey:
    """The key in a file of our own with mode 0600. ConfigError where it is missing, loose or no key."""
    if not path.exists():
        raise ConfigError(f"The key of the second factors, {path}, is not there.", "Run: hpchub signer init")
    try:
        key = base64.b64decode(read_private_file(path).strip(), validate=True)
    except binascii.Error as error:
        raise ConfigError(f"{path} holds no key that can be read.") from error
    if len(key) != _KEY_BYTES:
        raise ConfigError(f"{path} must hold {_KEY_BYTES} bytes in base64.")
    return FactorKey(key)


def _derived(key: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), _KEY_BYTES, salt=None, info=b"hpchub second factor " + purpose).derive(key)
