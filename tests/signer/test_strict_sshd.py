"""The strict level of docs/howto/trust-the-authority.md, judged by Debian's sshd and by the doctor."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from hpchub.core.certificate import PLAIN_PRINCIPAL, Profile
from hpchub.doctor.forwards import Forwards, principals_line
from hpchub.doctor.report import Verdict
from hpchub.doctor.sshd_facts import SCRIPT, parse_facts
from hpchub.doctor.sshd_level import Expected, judge
from hpchub.signer.certificates import parse_public_key, sign
from hpchub.signer.keys import load_ca_key, render_ca_public_key
from hpchub.signer.policy import Plan, plan_certificate, plan_grant
from hpchub.signer.settings import SignerSettings
from support.sshd import an_sshd, new_host_key
from support.tree import ROOT

pytestmark = pytest.mark.slow  # a real sshd

FORM = "hpchub:{account}"
_EXAMPLE = ROOT / "docs" / "howto" / "examples" / "hpchub-principals"

# In the namespace /run is root's own all the way up: StrictModes would refuse everybody elsewhere.
_SET_UP = """
mkdir -m 0755 /run/principals
cp "$1"/principals.* /run/principals
for path in /run/principals/principals.*; do mv "$path" "/run/principals/${path##*.}"; done
shift
exec "$@"
"""


@dataclass
class Strict:
    """A running sshd at the strict level, and the policy that it is for."""

    port: int
    host_key: asyncssh.SSHKey
    settings: SignerSettings
    facts: Callable[..., Awaitable[str]]

    def plan(self, key: Any, profile: Profile = Profile.CONTROL, form: str = FORM) -> Plan:
        """What alice's certificate would be now."""
        now = int(time.time())
        policy = replace(self.settings.policy, principals=(FORM, PLAIN_PRINCIPAL))
        fingerprint = parse_public_key(key.public).fingerprint
        grant = plan_grant(
            policy, account="alice", factor="password", fingerprint=fingerprint, now=now, grant_id="0" * 32
        )
        return plan_certificate(
            policy, grant, profile=profile, fingerprint=fingerprint, now=now, serial=9, form=form
        )

    async def connect(self, key: Any, plan: Plan, user: str = "alice") -> asyncssh.SSHClientConnection:
        line = sign(load_ca_key(self.settings.state_dir), parse_public_key(key.public), plan)
        return await self.connect_with(key, line, user)

    async def connect_loosely(self, key: Any, principal: str) -> asyncssh.SSHClientConnection:
        """With asyncssh's defaults, which permit all there is."""
        ca = load_ca_key(self.settings.state_dir)
        loose = ca.generate_user_certificate(key.private, "loose", serial=3, principals=[principal])
        return await self.connect_with(key, loose.export_certificate("openssh").decode())

    async def connect_with(self, key: Any, line: str, user: str = "alice") -> asyncssh.SSHClientConnection:
        return await asyncssh.connect(
            "127.0.0.1",
            self.port,
            username=user,
            client_keys=[(key.private, asyncssh.import_certificate(line))],
            known_hosts=([self.host_key.convert_to_public()], [], []),
            config=None,
            agent_path=None,
            preferred_auth=("publickey",),
        )


@pytest.fixture
def strict(settings: SignerSettings, namespace: tuple[str, ...], tmp_path: Path) -> Iterator[Strict]:
    """sshd with the how-to's settings; alice has a file of principals, bob and root have wrong ones."""
    folder = tmp_path / "sshd"
    folder.mkdir(mode=0o755)
    host_key = new_host_key(folder)
    (folder / "ca.pub").write_text(render_ca_public_key(load_ca_key(settings.state_dir)) + "\n")
    lines = [principals_line("hpchub:alice", "127.0.0.1", Forwards.SOCKETS)]
    lines += [principals_line(f"hpchub:{kind.name}", "127.0.0.1", kind) for kind in Forwards]
    (folder / "principals.alice").write_text("\n".join(lines) + "\n")
    (folder / "principals.bob").write_text(
        principals_line("hpchub:alice", "192.0.2.7", Forwards.SOCKETS) + "\n"
    )
    (folder / "principals.root").write_text(
        principals_line("hpchub:alice", "127.0.0.1", Forwards.SOCKETS) + "\n"
    )
    assert settings.krl_file is not None
    settings.krl_file.touch()
    lines = [
        f"TrustedUserCAKeys {folder}/ca.pub",
        "AuthorizedPrincipalsFile /run/principals/%u",
        f"RevokedKeys {settings.krl_file}",
        "PermitRootLogin no",
        "Match User slurmwatch",
        "AuthorizedPrincipalsFile none",
        "AuthorizedPrincipalsCommand /run/principals/command %u",
        "AuthorizedPrincipalsCommandUser alice",
    ]
    text = _EXAMPLE.read_text().replace("hpcusers", "users").replace("192.0.2.10", "127.0.0.1")
    (folder / "principals.command").write_text(text)
    (folder / "principals.command").chmod(0o755)
    prefix = [*namespace, "/bin/sh", "-euc", _SET_UP, "set-up", str(folder)]

    async def facts(user: str = "alice", address: str = "127.0.0.1", spoil: str = "true") -> str:
        """What the script tells, after a command that changes something in the namespace."""
        script = ["sh", str(SCRIPT), user, address, "-f", str(folder / "sshd_config")]
        told = await asyncio.create_subprocess_exec(
            *prefix, "sh", "-c", f'{spoil}; exec "$@"', "sh", *script,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )  # fmt: skip
        return (await told.communicate())[0].decode()

    with an_sshd(folder, prefix, *lines) as port:
        yield Strict(port, host_key, settings, facts)


async def test_who_gets_in(strict: Strict, user_key: Any) -> None:
    """The form that the file lists, from where it says, and nobody else: no plain name, no root, no other."""
    async with await strict.connect(user_key, strict.plan(user_key)) as connection:
        assert (await connection.run("id -un")).stdout == "alice\n"
    with pytest.raises(asyncssh.PermissionDenied):  # the account's name alone
        await strict.connect(user_key, strict.plan(user_key, form=PLAIN_PRINCIPAL))
    with pytest.raises(asyncssh.PermissionDenied):  # the principal is listed, the source is another
        await strict.connect(user_key, strict.plan(user_key), user="bob")
    with pytest.raises(asyncssh.PermissionDenied):  # listed, and yet root
        await strict.connect(user_key, strict.plan(user_key), user="root")


async def test_a_program_may_answer_instead_of_files(strict: Strict, user_key: Any) -> None:
    """The how-to's example lets members of a group in; the doctor asks it as sshd would."""
    plan = strict.plan(user_key)
    with pytest.raises(asyncssh.PermissionDenied):
        await strict.connect(user_key, plan, user="slurmwatch")
    theirs = replace(plan, account="slurmwatch", principal="hpchub:slurmwatch")
    async with await strict.connect(user_key, theirs, user="slurmwatch") as connection:
        assert (await connection.run("id -un")).stdout == "slurmwatch\n"
    facts = parse_facts(await strict.facts("slurmwatch"))
    found = {one.what: one for one in judge(facts, Expected(principal="hpchub:slurmwatch"))}
    assert found["principals"].verdict is found["permitopen="].verdict is Verdict.OK
    nobody = await strict.facts("slurmwatch", spoil="sed -i s/users/others/ /run/principals/command")
    found = {one.what: one for one in judge(parse_facts(nobody), Expected(principal="hpchub:slurmwatch"))}
    assert found["principals"].verdict is Verdict.FAILED


async def test_what_a_tunnel_may(strict: Strict, user_key: Any, tmp_path: Path) -> None:
    """What forwards.py says of each kind of cluster, with a certificate that permits everything."""
    for kind, port_open, port_22_open, sockets in (
        (Forwards.SOCKETS, True, True, True),
        (Forwards.NODES, False, True, False),  # sshd holds sockets to permitopen as well
        (Forwards.NOTHING, False, False, False),
    ):
        async with await strict.connect_loosely(user_key, f"hpchub:{kind.name}") as connection:
            assert await _opens(connection.open_connection("127.0.0.1", strict.port)) is port_open
            assert await _opens(connection.open_connection("127.0.0.1", 22)) is port_22_open
            path = str(tmp_path / "homes" / "alice" / f"{kind.name}.sock")
            assert await _carries_sockets(connection, path) is sockets
            with pytest.raises(asyncssh.ChannelListenError):
                await connection.start_server(lambda *_: False, "127.0.0.1", 0)
            with pytest.raises(asyncssh.ChannelOpenError, match="PTY"):
                await connection.create_process("true", term_type="dumb")


async def _opens(opening: Awaitable[Any]) -> bool:
    """Whether sshd permits it; that nobody listens is another matter."""
    try:
        await opening
    except asyncssh.ChannelOpenError as error:
        return error.code != asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED
    return True


async def _carries_sockets(connection: asyncssh.SSHClientConnection, path: str) -> bool:
    """Whether a socket there leads to us and back."""

    async def answer(reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]) -> None:
        writer.write(await reader.readline())
        writer.close()

    try:
        async with await connection.start_unix_server(lambda: answer, path, encoding=None):
            reader, writer = await connection.open_unix_connection(path, encoding=None)
            writer.write(b"word\n")
            return await reader.readline() == b"word\n"
    except (asyncssh.ChannelOpenError, asyncssh.ChannelListenError):
        return False


async def test_a_revoked_certificate_is_refused(strict: Strict, user_key: Any) -> None:
    """By the list alone: the certificate is right in all else."""
    plan = strict.plan(user_key)
    (await strict.connect(user_key, plan)).close()
    assert strict.settings.krl_file is not None
    spec = strict.settings.krl_file.with_name("spec")
    spec.write_text(f"serial: {plan.serial}\n")
    ca = strict.settings.krl_file.with_name("ca.pub")
    ca.write_text(render_ca_public_key(load_ca_key(strict.settings.state_dir)) + "\n")
    argv = ["ssh-keygen", "-q", "-k", "-f", str(strict.settings.krl_file), "-s", str(ca), str(spec)]
    subprocess.run(argv, check=True)
    with pytest.raises(asyncssh.PermissionDenied):
        await strict.connect(user_key, plan)
    (await strict.connect(user_key, replace(plan, serial=plan.serial + 1))).close()


@pytest.mark.parametrize(
    ("spoil", "what", "verdict", "says"),
    [
        ("true", "revokedkeys", Verdict.MISSING, "is empty"),
        ("chmod 0777 /run/principals", "principals", Verdict.FAILED, "mode 0777: sshd refuses everybody"),
        ("chown 7 /run/principals/alice", "principals", Verdict.FAILED, "user id 7: sshd refuses everybody"),
        ("rm /run/principals/alice", "principals", Verdict.FAILED, "is not there"),
        (
            "echo hpchub:bob >/run/principals/alice",
            "principals",
            Verdict.FAILED,
            "none of them is hpchub:alice",
        ),
        ("echo alice >>/run/principals/alice", "principal form", Verdict.MISSING, "only names the account"),
        ("echo hpchub:alice >/run/principals/alice", "from=", Verdict.MISSING, "from anywhere"),
        ("echo hpchub:alice >/run/principals/alice", "restrict", Verdict.MISSING, "by default is permitted"),
        ("sed -i s/permitlisten/permitopen/ /run/principals/alice", "permitopen=", Verdict.FAILED, "sockets"),
        ("echo hpchub:alice >/run/principals/alice", "permitlisten=", Verdict.MISSING, "open a port"),
        (
            "echo restrict hpchub:alice >/run/principals/alice",
            "port-forwarding",
            Verdict.FAILED,
            "tunnel away",
        ),
    ],
)
async def test_the_doctor_sees_what_is_wrong(
    strict: Strict, spoil: str, what: str, verdict: Verdict, says: str
) -> None:
    """Each departure from the level is found in what the real sshd says, and what to write is told."""
    facts = parse_facts(await strict.facts(spoil=spoil))
    (found,) = (one for one in judge(facts, Expected(principal="hpchub:alice")) if one.what == what)
    assert found.verdict is verdict and says in found.found
    assert found.write


async def test_the_doctor_is_content_with_the_strict_level(strict: Strict) -> None:
    """Nothing fails and nothing lacks but entries of the list; another authority in the file is noticed."""
    authority = render_ca_public_key(load_ca_key(strict.settings.state_dir))
    found = judge(parse_facts(await strict.facts()), Expected(principal="hpchub:alice", authority=authority))
    assert [one.what for one in found if one.verdict in {Verdict.MISSING, Verdict.FAILED}] == ["revokedkeys"]
    assert found[-1].found == "one line; the strict one lacks revokedkeys"
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    found = judge(parse_facts(await strict.facts()), Expected(principal="hpchub:alice", authority=other))
    assert [one.what for one in found if one.verdict is Verdict.FAILED] == ["trustedusercakeys"]
