"""Seals what the store keeps for a later bridge, such as the environment of a server that still waits.

The sealing key is derived from a signature that only a key in ssh-agent's memory can make. A database,
or a backup of one, is worth nothing without that memory.
"""

from __future__ import annotations

import base64
import hashlib

import asyncssh
from cryptography.fernet import Fernet, InvalidToken

from hpchub.core.secret import Secret
from hpchub.ssh.key_agent import KeyAgent

_COMMENT = "hpchub seal"
_STATEMENT = b"hpchub: the key that seals the bridge's store, version 1"


class Seal:
    """One sealing key. `of` finds the agent's, or makes it."""

    def __init__(self, fernet: Fernet) -> None:
        self._fernet = fernet

    @classmethod
    async def of(cls, agent: KeyAgent) -> Seal:
        """The seal of an agent. HostUnreachable where the agent does not answer."""
        held = [public_data for public_data, comment in (await agent.held()).items() if comment == _COMMENT]
        if not held:
            key = asyncssh.generate_private_key("ssh-ed25519", comment=_COMMENT)
            await agent.add(key)
            held = [key.public_data]
        # Ed25519 signatures are deterministic (RFC 8032), so every bridge derives the same.
        signature = await agent.sign(held[0], _STATEMENT)
        return cls(Fernet(base64.urlsafe_b64encode(hashlib.sha256(signature).digest())))

    def close(self, secret: Secret) -> str:
        """The sealed text, printable."""
        return self._fernet.encrypt(secret.reveal().encode()).decode()

    def open(self, sealed: str) -> Secret | None:
        """What was sealed; None where another key has sealed it."""
        try:
            return Secret(self._fernet.decrypt(sealed.encode()).decode())
        except InvalidToken:
            return None
