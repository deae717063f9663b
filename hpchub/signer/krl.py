"""OpenSSH's key revocation list: what sshd refuses whatever else is right about it. Pure.

Every OpenSSH since 6.2 reads what is written here, except for keys of which only the fingerprint is
known: those need 7.9. The format is PROTOCOL.krl of the OpenSSH sources.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_MAGIC = b"SSHKRL\n\0"
_FORMAT_VERSION = 1
_CERTIFICATES, _EXPLICIT_KEY, _FINGERPRINT_SHA256 = 1, 2, 5
_SERIAL_LIST, _KEY_ID = 0x20, 0x23


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """What a list holds: serials and key ids of our authority's certificates, and keys of anybody's.

    `public_keys` are lines in OpenSSH's form; `fingerprints` are `SHA256:…`, of keys whose line is unknown.
    """

    serials: Sequence[int] = ()
    key_ids: Sequence[str] = ()
    public_keys: Sequence[str] = ()
    fingerprints: Sequence[str] = ()


def render_krl(authorities: Iterable[str], revoked: Revoked, *, version: int, now: int) -> bytes:
    """The list as a file's content; an empty one is valid too, and revokes nothing.

    Args:
        authorities: Lines of the keys whose serials and key ids are meant; more than one while one of them
            follows another.
        revoked: What it is to hold.
        version: Higher than that of any list before.
        now: Unix seconds.
    """
    header = _MAGIC + struct.pack(">IQQQ", _FORMAT_VERSION, version, now, 0) + _text(b"") + _text(b"hpchub")
    sections = []
    certificates = []
    if revoked.serials:
        numbers = sorted(set(revoked.serials))
        certificates.append(_section(_SERIAL_LIST, (struct.pack(">Q", number) for number in numbers)))
    if revoked.key_ids:
        certificates.append(_section(_KEY_ID, (_text(one.encode()) for one in sorted(set(revoked.key_ids)))))
    if certificates:
        for line in authorities:
            sections.append(_section(_CERTIFICATES, (_text(_blob(line)), _text(b""), *certificates)))
    if revoked.public_keys:
        blobs = sorted({_blob(line) for line in revoked.public_keys})
        sections.append(_section(_EXPLICIT_KEY, map(_text, blobs)))
    if revoked.fingerprints:
        digests = sorted({_digest(text) for text in revoked.fingerprints})
        sections.append(_section(_FINGERPRINT_SHA256, map(_text, digests)))
    return header + b"".join(sections)


def _section(kind: int, parts: Iterable[bytes]) -> bytes:
    return bytes([kind]) + _text(b"".join(parts))


def _text(content: bytes) -> bytes:
    """A string as SSH writes one (RFC 4251, section 5)."""
    return struct.pack(">I", len(content)) + content


def _blob(line: str) -> bytes:
    return base64.b64decode(line.split()[1])


def _digest(fingerprint: str) -> bytes:
    return base64.b64decode(fingerprint.removeprefix("SHA256:") + "=")
