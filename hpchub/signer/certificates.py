"""Reads public keys, and reads back certificates before anybody gets one.

Whoever has signed, the result is decoded by a library (cryptography) that had no part in making it, its
signature is verified, and every field is compared with what was planned.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from dataclasses import dataclass
from functools import lru_cache

import asyncssh
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    SSHCertificateType,
    SSHPublicKeyTypes,
    load_ssh_public_identity,
    load_ssh_public_key,
)

from hpchub.errors import InvalidRequest, SiteError
from hpchub.signer.certificate_bytes import (
    NONCE_BYTES,
    Contents,
    Kind,
    blob_of,
    certificate_line,
    string,
    to_be_signed,
)
from hpchub.signer.policy import Plan

MIN_RSA_BITS = 3072
_MAX_RSA_BITS = 16384  # what OpenSSH reads
_ED25519 = b"ssh-ed25519"
_ED25519_SIGNATURE = len(string(string(_ED25519) + string(bytes(64))))

# The type stands first: no options before it, and no certificate types among them.
_PUBLIC_KEY = re.compile(
    r"(ssh-ed25519|ecdsa-sha2-nistp(?:256|384|521)|ssh-rsa) ([A-Za-z0-9+/]{32,4000}={0,2})(?: [ -~]{0,200})?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A plain public key, canonical and without its comment. `fingerprint` is `SHA256:…`."""

    line: str
    fingerprint: str


# A login brings its key again and again. Only keys that are taken are kept.
@lru_cache(maxsize=4096)
def parse_public_key(text: str) -> PublicKey:
    """A user's public key: one line, ed25519, ecdsa or rsa of 3072 bits and more, no certificate.

    Raises:
        InvalidRequest: It is anything else.
    """
    match = _PUBLIC_KEY.fullmatch(text.removesuffix("\n"))
    if not match:
        raise _bad_key("Give one line: ssh-ed25519, ecdsa-sha2-nistp… or ssh-rsa, and the key.")
    kind, encoded = match.groups()
    try:
        blob = base64.b64decode(encoded, validate=True)
        key = load_ssh_public_key(f"{kind} {encoded}".encode())
        line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    except (ValueError, binascii.Error, UnsupportedAlgorithm) as error:
        raise _bad_key("The key cannot be read.") from error
    if isinstance(key, RSAPublicKey) and not MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
        raise _bad_key(f"An RSA key must have {MIN_RSA_BITS} to {_MAX_RSA_BITS} bits.")
    if line != f"{kind} {base64.b64encode(blob).decode()}":
        raise _bad_key("The key is not in its canonical form.")
    return PublicKey(line, fingerprint_of(blob))


def fingerprint_of(blob: bytes) -> str:
    """`SHA256:…` of a key's wire form, as ssh-keygen prints it."""
    return f"SHA256:{base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip('=')}"


def contents_of(plan: Plan) -> Contents:
    """What a certificate of that plan says."""
    options = {}
    if plan.source_addresses:
        options["source-address"] = ",".join(plan.source_addresses)
    if plan.force_command is not None:
        options["force-command"] = plan.force_command
    return Contents(
        kind=Kind.USER,
        serial=plan.serial,
        key_id=plan.key_id,
        principals=(plan.principal,),
        valid_after=plan.valid_after,
        valid_before=plan.valid_before,
        critical_options=options,
        extensions=plan.extensions,
    )


def sign(ca_key: asyncssh.SSHKey, public_key: PublicKey, plan: Plan) -> str:
    """The certificate that `plan` describes, as one line in OpenSSH's form.

    Raises:
        SiteError: What was signed is not what was planned; nothing leaves.
    """
    if public_key.fingerprint != plan.fingerprint:
        raise SiteError("A certificate was planned for another key.")
    contents = contents_of(plan)
    return checked(sign_contents(ca_key, public_key, contents), line_of(ca_key), public_key, contents)


def sign_contents(ca_key: asyncssh.SSHKey, public_key: PublicKey, contents: Contents) -> str:
    """A certificate by a key of our own, as one line. Nobody has read it back yet."""
    data = to_be_signed(public_key.line, ca_key.public_data, contents, secrets.token_bytes(NONCE_BYTES))
    return certificate_line(public_key.line, data, ca_key.sign(data, ca_key.sig_algorithms[0]))


def is_pair(key: asyncssh.SSHKey) -> bool:
    """Whether what a private key signs can be verified with the public key that goes with it."""
    proof = secrets.token_bytes(NONCE_BYTES)
    public = asyncssh.import_public_key(line_of(key))
    return public.verify(proof, key.sign(proof, key.sig_algorithms[0]))


def line_of(key: asyncssh.SSHKey) -> str:
    """A key's public half as one line without a comment."""
    return b" ".join(key.export_public_key("openssh").split()[:2]).decode("ascii")


def checked(
    line: str,
    authority: str,
    public_key: PublicKey,
    contents: Contents,
    own_key: asyncssh.SSHKey | None = None,
) -> str:
    """The line itself, where it is what was planned; arguments as in `find_differences`.

    Raises:
        SiteError: It is not; nothing leaves.
    """
    differing = find_differences(line, authority, public_key, contents, own_key)
    if differing:
        raise SiteError(f"A signed certificate differs from its plan in {', '.join(differing)}.")
    return line


def find_differences(
    line: str,
    authority: str,
    public_key: PublicKey,
    contents: Contents,
    own_key: asyncssh.SSHKey | None = None,
) -> list[str]:
    """The names of the certificate's fields that are not as planned; empty where all are.

    Args:
        line: The certificate.
        authority: The line of the authority's public key, without a comment.
        public_key: The key that should be in it.
        contents: What it should say.
        own_key: The authority's private key, where we have it.
    """
    try:
        found = load_ssh_public_identity(line.encode("ascii"))
        if not isinstance(found, SSHCertificate):
            return ["kind"]
        if own_key is None or own_key.algorithm != _ED25519:
            found.verify_cert_signature()
        elif not _signs_so(own_key, line):
            return ["signature or format"]
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        return ["signature or format"]
    options = {name.encode(): value.encode() for name, value in contents.critical_options.items()}
    kind = SSHCertificateType.USER if contents.kind is Kind.USER else SSHCertificateType.HOST
    pairs = {
        "type": (found.type, kind),
        "key": (found.public_key(), _loaded(public_key.line)),
        "authority": (found.signature_key(), _loaded(authority)),
        "serial": (found.serial, contents.serial),
        "key id": (found.key_id, contents.key_id.encode()),
        "principals": (found.valid_principals, [name.encode() for name in contents.principals]),
        "valid after": (found.valid_after, contents.valid_after),
        "valid before": (found.valid_before, contents.valid_before),
        "critical options": (found.critical_options, options),
        "extensions": (found.extensions, {name.encode(): b"" for name in contents.extensions}),
    }
    return [name for name, (is_so, planned) in pairs.items() if is_so != planned]


def _signs_so(own_key: asyncssh.SSHKey, line: str) -> bool:
    """Whether an ed25519 key signs what stands in the line just as the line has it.

    Such a signature follows from key and message alone (RFC 8032, section 5.1.6). To make it again tells as
    much as to verify it, of an error in between too, and takes a third of the time: verifying would be half
    of all that a certificate costs. That private and public key belong together is seen at the start.
    """
    blob = blob_of(line)
    return blob[-_ED25519_SIGNATURE:] == string(own_key.sign(blob[:-_ED25519_SIGNATURE], _ED25519))


@lru_cache(maxsize=4096)
def _loaded(line: str) -> SSHPublicKeyTypes:
    return load_ssh_public_key(line.encode("ascii"))


def read_bounds(line: str) -> tuple[int, int, int] | None:
    """Serial, start and end of a certificate that nobody has checked yet; None where it is none."""
    try:
        found = load_ssh_public_identity(line.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm):
        return None
    if not isinstance(found, SSHCertificate):
        return None
    return found.serial, found.valid_after, found.valid_before


def _bad_key(why: str) -> InvalidRequest:
    return InvalidRequest(f"The public key is refused: {why}", fields={"public_key": why})
