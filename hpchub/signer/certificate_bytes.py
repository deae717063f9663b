"""The bytes of an OpenSSH certificate, written field by field, for whoever signs them. Pure.

Nothing has a default here: what is not named is not in the certificate.
https://cvsweb.openbsd.org/src/usr.bin/ssh/PROTOCOL.certkeys
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

NONCE_BYTES = 32

_CERTIFICATE_TYPE = "{}-cert-v01@openssh.com"


class Kind(IntEnum):
    """Whom a certificate is for; the numbers are the format's."""

    USER = 1
    HOST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a certificate says of its key. Times are Unix seconds; extensions carry no value."""

    kind: Kind
    serial: int
    key_id: str
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int
    critical_options: Mapping[str, str]
    extensions: frozenset[str]


def blob_of(public_key: str) -> bytes:
    """The wire form of a key, from its line."""
    return base64.b64decode(public_key.split(" ", 2)[1], validate=True)


def to_be_signed(public_key: str, authority: bytes, contents: Contents, nonce: bytes) -> bytes:
    """Everything that comes before the signature.

    Args:
        public_key: The line of the key that is certified.
        authority: The wire form of the authority's public key.
        contents: What is said of the key.
        nonce: Random, so that nobody who asks can choose what is signed.
    """
    kind = public_key.split(" ", 1)[0]
    blob = blob_of(public_key)
    return b"".join(
        (
            string(_CERTIFICATE_TYPE.format(kind).encode("ascii")),
            string(nonce),
            blob[4 + int.from_bytes(blob[:4], "big") :],  # the key's own fields, after its type
            struct.pack(">QI", contents.serial, contents.kind),
            string(contents.key_id.encode("utf-8")),
            string(b"".join(string(name.encode("utf-8")) for name in contents.principals)),
            struct.pack(">QQ", contents.valid_after, contents.valid_before),
            _named(contents.critical_options.items()),
            _named((name, None) for name in contents.extensions),
            string(b""),  # reserved
            string(authority),
        )
    )


def certificate_line(public_key: str, signed: bytes, signature: bytes) -> str:
    """The whole certificate as one line, from what was signed and the signature's wire form."""
    kind = _CERTIFICATE_TYPE.format(public_key.split(" ", 1)[0])
    return f"{kind} {base64.b64encode(signed + string(signature)).decode('ascii')}"


def string(content: bytes) -> bytes:
    """A string as SSH writes one (RFC 4251, section 5)."""
    return struct.pack(">I", len(content)) + content


def _named(pairs: Iterable[tuple[str, str | None]]) -> bytes:
    """Options: sorted by name, as the format wants, each value a string within a string."""
    return string(
        b"".join(
            string(name.encode("utf-8")) + string(b"" if value is None else string(value.encode("utf-8")))
            for name, value in sorted(pairs)
        )
    )
