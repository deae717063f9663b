"""The nonce that binds an OpenID provider's answer to the key that the signer is to certify.

Whoever steals an id_token cannot log in with it: they lack the private key of the public key in the nonce.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets

_CONTEXT = b"hpchub login nonce 1\0"
_SALT = re.compile(r"[0-9a-f]{64}", re.ASCII)


def new_salt() -> str:
    """256 random bits, so that the nonce cannot be told from the key."""
    return secrets.token_hex(32)


def login_nonce(public_key: str, salt: str) -> str:
    """The nonce of one login, without padding.

    Args:
        public_key: One line in OpenSSH's form; its comment does not count.
        salt: As `new_salt` makes it.

    Raises:
        ValueError: The key or the salt is no such thing.
    """
    if not _SALT.fullmatch(salt):
        raise ValueError("the salt of a login is 64 hexadecimal digits")
    fields = public_key.split()
    if len(fields) < 2:
        raise ValueError("no public key")
    blob = base64.b64decode(fields[1], validate=True)
    digest = hashlib.sha256(_CONTEXT + bytes.fromhex(salt) + blob).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
