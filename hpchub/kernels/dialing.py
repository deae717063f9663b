"""Connections to the kernel agent in a job, each proven by both sides (hpchub/remote/kernel_agent.py)."""

from __future__ import annotations

import asyncio
import hmac
import secrets

from hpchub.errors import HostUnreachable
from hpchub.kernels.allocation import Place
from hpchub.kernels.step import Step
from hpchub.remote.kernel_agent import CONTROL, GREETING, LINE_BYTES, LISTEN_WAIT_S, Streams, proof

CONNECT_S = 10.0
# The agent answers for a channel once the kernel listens.
_CHANNEL_S = LISTEN_WAIT_S + CONNECT_S
# A kernel that is restarted is there again soon, and one that is not may stay away for hours.
_AGAIN_S = 1.0
_SOON_S, _SOON_TRIES = 0.1, 100


class Dialer:
    """Connects to one kernel's control or one of its five channels."""

    def __init__(self, place: Place, key: bytes, kernel_id: str, step: Step | None) -> None:
        self._place = place
        self._key = key
        self._kernel_id = kernel_id
        self._step = step
        self._has_reached = False

    async def dial(self, part: str) -> Streams:
        """A connection that both sides have proven.

        Raises:
            HostUnreachable: Nobody answers, or somebody else, or no kernel listens in time.
        """
        role = f"{self._kernel_id}/{part}"
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(CONNECT_S if part == CONTROL else _CHANNEL_S):
                reader, writer = await self._connect()
                first = await reader.readline()
                if not first:
                    raise ValueError("the connection was closed")
                greeting, agent_nonce = first.decode("ascii").split()
                if greeting != GREETING:
                    raise ValueError("something else answers")
                nonce = secrets.token_hex(16)
                shown = proof(self._key, "client", role, agent_nonce, nonce)
                writer.write(f"{role} {nonce} {shown}\n".encode())
                word, answer = (await reader.readline()).decode("ascii").split()
                expected = proof(self._key, "agent", role, agent_nonce, nonce)
                if word != "ok" or not hmac.compare_digest(answer, expected):
                    raise ValueError("it does not know the key")
        except (OSError, ValueError, asyncio.CancelledError) as error:
            if writer is not None:
                writer.close()
            if isinstance(error, asyncio.CancelledError):
                raise
            raise self.unreachable(str(error) or type(error).__name__) from error
        self._has_reached = True
        return reader, writer

    async def dial_until_there(self, part: str) -> Streams:
        """As `dial`, as often as it takes."""
        tries = 0
        while True:
            try:
                return await self.dial(part)
            except HostUnreachable:
                tries += 1
                await asyncio.sleep(_SOON_S if tries < _SOON_TRIES else _AGAIN_S)

    def unreachable(self, why: str) -> HostUnreachable:
        """The error for it."""
        return HostUnreachable(
            f"The kernel's node {self._place.node} cannot be reached {self._place.way}: {why}.",
            ""
            if self._place.step or self._has_reached
            else "Where this machine may not reach the nodes' ports, say attach=srun.",
        )

    async def _connect(self) -> Streams:
        if self._step is not None:
            return await self._step.connect(LINE_BYTES)
        return await asyncio.open_connection(self._place.address, self._place.port, limit=LINE_BYTES)
