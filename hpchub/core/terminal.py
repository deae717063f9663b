"""What keys sign where a person's own terminal is concerned: the same on both sides."""

from __future__ import annotations

import base64
import binascii
import re
from hashlib import sha256

from hpchub.errors import InvalidRequest

_LOGIN_ID_LENGTH = 32

LOG_OUT = "log out"
MANAGE_TOKENS = "manage tokens"

_PUBLIC_KEY = re.compile(r"(?:ssh|ecdsa)-[a-z0-9-]{1,40} ([A-Za-z0-9+/]{32,4000}={0,2})", re.ASCII)


def is_terminal(grant_id: str) -> bool:
    """Whether that is the id of a terminal's own grant: the id of its login, and as much again."""
    return len(grant_id) > _LOGIN_ID_LENGTH


def terminal_request(grant: str, public_key: str) -> bytes:
    """What the key of a login signs to have a certificate made for the key of a terminal.

    So the grant alone, which the bridge keeps in its database, is worth nothing here either.
    """
    return _text("hpchub terminal certificate", sha256(grant.encode()).hexdigest(), _bare(public_key))


def fingerprint_of(public_key: str) -> str:
    """The fingerprint that `ssh-keygen -l` shows. The signer alone judges whether the key will do.

    Raises:
        InvalidRequest: It is no public key on one line.
    """
    match = _PUBLIC_KEY.fullmatch(public_key)
    if not match:
        raise InvalidRequest("That is no public key.")
    try:
        blob = base64.b64decode(match[1], validate=True)
    except binascii.Error as error:
        raise InvalidRequest("That is no public key.") from error
    return "SHA256:" + base64.b64encode(sha256(blob).digest()).decode("ascii").rstrip("=")


def key_proof(purpose: str, hub: str, challenge: str) -> bytes:
    """What the key of a terminal signs to show that whoever asks holds it.

    Args:
        purpose: `LOG_OUT` or `MANAGE_TOKENS`.
        hub: The hub's host name as the terminal knows it: a false hub, to which somebody was led, could
            otherwise have the true one's challenges signed.
        challenge: The hub's.
    """
    return _text("hpchub key proof", purpose, hub, challenge)


def _text(*parts: str) -> bytes:
    # The zeros keep parts apart; and SSH's own signed texts begin with a length, never with a letter.
    return "\0".join(parts).encode()


def _bare(public_key: str) -> str:
    return " ".join(public_key.split()[:2])
