"""The doctor with a real signer, a real bridge and a real sshd: what is well, and what it finds."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import asyncssh
import pytest
from bridge.conftest import CHEAP, PASSWORD
from ssh.conftest import USER, known_hosts_line, start_sshd, stop_sshd

from hpchub.bridge.client import BridgeClient
from hpchub.bridge.server import make_bridge_app
from hpchub.bridge.service import Service
from hpchub.bridge.settings import BridgeSettings
from hpchub.bridge.store import Store
from hpchub.cli import main
from hpchub.core.cluster_file import load_clusters
from hpchub.core.secret import Secret
from hpchub.doctor import revocation_probe
from hpchub.doctor.command import check_all
from hpchub.doctor.forwards import Forwards, principals_line
from hpchub.doctor.hub_side import Person
from hpchub.doctor.job import log_in_to_bridge
from hpchub.doctor.report import Report
from hpchub.errors import HostUnreachable
from hpchub.local_api.server import listening
from hpchub.signer.ca_keys import load_ca_key
from hpchub.signer.client import SignerClient
from hpchub.signer.factor_key import make_factor_key
from hpchub.signer.factor_settings import FactorSettings, Required
from hpchub.signer.keys import init_keys, render_ca_public_key
from hpchub.signer.oidc_settings import OidcSettings
from hpchub.signer.password_file import set_password
from hpchub.signer.server import running
from hpchub.signer.settings import ProofKind, ProofSettings, SignerSettings
from hpchub.ssh.key_agent import KeyAgent
from support import require
from support.folders import let_others_pass
from support.ports import free_port

FORM = "hpchub:{account}"

CLUSTER = """
title = "Alpha"
known_hosts = "known_hosts"
principal = "{principal}"
[[login_nodes]]
name = "login1"
address = "127.0.0.1"
port = {port}
[placements.login]
[environments.base]
prefix = "/usr"
"""


@dataclass
class Site:
    """A cluster of one login node. `port` is where its sshd listens."""

    settings: BridgeSettings
    host_key: asyncssh.SSHKey
    ca: asyncssh.SSHKey
    principal: str = "{account}"
    lines: list[str] = field(default_factory=list)

    @contextmanager
    def node(self, extra: str = "", known: asyncssh.SSHKey | None = None) -> Iterator[int]:
        node = start_sshd(self.ca, self.host_key, "/bin/bash", extra)
        try:
            self.describe(node.port, known or self.host_key)
            yield node.port
        finally:
            stop_sshd(node)

    def describe(self, port: int, known: asyncssh.SSHKey) -> None:
        folder = self.settings.clusters
        folder.mkdir()
        (folder / "known_hosts").write_text(known_hosts_line(f"[127.0.0.1]:{port}", known))
        (folder / "alpha.toml").write_text(CLUSTER.format(port=port, principal=self.principal))

    async def ask(self, password: str | None = PASSWORD, *, revoke: bool = False) -> dict[str, str]:
        """What the doctor says: each check's name, and its verdict with what it found."""
        self.lines.clear()
        report = Report(self.lines.append)
        person = Person(USER, None if password is None else Secret(password))
        clusters = load_clusters(self.settings.clusters)
        await check_all(report, self.settings, clusters, person, with_job=False, revoke=revoke)
        assert not password or password not in "".join(self.lines)
        failed = [line for line in self.lines if line.startswith("failed")]
        assert report.failed == len(failed)
        told = {}
        for line in self.lines:
            what, _, found = line[9:].partition(": ")
            told[what] = f"{line[:9].strip()} {found}"
        return told


@pytest.fixture
def signer_settings(signer_settings: SignerSettings, tmp_path: Path) -> SignerSettings:
    """Both forms of principals, and a revocation list where the account of the node can read it."""
    policy = replace(signer_settings.policy, principals=("{account}", FORM))
    (tmp_path / "etc").mkdir()
    let_others_pass(tmp_path / "etc")
    return replace(signer_settings, policy=policy, krl_file=tmp_path / "etc" / "revoked_keys")


@pytest.fixture
def site(
    tmp_path: Path, short_dir: Path, signer: SignerClient, signer_settings: SignerSettings, agent: KeyAgent
) -> Site:
    require.root()
    require.programs("sshd", "unshare", "setpriv")
    assert signer_settings.proof.file is not None
    set_password(signer_settings.proof.file, USER, Secret(PASSWORD), CHEAP)
    run = short_dir / "b"
    run.mkdir(mode=0o700)
    settings = BridgeSettings(
        runtime_dir=run, socket=run / "bridge.sock", signer_socket=signer_settings.socket,
        agent_socket=agent.socket, hub_socket=short_dir / "hub.sock", clusters=tmp_path / "clusters.d",
        database="sqlite://",
    )  # fmt: skip
    public = asyncssh.import_public_key(render_ca_public_key(load_ca_key(signer_settings.state_dir)))
    return Site(settings, asyncssh.generate_private_key("ssh-ed25519"), public)


@pytest.fixture
def strict(site: Site, tmp_path: Path) -> str:
    """What sshd's settings have more at the strict level. It is not root's, so StrictModes must be off."""
    site.principal = FORM
    line = principals_line(f"hpchub:{USER}", "127.0.0.1", Forwards.SOCKETS)
    (tmp_path / "etc" / "principals").write_text(line + "\n")
    return (
        f"StrictModes no\nAuthorizedPrincipalsFile {tmp_path}/etc/principals\n"
        f"RevokedKeys {tmp_path}/etc/revoked_keys\n"
    )


@asynccontextmanager
async def a_bridge(site: Site, store: Store) -> AsyncIterator[None]:
    service = Service(
        site.settings, load_clusters(site.settings.clusters), store, KeyAgent(site.settings.agent_socket)
    )
    async with listening(make_bridge_app(service), site.settings.socket), service:
        yield


@pytest.mark.slow
async def test_all_is_well(site: Site, store: Store) -> None:
    """Every hop is tried and told; the certificates' principal, end and options are shown."""
    with site.node() as port:
        async with a_bridge(site, store):
            found = await site.ask()
    assert not any(verdict.startswith("failed") for verdict in found.values())
    assert f"principal {USER}" in found["certificate control"]
    assert "permit-port-forwarding" in found["certificate tunnel"]
    assert "permit-port-forwarding" not in found["certificate control"]
    assert f"127.0.0.1:{port} answers (SSH-2.0-OpenSSH" in found["alpha login1 TCP"]
    for what in ("key agent", "signer", "bridge", f"login of {USER}", "alpha login1 host key",
                 "alpha login1 login", "alpha login1 shell", "alpha login1 home",
                 "alpha login1 forwarding"):  # fmt: skip
        assert found[what].startswith("ok "), what
    assert found["alpha login1 scheduler"].startswith("note not asked")
    level = found["alpha login1 level, as far as one can try"]
    assert level == "note one line; the strict one lacks alpha login1 principals, alpha login1 permitlisten="


@pytest.mark.slow
async def test_the_strict_level(site: Site, strict: str) -> None:
    """Found by trying; a revoked login is refused by what the node reads of the signer's list."""
    with site.node(strict):
        found = await site.ask(revoke=True)
    assert found["alpha login1 principals"] == f"ok hpchub:{USER} was let in, so sshd goes by a list"
    assert found["alpha login1 plain name"] == "ok a certificate that only names the account is refused"
    for what in ("forwarding", "root", "control", "permitlisten=", "revocation"):
        assert found[f"alpha login1 {what}"].startswith("ok "), found
    assert found["alpha login1 level, as far as one can try"] == "note strict"


@pytest.mark.slow
async def test_short_of_the_strict_level(site: Site, strict: str, tmp_path: Path) -> None:
    """A plain name beside the other is found, and so is a list that never comes."""
    with (tmp_path / "etc" / "principals").open("a") as file:
        file.write(f"{USER}\n")
    with site.node(strict.replace("RevokedKeys", "#")), pytest.MonkeyPatch.context() as patch:
        patch.setattr(revocation_probe, "LIMIT_S", 0.1)
        patch.setattr(revocation_probe, "PAUSE_S", 0.1)
        found = await site.ask(revoke=True)
    assert found["alpha login1 plain name"].startswith(
        "missing a certificate that only names the account is let"
    )
    assert found["alpha login1 revocation"].startswith("missing a revoked certificate is let in after")


@pytest.mark.slow
async def test_permitopen_where_sockets_are_needed(site: Site, strict: str, tmp_path: Path) -> None:
    """The one option too many is told by what it breaks, and the hint names it."""
    path = tmp_path / "etc" / "principals"
    path.write_text(path.read_text().replace("permitlisten", "permitopen"))
    with site.node(strict):
        found = await site.ask()
    assert found["alpha login1 forwarding"].startswith("failed sshd on login1 does not forward unix sockets")
    assert "permitopen" in found["alpha login1 forwarding"]
    assert found["alpha login1 permitopen="].startswith("ok ")


@pytest.mark.slow
async def test_a_wrong_host_key(site: Site) -> None:
    """It says which file to correct, and goes no further with that node: nothing is sent to a stranger."""
    with site.node(known=asyncssh.generate_private_key("ssh-ed25519")):
        found = await site.ask()
    assert found["alpha login1 host key"].startswith("failed login1 showed a host key that")
    assert str(site.settings.clusters / "known_hosts") in found["alpha login1 host key"]
    assert list(found)[-1] == "alpha login1 host key"


@pytest.mark.slow
async def test_no_forwarding(site: Site) -> None:
    """A login node that forwards nothing is found before anybody's notebook waits for it."""
    with site.node("AllowTcpForwarding no\n"):
        found = await site.ask()
    assert found["alpha login1 forwarding"].startswith("failed sshd on login1 does not forward unix sockets")
    assert found["alpha login1 home"].startswith("ok ")


@pytest.mark.slow
async def test_an_authority_that_sshd_does_not_trust(site: Site) -> None:
    """The host is right and the login is not: each is told by itself."""
    site.ca = asyncssh.generate_private_key("ssh-ed25519")
    with site.node():
        found = await site.ask()
    assert found["alpha login1 host key"].startswith("ok ")
    assert "does not trust the hub's certificate authority" in found["alpha login1 login"]
    assert "alpha login1 home" not in found


async def test_nobody_listens(site: Site) -> None:
    """A wrong address or a firewall is a matter of TCP; a bridge that does not run is told too."""
    site.describe(free_port(), site.host_key)
    found = await site.ask()
    assert "connection refused" in found["alpha login1 TCP"] and "firewall" in found["alpha login1 TCP"]
    assert found["bridge"].startswith("failed The hub's bridge does not answer")


async def test_a_wrong_password(site: Site) -> None:
    """The login fails, and what needs it is not tried."""
    site.describe(free_port(), site.host_key)
    found = await site.ask("canary-wrong")
    assert list(found) == ["key agent", "signer", "bridge", f"login of {USER}"]
    assert "audit log has the true reason" in found[f"login of {USER}"]


async def signer_of(
    site: Site, folder: Path, settings: SignerSettings, stack: AsyncExitStack
) -> SignerClient:
    """Another signer on a socket of its own, which the doctor then asks."""
    settings = replace(settings, socket=folder / "other.sock", state_dir=folder / "state", krl_file=None)
    init_keys(settings.state_dir)
    make_factor_key(settings.factor_key)
    await stack.enter_async_context(running(settings))
    site.settings = replace(site.settings, signer_socket=settings.socket)
    return SignerClient(settings.socket)


async def test_where_a_password_is_not_all(
    site: Site, short_dir: Path, signer_settings: SignerSettings
) -> None:
    """The doctor says that it has no second factor, or that there is a provider, and what can be tried."""
    site.describe(free_port(), site.host_key)
    folder = short_dir / "other"
    folder.mkdir(mode=0o700)
    both = replace(signer_settings, second_factor=FactorSettings(required=Required.ALL))
    async with AsyncExitStack() as stack:
        await signer_of(site, folder, both, stack)
        found = (await site.ask())[f"login of {USER}"]
        assert "password is right" in found and "(totp)" in found and "--logged-in" in found
        found = (await site.ask("canary-wrong"))[f"login of {USER}"]
        assert "password is wrong, or a second factor (totp)" in found and "audit log" in found
    provider = OidcSettings(issuer="https://localhost:1", client_id="c", account_claim="sub", timeout_s=1)
    by_provider = replace(signer_settings, proof=ProofSettings(kind=ProofKind.OIDC, oidc=provider))
    folder = short_dir / "provider"
    folder.mkdir(mode=0o700)
    async with AsyncExitStack() as stack:
        await signer_of(site, folder, by_provider, stack)
        found = (await site.ask())[f"login of {USER}"]
    assert "at an OpenID provider" in found and "--logged-in" in found and "do not match" not in found


async def test_with_the_login_at_the_hub(site: Site, store: Store, signer: SignerClient) -> None:
    """Without a password: whether the bridge has a login is told, and nothing is tried one by one."""
    site.describe(free_port(), site.host_key)
    async with a_bridge(site, store):
        found = await site.ask(None)
        assert found[f"login of {USER}"].startswith(f"failed {USER} is not logged in at the hub")
        bridge = BridgeClient(site.settings.socket)
        await log_in_to_bridge(signer, bridge, Person(USER, Secret(PASSWORD)))
        found = await site.ask(None)
        assert found[f"login of {USER}"].startswith("ok the one at the hub, until")
        assert list(found)[-1] == "login nodes" and found["login nodes"].startswith("note not tried")
        await bridge.session(USER)


def test_a_line_stays_one_line() -> None:
    """What a login node sends cannot end the line or draw on the terminal."""
    lines: list[str] = []
    Report(lines.append).bad("x", HostUnreachable("one\nok      y: \x1b[2Jfine"))
    assert len(lines) == 1 and "\n" not in lines[0] and "\x1b" not in lines[0]


def refused(config: Path, *more: str) -> int:
    return main(["doctor", "--config", str(config), "--user", "alice", *more])


def test_the_password_is_no_argument(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal it must come by a descriptor; two lines, or none, are no password."""
    config = tmp_path / "bridge.toml"
    config.write_text(
        'runtime_dir = "/run/r"\nsigner_socket = "s"\nagent_socket = "a"\nhub_socket = "h"\n'
        'clusters = "clusters.d"\ndatabase = "sqlite://"\n'
    )
    (tmp_path / "clusters.d").mkdir()
    (tmp_path / "clusters.d" / "known_hosts").touch()
    (tmp_path / "clusters.d" / "alpha.toml").write_text(CLUSTER.format(port=22, principal="{account}"))
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert refused(config) == 1 and "--password-fd" in capsys.readouterr().err
    for typed in (b"", b"one\ntwo\n", b"\xff\n"):
        reading, writing = os.pipe()
        os.write(writing, typed)
        os.close(writing)
        assert refused(config, "--password-fd", str(reading)) == 1
        assert "holds no password" in capsys.readouterr().err
    assert refused(config, "--logged-in", "--revoke") == 1
    assert "goes with neither" in capsys.readouterr().err
    assert refused(config, "--cluster", "beta") == 1
    assert "no cluster 'beta'" in capsys.readouterr().err
