"""Signs what the policy planned, and reads it back before anybody gets it.

asyncssh's `generate_user_certificate` fails open: left to its defaults a certificate is for everyone,
for ever, from anywhere, with every permission. Nothing is left to a default here, and the result is
decoded by another library (cryptography) and compared with the plan field by field.
https://cvsweb.openbsd.org/src/usr.bin/ssh/PROTOCOL.certkeys
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

import asyncssh
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    SSHCertificateType,
    load_ssh_public_identity,
    load_ssh_public_key,
)

from hpchub.errors import InvalidRequest, SiteError
from hpchub.signer.policy import PORT_FORWARDING, PTY, Plan

MIN_RSA_BITS = 3072
_MAX_RSA_BITS = 16384  # what OpenSSH reads

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
        fingerprint = asyncssh.import_public_key(line).get_fingerprint()
    except (ValueError, binascii.Error, UnsupportedAlgorithm, asyncssh.KeyImportError) as error:
        raise _bad_key("The key cannot be read.") from error
    if isinstance(key, RSAPublicKey) and not MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
        raise _bad_key(f"An RSA key must have {MIN_RSA_BITS} to {_MAX_RSA_BITS} bits.")
    if line != f"{kind} {base64.b64encode(blob).decode()}":
        raise _bad_key("The key is not in its canonical form.")
    return PublicKey(line, fingerprint)


def sign(ca_key: asyncssh.SSHKey, public_key: PublicKey, plan: Plan) -> str:
    """The certificate that `plan` describes, as one line in OpenSSH's form.

    Raises:
        SiteError: What was signed is not what was planned; nothing leaves.
    """
    if public_key.fingerprint != plan.fingerprint:
        raise SiteError("A certificate was planned for another key.")
    certificate = ca_key.generate_user_certificate(
        asyncssh.import_public_key(public_key.line),
        key_id=plan.key_id,
        serial=plan.serial,
        principals=[plan.principal],  # a list: a text would be split at commas
        valid_after=plan.valid_after,
        valid_before=plan.valid_before,
        force_command=plan.force_command,
        source_address=list(plan.source_addresses) or None,
        permit_x11_forwarding=False,
        permit_agent_forwarding=False,
        permit_port_forwarding=PORT_FORWARDING in plan.extensions,
        permit_pty=PTY in plan.extensions,
        permit_user_rc=False,
        touch_required=True,
        comment=None,
    )
    line = certificate.export_certificate("openssh").decode("ascii").strip()
    differing = find_differences(line, ca_key.export_public_key("openssh"), public_key, plan)
    if differing:
        raise SiteError(f"A signed certificate differs from its plan in {', '.join(differing)}.")
    return line


def find_differences(line: str, ca_public_key: bytes, public_key: PublicKey, plan: Plan) -> list[str]:
    """The names of the certificate's fields that are not as planned; empty where all are."""
    try:
        found = load_ssh_public_identity(line.encode("ascii"))
        if not isinstance(found, SSHCertificate):
            return ["kind"]
        found.verify_cert_signature()
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        return ["signature or format"]
    options = {}
    if plan.source_addresses:
        options[b"source-address"] = ",".join(plan.source_addresses).encode()
    if plan.force_command is not None:
        options[b"force-command"] = plan.force_command.encode()
    openssh = (Encoding.OpenSSH, PublicFormat.OpenSSH)
    pairs = {
        "type": (found.type, SSHCertificateType.USER),
        "key": (found.public_key().public_bytes(*openssh), public_key.line.encode()),
        "authority": (found.signature_key().public_bytes(*openssh), _without_comment(ca_public_key)),
        "serial": (found.serial, plan.serial),
        "key id": (found.key_id, plan.key_id.encode()),
        "principals": (found.valid_principals, [plan.principal.encode()]),
        "valid after": (found.valid_after, plan.valid_after),
        "valid before": (found.valid_before, plan.valid_before),
        "critical options": (found.critical_options, options),
        "extensions": (found.extensions, {name.encode(): b"" for name in plan.extensions}),
    }
    return [name for name, (is_so, planned) in pairs.items() if is_so != planned]


def _without_comment(line: bytes) -> bytes:
    return b" ".join(line.split()[:2])


def _bad_key(why: str) -> InvalidRequest:
    return InvalidRequest(f"The public key is refused: {why}", fields={"public_key": why})
