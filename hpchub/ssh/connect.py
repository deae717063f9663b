"""One SSH handshake, done strictly: known host keys, one certificate, no file of ours read."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncssh

from hpchub.core.cluster import LoginNode
from hpchub.errors import CertificateExpired, ConfigError, HpchubError
from hpchub.ssh.credentials import Credential
from hpchub.ssh.failures import login_failure
from hpchub.ssh.limits import Limits

# asyncssh would put ChaCha20 first, which halves the throughput; the CTR modes are for old servers.
_CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
)

HostKeys = Callable[[str, str, int | None], tuple[list[Any], ...]]


def known_host_keys(path: Path, node: LoginNode) -> HostKeys:
    """What asyncssh asks for a node's keys: those the file has for its name or its address.

    The file is looked at before each handshake, so that a changed one counts at once.

    Raises:
        ConfigError: The file cannot be read.
    """
    try:
        status = path.stat()
        hosts = _read_known_hosts(path, (status.st_ino, status.st_mtime_ns, status.st_size))
    except (OSError, ValueError) as error:
        raise ConfigError(f"The known_hosts file {path} cannot be read: {error}") from error

    def match(_host: str, peer: str, port: int | None) -> tuple[list[Any], ...]:
        by_name = hosts.match(node.name, peer, port)
        by_address = hosts.match(node.address, peer, port)
        return tuple([*one, *other] for one, other in zip(by_name, by_address, strict=True))

    return match


@functools.lru_cache(maxsize=64)
def _read_known_hosts(path: Path, _version: tuple[int, int, int]) -> asyncssh.SSHKnownHosts:
    """Read once for each version of a file: every open connection keeps what it was given."""
    return asyncssh.read_known_hosts(str(path))


def pinned_host_key(public_key: asyncssh.SSHKey) -> HostKeys:
    """What asyncssh asks for the keys of a host whose one key is known beforehand."""

    def match(_host: str, _peer: str, _port: int | None) -> tuple[list[Any], ...]:
        return ([public_key], [], [], [], [], [], [])

    return match


async def log_in(
    user: str,
    node: LoginNode,
    host_keys: HostKeys,
    key: asyncssh.SSHKey | asyncssh.SSHKeyPair,
    certificate: asyncssh.SSHCertificate | None,
    limits: Limits,
    tunnel: object = (),
) -> asyncssh.SSHClientConnection:
    """An open connection, logged in as `user`.

    Raises:
        AccountProblem: sshd refused the key or the certificate.
        HostKeyMismatch: The host's key is not the known one.
        HostUnreachable: It does not answer, or dropped the handshake.
    """
    try:
        connecting = asyncssh.connect(
            node.address,
            node.port,
            username=user,
            client_keys=_offered(key, certificate),
            known_hosts=host_keys,
            host_key_alias=_certified_name(node),
            tunnel=tunnel,
            config=None,
            agent_path=None,
            password=None,
            preferred_auth="publickey",
            gss_host=None,
            gss_kex=False,
            gss_auth=False,
            x509_trusted_certs=None,
            encryption_algs=_CIPHERS,
            compression_algs=("none",),
            connect_timeout=limits.connect_timeout_s,
            login_timeout=limits.login_timeout_s,
            keepalive_interval=limits.keepalive_interval_s,
            keepalive_count_max=limits.keepalive_tries,
        )
        return await _within(limits.connect_timeout_s + limits.login_timeout_s, connecting)
    except HpchubError:
        raise
    except (OSError, asyncssh.Error, TimeoutError) as error:
        raise login_failure(error, user, node.name) from error


async def _within(
    limit_s: float, connecting: Awaitable[asyncssh.SSHClientConnection]
) -> asyncssh.SSHClientConnection:
    """What comes of it within so many seconds; TimeoutError else.

    Not by `asyncio.timeout`, which waits for what it has cancelled: asyncssh then waits for the end of its
    connection, and whoever shares this handshake would wait with it.
    """
    task = asyncio.ensure_future(connecting)
    task.add_done_callback(lambda one: one.cancelled() or one.exception())  # nobody may be left to ask
    try:
        done, _ = await asyncio.wait({task}, timeout=limit_s)
    except asyncio.CancelledError:
        if not task.cancel() and not task.cancelled() and task.exception() is None:
            task.result().abort()  # it was there in that very moment
        raise
    if not done:
        task.cancel()
        raise TimeoutError
    return task.result()


def check_valid(credential: Credential, user: str, now: float) -> None:
    """CertificateExpired where a certificate has run out: sshd would count it as a failed login."""
    if credential.valid_before <= now:
        raise CertificateExpired(f"The certificate of {user} has run out.", "Log in again.")


def _offered(
    key: asyncssh.SSHKey | asyncssh.SSHKeyPair, certificate: asyncssh.SSHCertificate | None
) -> list[asyncssh.SSHKeyPair]:
    """Only the certificate, if there is one: the bare key after it would be a second failed login."""
    if isinstance(key, asyncssh.SSHKeyPair):
        if certificate is not None:
            key.set_certificate(certificate)
        return [key]
    if certificate is None:
        return list(asyncssh.load_keypairs([key]))
    return list(asyncssh.load_keypairs([(key, certificate)]))[:1]


def _certified_name(node: LoginNode) -> str:
    """The name that a host certificate must bear."""
    try:
        ipaddress.ip_address(node.address)
    except ValueError:
        return node.address
    return node.name
