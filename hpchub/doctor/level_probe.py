"""Finds out by trying, as one person and without root, what a login node's sshd lets certificates do.

What it cannot see that way, sshd's word on root and the revocation list among it, `--sshd` reads.
A refused login is a mark against the hub's address (PerSourcePenalties): two of them for each node, at most.
"""

from __future__ import annotations

import asyncio
import ipaddress
from contextlib import suppress

import asyncssh
from asyncssh.public_key import SSHOpenSSHCertificate

from hpchub.bridge.sessions import Sessions
from hpchub.core.certificate import PLAIN_PRINCIPAL, Profile
from hpchub.core.cluster import Cluster, LoginNode
from hpchub.doctor.forwards import Forwards, forwards_of, principals_line
from hpchub.doctor.report import Finding, Report, Verdict
from hpchub.doctor.sshd_level import level_of
from hpchub.errors import AccountProblem, ConfigError, HostUnreachable, HpchubError
from hpchub.ssh.connect import known_host_keys, log_in
from hpchub.ssh.credentials import Credential
from hpchub.ssh.failures import reason
from hpchub.ssh.limits import Limits

_LIMIT_S = 15.0
_LOOPBACK = "127.0.0.1"
_ADDRESS = "ADDRESS-OF-THE-HUB"
_HOW_TO = "See docs/howto/trust-the-authority.md."


class LevelProbe:
    """One cluster, tried as one person who has logged in."""

    def __init__(self, report: Report, sessions: Sessions, cluster: Cluster, user: str) -> None:
        self._report = report
        self._sessions = sessions
        self._cluster = cluster
        self._user = user
        self._principal = user
        self._needed = forwards_of(cluster)
        self._found: list[Finding] = []

    async def run(self, node: LoginNode) -> None:
        """Try it all on a node that lets the person in, and say which level that adds up to."""
        where, self._found = f"{self._cluster.name} {node.name}", []
        try:
            await self._try(where, node)
        except HpchubError as error:
            self._report.bad(f"{where} level", error)
            return
        except (OSError, asyncssh.Error, TimeoutError) as error:
            self._report.bad(f"{where} level", HostUnreachable(f"{node.name} was lost: {reason(error)}."))
            return
        self._report.add(level_of(self._found, f"{where} level, as far as one can try"))

    async def _try(self, where: str, node: LoginNode) -> None:
        control = await self._credential(Profile.CONTROL, self._cluster.principal)
        await self._principals(where, node, control)
        await self._root(where, node, control)
        async with await self._log_in(node, control) as connection:
            await self._commands_only(where, node, connection)
        tunnel = await self._credential(Profile.TUNNEL, self._cluster.principal)
        async with await self._log_in(node, tunnel) as connection:
            await self._forwards(where, node, connection)
            await self._listens(where, connection)

    async def _principals(self, where: str, node: LoginNode, control: Credential) -> None:
        certificate = control.certificate
        if isinstance(certificate, SSHOpenSSHCertificate):
            self._principal = ", ".join(certificate.principals)
        what = f"{where} principals"
        if self._principal == self._user:
            found = "a certificate need only name the account."
            self._say(Verdict.MISSING, what, found, f"Have principals, and files of them. {_HOW_TO}")
            return
        self._say(Verdict.OK, what, f"{self._principal} was let in, so sshd goes by a list")
        await self._plain(f"{where} plain name", node)

    async def _plain(self, what: str, node: LoginNode) -> None:
        try:
            plain = await self._credential(Profile.CONTROL, PLAIN_PRINCIPAL)
        except ConfigError:
            self._say(Verdict.OK, what, "the signer makes no certificate that only names the account")
            return
        if await self._is_refused(node, self._user, plain):
            self._say(Verdict.OK, what, "a certificate that only names the account is refused")
        else:
            found = "a certificate that only names the account is let in."
            self._say(Verdict.MISSING, what, found, f"Take {self._user} out of the file of principals.")

    async def _root(self, where: str, node: LoginNode, control: Credential) -> None:
        if await self._is_refused(node, "root", control):
            self._say(Verdict.OK, f"{where} root", f"{self._user}'s certificate is refused there")
        else:
            found = f"{self._user}'s certificate is let in as root!"
            self._say(
                Verdict.FAILED,
                f"{where} root",
                found,
                "Write `PermitRootLogin no`, and look at its principals.",
            )

    async def _commands_only(
        self, where: str, node: LoginNode, connection: asyncssh.SSHClientConnection
    ) -> None:
        """A control certificate has no extension at all."""
        what, can = f"{where} control", []
        with suppress(asyncssh.ChannelOpenError, TimeoutError):
            async with asyncio.timeout(_LIMIT_S):
                process = await connection.create_process("true", term_type="dumb")
                process.close()
                can.append("a terminal")
        if await _opens(connection, node.port) is not False:
            can.append("a tunnel")
        if can:
            found = f"the certificate for commands gets {' and '.join(can)}."
            self._say(
                Verdict.FAILED, what, found, "This sshd does not heed what certificates permit: replace it."
            )
        else:
            self._say(Verdict.OK, what, "no terminal and no tunnel")

    async def _forwards(self, where: str, node: LoginNode, connection: asyncssh.SSHClientConnection) -> None:
        what = f"{where} permitopen="
        opened = await _opens(connection, node.port)
        if opened is False:
            self._say(Verdict.OK, what, "a tunnel to the node's own sshd is refused")
        elif self._needed is not Forwards.NOTHING:
            found = f"a tunnel leads to ports of the node too; it is needed for {self._needed}"
            self._say(Verdict.NOTE, what, found)
        else:
            line = principals_line(self._principal, _ADDRESS, self._needed)
            self._say(Verdict.MISSING, what, "a tunnel may lead to any port.", f"Write `{line}`.")
        if opened:
            await self._from_elsewhere(f"{where} source address", node, connection)

    async def _from_elsewhere(
        self, what: str, node: LoginNode, connection: asyncssh.SSHClientConnection
    ) -> None:
        """Through a tunnel one comes from the node itself, which is no place for a certificate of ours."""
        tunnel = await self._credential(Profile.TUNNEL, self._cluster.principal)
        inside = LoginNode(name=node.name, address=_LOOPBACK, port=node.port)
        if _is_from(tunnel, _LOOPBACK):
            self._say(Verdict.NOTE, what, f"not tried: {_LOOPBACK} is the hub's own")
        elif await self._is_refused(inside, self._user, tunnel, connection):
            self._say(Verdict.OK, what, "the certificate is refused from elsewhere")
        else:
            self._say(Verdict.FAILED, what, "is not heeded.", "Correct source_addresses in signer.toml.")

    async def _listens(self, where: str, connection: asyncssh.SSHClientConnection) -> None:
        what = f"{where} permitlisten="
        try:
            async with asyncio.timeout(_LIMIT_S):
                listener = await connection.start_server(lambda *_: False, _LOOPBACK, 0)
        except (asyncssh.ChannelListenError, TimeoutError):
            self._say(Verdict.OK, what, "a tunnel may open no port there")
            return
        listener.close()
        line = principals_line(self._principal, _ADDRESS, self._needed)
        self._say(Verdict.MISSING, what, "a tunnel may open a port on the node.", f"Write `{line}`.")

    async def _credential(self, profile: Profile, form: str) -> Credential:
        return await self._sessions.credential(self._user, profile, form)

    async def _log_in(
        self, node: LoginNode, credential: Credential, user: str = "", tunnel: object = ()
    ) -> asyncssh.SSHClientConnection:
        keys = known_host_keys(self._cluster.known_hosts, node)
        who = user or self._user
        return await log_in(who, node, keys, credential.key, credential.certificate, Limits(), tunnel)

    async def _is_refused(
        self, node: LoginNode, user: str, credential: Credential, tunnel: object = ()
    ) -> bool:
        """Whether sshd refuses the certificate; any other failure is the caller's."""
        try:
            connection = await self._log_in(node, credential, user, tunnel)
        except AccountProblem:
            return True
        connection.close()
        return False

    def _say(self, verdict: Verdict, what: str, found: str, write: str = "") -> None:
        finding = Finding(verdict, what, found, write)
        self._found.append(finding)
        self._report.add(finding)


def _is_from(credential: Credential, address: str) -> bool:
    """Whether a certificate may be used from an address."""
    options = getattr(credential.certificate, "options", {})
    return any(ipaddress.ip_address(address) in network for network in options.get("source-address", ()))


async def _opens(connection: asyncssh.SSHClientConnection, port: int) -> bool | None:
    """Whether a tunnel to a port of the node itself opens; None where it may, and nobody listens."""
    try:
        async with asyncio.timeout(_LIMIT_S):
            _, writer = await connection.open_connection(_LOOPBACK, port)
    except asyncssh.ChannelOpenError as error:
        return False if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED else None
    writer.close()
    return True
