"""What a certificate of OpenSSH's says about itself: PROTOCOL.certkeys. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

_SUFFIX = "-cert-v01@openssh.com"
# Strings between the nonce and the serial number, by the type of the key: they are the key itself.
_KEY_STRINGS = {
    "ssh-ed25519": 1,
    "ssh-rsa": 2,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ssh-ed25519": 2,
    "sk-ecdsa-sha2-nistp256": 3,
}


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """`key` is the certified key as it goes over the wire. `valid_before` is in Unix seconds."""

    key: bytes
    key_id: str
    valid_before: int


def is_certificate(blob: bytes) -> bool:
    """Whether a key on the wire is a certificate."""
    return _string(blob, 0)[0].endswith(_SUFFIX.encode())


def read_certificate(blob: bytes) -> CertificateFacts:
    """Its facts.

    Raises:
        ValueError: This is no certificate of a type that is known here.
    """
    name, place = _string(blob, 0)
    kind = name.decode("ascii", "replace")
    plain = kind.removesuffix(_SUFFIX)
    if plain == kind or plain not in _KEY_STRINGS:
        raise ValueError(f"{kind[:60]!r} is no type of certificate")
    _, place = _string(blob, place)
    begin = place
    for _ in range(_KEY_STRINGS[plain]):
        _, place = _string(blob, place)
    own_type = plain if not plain.startswith("sk-") else f"{plain}@openssh.com"
    key = len(own_type).to_bytes(4, "big") + own_type.encode() + blob[begin:place]
    place += 8 + 4
    key_id, place = _string(blob, place)
    _, place = _string(blob, place)
    times = blob[place : place + 16]
    if len(times) < 16:
        raise ValueError("the certificate is cut off")
    return CertificateFacts(key, key_id.decode("utf-8", "replace"), int.from_bytes(times[8:], "big"))


def _string(blob: bytes, place: int) -> tuple[bytes, int]:
    end = place + 4 + int.from_bytes(blob[place : place + 4], "big")
    return blob[place + 4 : end], end
