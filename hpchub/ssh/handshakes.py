"""Logs people in: a fresh credential for each handshake, and no second look at a wrong host key."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping

import asyncssh

from hpchub.core.certificate import Profile
from hpchub.core.cluster import Cluster, LoginNode
from hpchub.errors import HostUnreachable
from hpchub.ssh import connect
from hpchub.ssh.credentials import CredentialSource
from hpchub.ssh.limits import Limits
from hpchub.ssh.metrics import SshMetrics
from hpchub.ssh.mismatch import Mismatches


class Handshakes:
    """With login nodes, and through their connections with compute nodes."""

    def __init__(
        self,
        clusters: Mapping[str, Cluster],
        credentials: CredentialSource,
        limits: Limits,
        metrics: SshMetrics,
    ) -> None:
        self._clusters = clusters
        self._credentials = credentials
        self._limits = limits
        self._metrics = metrics
        self._mismatches = Mismatches()

    async def patiently(
        self, user: str, cluster: str, node: LoginNode, profile: Profile, turn: asyncio.Semaphore
    ) -> asyncssh.SSHClientConnection:
        """Log in, again where sshd dropped the handshake (MaxStartups does so when it is busy).

        Raises:
            As `once`.
        """
        tries = 0
        while True:
            tries += 1
            async with turn:
                try:
                    return await self.once(user, cluster, node, profile)
                except HostUnreachable as error:
                    if tries >= self._limits.handshake_tries or not _was_dropped(error):
                        raise
            await asyncio.sleep(random.uniform(0.1, 0.4) * 2**tries)  # noqa: S311  jitter, not a secret

    async def once(
        self, user: str, cluster: str, node: LoginNode, profile: Profile, tunnel: object = ()
    ) -> asyncssh.SSHClientConnection:
        """Log in to a node, directly or through another connection.

        Raises:
            CertificateExpired, NotAllowed: There is no credential.
            AccountProblem, HostKeyMismatch, HostUnreachable: See `connect.log_in`.
        """
        known_hosts = self._clusters[cluster].known_hosts
        host_keys = connect.known_host_keys(known_hosts, node)
        form = self._clusters[cluster].principal
        credential = await self._credentials.credential(user, profile, form)
        connect.check_valid(credential, user, time.time())
        with self._mismatches.strictly(known_hosts, node.name), self._metrics.handshake(cluster):
            return await connect.log_in(
                user, node, host_keys, credential.key, credential.certificate, self._limits, tunnel
            )


def _was_dropped(error: HostUnreachable) -> bool:
    return isinstance(error.__cause__, asyncssh.ConnectionLost | ConnectionResetError | BrokenPipeError)
