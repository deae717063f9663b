"""What a connection logs in with, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import asyncssh

from hpchub.core.certificate import Profile


@dataclass(frozen=True, slots=True)
class Credential:
    """A key that can sign, and its certificate. `valid_before` is in Unix seconds."""

    key: asyncssh.SSHKey | asyncssh.SSHKeyPair = field(repr=False)
    certificate: asyncssh.SSHCertificate = field(repr=False)
    valid_before: float


class CredentialSource(Protocol):
    """Asked once for each new connection; open connections outlive their certificate."""

    async def credential(self, user: str, profile: Profile, form: str = "") -> Credential:
        """A credential for the person's own account.

        `form` is the form of the principal that the cluster expects; empty for the signer's first.

        Raises:
            NotAllowed: There is no live session.
            CertificateExpired: The session's ceiling has passed.
        """
