"""An authority whose private key is held by an ssh-agent: in its memory, or in hardware behind it.

We build the bytes of the certificate, the agent signs them (draft-ietf-sshm-ssh-agent), and the key
itself is never ours. `ssh-add -s` gives an agent the keys of a PKCS#11 token.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from asyncssh.agent import SSH_AGENT_RSA_SHA2_512, SSHAgentClient

from hpchub.errors import RemoteError
from hpchub.signer.certificate_bytes import (
    NONCE_BYTES,
    Contents,
    blob_of,
    certificate_line,
    to_be_signed,
)
from hpchub.signer.certificates import PublicKey
from hpchub.signer.issuer_http import ANSWER_S

# An agent that is asked by hundreds in one moment resets some of their connections (OpenSSH 9.2).
_AT_ONCE = 16

_log = logging.getLogger(__name__)


class AgentIssuer:
    """One key of the agent behind a unix socket."""

    adjusts = False
    own_key = None

    def __init__(self, socket: Path, public_key: str) -> None:
        self.public_key = public_key
        self._socket = socket
        self._blob = blob_of(public_key)
        # Without the flag an agent signs with SHA-1, which no sshd takes any more.
        self._flags = SSH_AGENT_RSA_SHA2_512 if public_key.startswith("ssh-rsa ") else 0
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def sign(self, public_key: PublicKey, contents: Contents) -> str:
        """Built here, signed there."""
        data = to_be_signed(public_key.line, self._blob, contents, secrets.token_bytes(NONCE_BYTES))
        async with self._connected() as client:
            signature = await client.sign(self._blob, data, self._flags)
        return certificate_line(public_key.line, data, signature)

    async def check(self) -> None:
        """Whether the agent holds the key; that it can sign with it shows when it does."""
        async with self._connected() as client:
            held = {pair.key_public_data for pair in await client.get_keys()}
        if self._blob not in held:
            raise RemoteError("The agent of the certificate authority does not hold its key.")

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[SSHAgentClient]:
        """A connection for one request, the wait for a turn within the time that there is."""
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                self._turns,
                SSHAgentClient(str(self._socket)) as client,
            ):
                yield client
        except TimeoutError as error:
            raise RemoteError(
                f"The agent of the certificate authority did not answer within {ANSWER_S:.0f} s.",
                "Try again in a minute.",
            ) from error
        except (OSError, ValueError) as error:  # asyncssh raises ValueError for every refusal
            _log.error("issuer.failed issuer=agent socket=%s reason=%s", self._socket, error)
            raise RemoteError(
                "The agent of the certificate authority does not sign.", "Tell the site's staff."
            ) from error
