"""Which keys a host may show, by the lines of known_hosts files: sshd(8), SSH_KNOWN_HOSTS. No I/O."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

# Of hosts that hash their names: |1|salt|hash of the name.
_HASHED = "|1|"


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """The keys of one host, as they go over the wire, and those that nobody may use any more.

    `has_authority`: an authority for host certificates is known, too.
    """

    keys: frozenset[bytes]
    revoked: frozenset[bytes]
    has_authority: bool = False

    @property
    def types(self) -> list[str]:
        """The keys' types, as `ssh-ed25519`."""
        return sorted({key_type(key) for key in self.keys})


def known_keys(lines: Iterable[str], host: str, port: int) -> KnownKeys:
    """What the lines say about a host. A line that cannot be read says nothing, as with OpenSSH."""
    name = host.lower() if port == 22 else f"[{host.lower()}]:{port}"
    keys: set[bytes] = set()
    revoked: set[bytes] = set()
    authority = False
    for line in lines:
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#") or not _matches(words[0], name):
            continue
        try:
            key = base64.b64decode(words[2], validate=True)
        except binascii.Error:
            continue
        if marker == "@revoked":
            revoked.add(key)
        elif marker == "@cert-authority":
            authority = True
        elif not marker:
            keys.add(key)
    return KnownKeys(frozenset(keys - revoked), frozenset(revoked), authority)


def key_type(key: bytes) -> str:
    """The type that a key on the wire names first; empty where it is none."""
    length = int.from_bytes(key[:4], "big")
    return key[4 : 4 + length].decode("ascii", "replace")


def fingerprint(key: bytes) -> str:
    """As OpenSSH shows it: SHA256:..."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def _matches(patterns: str, name: str) -> bool:
    if patterns.startswith(_HASHED):
        return _is_hash_of(patterns, name)
    found = False
    for pattern in patterns.lower().split(","):
        # A bracket is a part of the name; only * and ? are wild.
        wild = pattern.removeprefix("!").replace("[", "[[]")
        if fnmatchcase(name, wild):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _is_hash_of(text: str, name: str) -> bool:
    salt, _, digest = text.removeprefix(_HASHED).partition("|")
    try:
        key, expected = base64.b64decode(salt, validate=True), base64.b64decode(digest, validate=True)
    except binascii.Error:
        return False
    return hmac.compare_digest(hmac.digest(key, name.encode(), "sha1"), expected)
