"""The sessions' private keys, in the memory of OpenSSH's own ssh-agent.

An agent signs and never gives a key away. So a bridge that restarts goes on with the keys of the one
before it, and nobody who takes the bridge over can take them along. The agent is a process of its own,
`ssh-agent -D -a SOCKET`, and restarts with neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
from asyncssh.agent import SSHAgentClient, SSHAgentKeyPair

from hpchub.errors import NotAllowed, ProcessAway

_ANSWER_WAIT_S = 10

# An agent that is asked by hundreds in one moment resets some of their connections (OpenSSH 9.2).
_AT_ONCE = 16


class KeyAgent:
    """One ssh-agent behind its unix socket.

    Every method raises ProcessAway where the agent does not answer.
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def add(self, key: asyncssh.SSHKey, lifetime_s: int = 0) -> None:
        """Give it a private key, which it forgets after so many seconds; never, for 0."""
        async with self._connected() as client:
            await client.add_keys([key], lifetime=lifetime_s or None)

    async def remove(self, public_key: asyncssh.SSHKey) -> None:
        """Have it forget a key. One that it does not hold is no error."""
        if public_key.public_data in await self.held():
            async with self._connected() as client:
                await client.remove_keys([self.pair(public_key)])

    async def held(self) -> dict[bytes, str]:
        """The comment of each key that it holds, by the public key's wire form."""
        async with self._connected() as client:
            return {pair.key_public_data: pair.get_comment() or "" for pair in await client.get_keys()}

    async def sign(self, public_data: bytes, text: bytes) -> bytes:
        """A signature by one of its keys. NotAllowed where it does not hold that key."""
        async with self._connected() as client:
            return await client.sign(public_data, text)

    def pair(self, public_key: asyncssh.SSHKey) -> asyncssh.SSHKeyPair:
        """What asyncssh takes for a key: a handshake with it asks the agent for its signature."""
        return _Pair(self, public_key)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[SSHAgentClient]:
        """A connection for one request: a request that is cancelled leaves no answer for the next."""
        try:
            async with (
                self._turns,
                asyncio.timeout(_ANSWER_WAIT_S),
                SSHAgentClient(str(self.socket)) as client,
            ):
                yield client
        except (OSError, ValueError, TimeoutError) as error:  # asyncssh raises ValueError for every refusal
            if str(error) == "Unable to sign with requested key":
                raise NotAllowed("The hub does not hold your key any more.", "Log in again.") from error
            raise ProcessAway(
                f"The hub's key agent at {self.socket} does not answer: {error}", "Try again in a minute."
            ) from error


class _Pair(SSHAgentKeyPair):
    """Asks through its KeyAgent, so that a handshake fails with our own errors."""

    def __init__(self, agent: KeyAgent, public_key: asyncssh.SSHKey) -> None:
        super().__init__(SSHAgentClient(""), public_key.algorithm, public_key.public_data, b"")
        self._key_agent = agent

    async def sign_async(self, data: bytes) -> bytes:
        return await self._key_agent.sign(self.key_public_data, data)
