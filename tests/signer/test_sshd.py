"""Certificates of ours, judged by the one verifier that counts: Debian's sshd."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.signer.certificates import parse_public_key, sign
from hpchub.signer.client import SignerClient
from hpchub.signer.kerberos_proof import KerberosSettings
from hpchub.signer.keys import load_ca_key, render_ca_public_key
from hpchub.signer.ldap_settings import LdapSettings
from hpchub.signer.policy import Plan, plan_certificate, plan_grant
from hpchub.signer.server import running
from hpchub.signer.settings import ProofKind, ProofSettings, SignerSettings
from support import directory as directory_tree
from support import kdc as realm
from support.directory import Directory
from support.kdc import Kdc
from support.sshd import an_sshd, new_host_key


@dataclass
class Sshd:
    """A running sshd that trusts the signer's authority."""

    port: int
    log: Path
    known_hosts: bytes

    @asynccontextmanager
    async def connect(
        self, user: str, key: Any, certificate: str
    ) -> AsyncIterator[asyncssh.SSHClientConnection]:
        async with asyncssh.connect(
            "127.0.0.1",
            self.port,
            username=user,
            client_keys=[(key.private, asyncssh.import_certificate(certificate))],
            known_hosts=asyncssh.import_known_hosts(self.known_hosts.decode()),
            config=None,
            agent_path=None,
            preferred_auth=("publickey",),
        ) as connection:
            yield connection


@pytest.fixture
def sshd(settings: SignerSettings, namespace: tuple[str, ...], tmp_path: Path) -> Iterator[Sshd]:
    """sshd as Debian ships it, as root on a loopback port, in a namespace with accounts of its own."""
    folder = tmp_path / "sshd"
    folder.mkdir(mode=0o755)
    host_key = new_host_key(folder)
    (folder / "ca.pub").write_text(render_ca_public_key(load_ca_key(settings.state_dir)) + "\n")
    assert settings.krl_file is not None
    settings.krl_file.touch()  # a signer that runs writes it
    trusted = (f"TrustedUserCAKeys {folder}/ca.pub", f"RevokedKeys {settings.krl_file}")
    with an_sshd(
        folder, namespace, *trusted, "AuthenticationMethods publickey", "Subsystem sftp internal-sftp"
    ) as port:
        known = f"[127.0.0.1]:{port} ".encode() + host_key.export_public_key()
        yield Sshd(port, folder / "log", known)


@pytest.fixture
def plan(settings: SignerSettings, user_key: Any) -> Plan:
    """What alice's control certificate would be now."""
    now = int(time.time())
    fingerprint = parse_public_key(user_key.public).fingerprint
    policy = settings.policy
    grant = plan_grant(
        policy, account="alice", factor="password", fingerprint=fingerprint, now=now, grant_id="0" * 32
    )
    return plan_certificate(
        policy, grant, profile=Profile.CONTROL, fingerprint=fingerprint, now=now, serial=5
    )


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()


async def test_a_password_of_the_directory_leads_into_the_cluster(
    sshd: Sshd, settings: SignerSettings, directory: Directory, user_key: Any
) -> None:
    """The whole way with LDAP: a password that only slapd knows, a grant, a certificate, a shell as alice."""
    ldap = LdapSettings(
        servers=(directory.ldap,), ca_file=directory.ca, user_dn=f"uid={{account}},{directory_tree.PEOPLE}"
    )
    signer = SignerClient(settings.socket)
    async with running(replace(settings, proof=ProofSettings(kind=ProofKind.LDAP, ldap=ldap))):
        login = await signer.grant("alice", Secret(directory_tree.PASSWORD), user_key.public, "")
        minted = await signer.certificate(login.grant, user_key.public, Profile.CONTROL)
        async with sshd.connect("alice", user_key, minted.certificate) as connection:
            assert (await connection.run("id -un", check=True)).stdout == "alice\n"


async def test_a_password_of_the_realm_leads_into_the_cluster(
    sshd: Sshd, settings: SignerSettings, kdc: Kdc, user_key: Any
) -> None:
    """The same with Kerberos: a password that only the KDC knows."""
    kerberos = KerberosSettings(
        realm=realm.REALM, service=realm.SERVICE, keytab=kdc.keytab, krb5_conf=kdc.krb5_conf
    )
    signer = SignerClient(settings.socket)
    async with running(replace(settings, proof=ProofSettings(kind=ProofKind.KERBEROS, kerberos=kerberos))):
        login = await signer.grant("alice", Secret(realm.PASSWORD), user_key.public, "")
        minted = await signer.certificate(login.grant, user_key.public, Profile.CONTROL)
        async with sshd.connect("alice", user_key, minted.certificate) as connection:
            assert (await connection.run("id -un", check=True)).stdout == "alice\n"


async def test_control_runs_commands_and_forwards_nothing(
    sshd: Sshd, signer: SignerClient, user_key: Any, tmp_path: Path
) -> None:
    """Commands and SFTP as alice; no TCP or unix forward either way, no terminal, no agent."""
    login = await signer.grant("alice", Secret("canary-alice-77"), user_key.public, "")
    minted = await signer.certificate(login.grant, user_key.public, Profile.CONTROL)
    async with sshd.connect("alice", user_key, minted.certificate) as connection:
        assert (await connection.run("id -un", check=True)).stdout == "alice\n"
        async with connection.start_sftp_client() as sftp:
            assert await sftp.realpath(".") == str(tmp_path / "homes" / "alice")
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", sshd.port)
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_unix_connection("/tmp/x.sock")
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 9)
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_path(str(tmp_path / "homes/alice/x.sock"), "/tmp/y.sock")
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.run("true", term_type="xterm")
    # The join of sshd's log and our audit log.
    log = sshd.log.read_text()
    assert f"ID {minted.key_id} (serial {minted.serial})" in log


async def test_tunnel_forwards_and_runs_nothing(
    sshd: Sshd, signer: SignerClient, user_key: Any, tmp_path: Path
) -> None:
    """TCP and unix forwards both ways; neither command nor SFTP nor terminal."""
    login = await signer.grant("alice", Secret("canary-alice-77"), user_key.public, "")
    minted = await signer.certificate(login.grant, user_key.public, Profile.TUNNEL)
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    home = tmp_path / "homes" / "alice"
    async with server, sshd.connect("alice", user_key, minted.certificate) as connection:
        reader, writer = await connection.open_connection("127.0.0.1", port)
        writer.write(b"over tcp\n")
        assert await reader.readline() == b"over tcp\n"
        writer.close()
        async with await connection.forward_remote_path_to_port(str(home / "back.sock"), "127.0.0.1", port):
            reader, writer = await connection.open_unix_connection(str(home / "back.sock"))
            writer.write(b"over unix, there and back\n")
            assert await reader.readline() == b"over unix, there and back\n"
            writer.close()
        done = await connection.run(f"touch {home}/ran; echo ran")
        assert (done.exit_status, done.stdout) == (1, "")
        assert not (home / "ran").exists()
        with pytest.raises((asyncssh.SFTPError, asyncssh.ChannelOpenError, asyncssh.ConnectionLost)):
            await connection.start_sftp_client()
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.run("true", term_type="xterm")


async def test_query_asks_and_does_nothing_else(
    sshd: Sshd, signer: SignerClient, user_key: Any, tmp_path: Path
) -> None:
    """Neither the command that is asked for, nor a shell, SFTP, terminal or forward: only the query runs."""
    minted = await signer.query_certificate("slurmwatch", user_key.public)
    home = tmp_path / "homes" / "slurmwatch"
    async with sshd.connect("slurmwatch", user_key, minted.certificate) as connection:
        for command in (f"touch {home}/ran; id", None):
            done = await connection.run(command, input="hpchub-0f\nid - 42\n")
            assert (done.exit_status, done.stdout) == (64, "hpchub-0f\n")
        done = await connection.run("id", input="hpchub-0f\nstatus - 42\n")
        assert "squeue" in done.stderr or done.stdout == "hpchub-0f\n"
        assert not (home / "ran").exists()
        with pytest.raises(TimeoutError):  # the query waits for a line, and answers nothing to SFTP
            async with asyncio.timeout(0.5):
                await connection.start_sftp_client()
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", sshd.port)
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_unix_connection("/tmp/x.sock")
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 9)
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_path(str(home / "x.sock"), "/tmp/y.sock")
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.run("id", term_type="xterm")
    for user in ("alice", "root"):
        with pytest.raises(asyncssh.PermissionDenied):
            async with sshd.connect(user, user_key, minted.certificate):
                pass


async def test_only_ones_own_account(sshd: Sshd, signer: SignerClient, user_key: Any, other_key: Any) -> None:
    """alice's certificate opens neither bob's account nor root's, and none with another private key."""
    login = await signer.grant("alice", Secret("canary-alice-77"), user_key.public, "")
    minted = await signer.certificate(login.grant, user_key.public, Profile.CONTROL)
    for user in ("bob", "root", "carol"):
        with pytest.raises(asyncssh.PermissionDenied):
            async with sshd.connect(user, user_key, minted.certificate):
                pass
    with pytest.raises(ValueError, match="key mismatch"):
        async with sshd.connect("alice", other_key, minted.certificate):
            pass
    async with sshd.connect("alice", user_key, minted.certificate) as connection:
        assert (await connection.run("true")).exit_status == 0


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("expired", "Certificate invalid: expired"),
        ("not yet valid", "Certificate invalid: not yet valid"),
        ("wrong source", "not from a permitted source address"),
        ("foreign authority", ""),
        ("good", "Accepted publickey for alice"),
    ],
)
async def test_sshd_keeps_every_bound(
    sshd: Sshd, settings: SignerSettings, user_key: Any, plan: Plan, fault: str, said: str
) -> None:
    """Expired, early, from elsewhere, by a stranger: refused. The same certificate in order: accepted."""
    authority_key = load_ca_key(settings.state_dir)
    now = int(time.time())
    if fault == "expired":
        plan = replace(plan, valid_after=now - 600, valid_before=now - 1)
    elif fault == "not yet valid":
        plan = replace(plan, valid_after=now + 60, valid_before=now + 600)
    elif fault == "wrong source":
        plan = replace(plan, source_addresses=("192.0.2.0/24",))
    elif fault == "foreign authority":
        authority_key = asyncssh.generate_private_key("ssh-ed25519")
    certificate = sign(authority_key, parse_public_key(user_key.public), plan)
    if fault == "good":
        async with sshd.connect("alice", user_key, certificate) as connection:
            assert (await connection.run("id -un")).stdout == "alice\n"
    else:
        with pytest.raises(asyncssh.PermissionDenied):
            async with sshd.connect("alice", user_key, certificate):
                pass
    assert said in sshd.log.read_text()


async def test_what_is_revoked_is_refused(
    sshd: Sshd, signer: SignerClient, settings: SignerSettings, user_key: Any, other_key: Any
) -> None:
    """By serial, key id, key, fingerprint and user: sshd refuses the next login, and nobody else's."""
    assert settings.krl_file is not None

    async def enters(user: str, key: Any, certificate: str) -> bool:
        try:
            async with sshd.connect(user, key, certificate):
                return True
        except asyncssh.PermissionDenied:
            return False

    bob = await signer.grant("bob", Secret("canary-bob-78"), other_key.public, "")
    others = await signer.certificate(bob.grant, other_key.public, Profile.CONTROL)
    for how in ("serial", "key id", "key", "fingerprint", "user"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        mine = replace(user_key, private=key, public=key.export_public_key("openssh").decode())
        login = await signer.grant("alice", Secret("canary-alice-77"), mine.public, "")
        minted = await signer.certificate(login.grant, mine.public, Profile.CONTROL)
        tunnel = await signer.certificate(login.grant, mine.public, Profile.TUNNEL)
        assert await enters("alice", mine, minted.certificate)
        target = {
            "serial": str(minted.serial),
            "key id": minted.key_id,
            "key": mine.public,
            "fingerprint": key.get_fingerprint(),
            "user": "alice",
        }[how]
        await signer.revoke(target, reason="test", by="tests")
        assert not await enters("alice", mine, minted.certificate), how
        assert not await enters("alice", mine, tunnel.certificate), how
        assert await enters("bob", other_key, others.certificate)
    settings.krl_file.unlink()
    assert not await enters("bob", other_key, others.certificate)  # as the how-to warns
