"""One authority follows another, and one vouches for hosts: as docs/howto has it, judged by sshd and ssh."""

from __future__ import annotations

import asyncio
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from hpchub.cli import main
from hpchub.core.certificate import Profile
from hpchub.core.cluster import LoginNode
from hpchub.core.secret import Secret
from hpchub.errors import HostKeyMismatch, InvalidRequest
from hpchub.signer.ca_keys import (
    load_ca_key,
    make_next_ca_key,
    other_keys,
    retire_ca_key,
    switch_ca_key,
    switch_ca_key_back,
)
from hpchub.signer.certificate_bytes import Kind
from hpchub.signer.certificates import line_of, parse_public_key
from hpchub.signer.client import SignerClient
from hpchub.signer.host_certificates import known_hosts_line, plan_host_certificate, sign_host_certificate
from hpchub.signer.issuer_settings import CaKind, CaSettings
from hpchub.signer.server import running
from hpchub.signer.settings import SignerSettings
from hpchub.ssh.connect import known_host_keys, log_in
from hpchub.ssh.limits import Limits
from support.ca_agent import a_ca_agent, add_key
from support.sshd import an_sshd, new_host_key

QUICK = Limits(connect_timeout_s=3, login_timeout_s=5, keepalive_interval_s=5, keepalive_tries=2)


@pytest.fixture
def config(settings: SignerSettings) -> Path:
    """A `signer.toml` with the settings of the fixture."""
    path = settings.state_dir.with_name("signer.toml")
    path.write_text(
        'socket = "run/signer.sock"\nstate_dir = "state"\naudit_log = "audit.jsonl"\n'
        'source_addresses = ["127.0.0.1"]\n[proof]\nkind = "password-file"\nfile = "passwords"\n'
    )
    return path


def act(config: Path, capsys: pytest.CaptureFixture[str], *action: str, code: int = 0) -> list[str]:
    """What an action of `hpchub signer` prints."""
    capsys.readouterr()
    assert main(["signer", "--config", str(config), *action]) == code
    return capsys.readouterr().out.splitlines()


async def certificate(settings: SignerSettings, user_key: Any) -> str:
    """alice's, from a signer that is started for it."""
    async with running(settings):
        signer = SignerClient(settings.socket)
        login = await signer.grant("alice", Secret("canary-alice-77"), user_key.public, "")
        minted = await signer.certificate(login.grant, user_key.public, Profile.CONTROL)
    return minted.certificate


async def enters(port: int, host: asyncssh.SSHKey, user_key: Any, line: str) -> bool:
    """Whether sshd, which must be that host, lets alice in with it."""
    try:
        async with asyncssh.connect(
            "127.0.0.1",
            port,
            username="alice",
            client_keys=[(user_key.private, asyncssh.import_certificate(line))],
            known_hosts=([host.convert_to_public()], [], []),
            config=None,
            agent_path=None,
            preferred_auth=("publickey",),
        ) as connection:
            return (await connection.run("id -un")).stdout == "alice\n"
    except asyncssh.PermissionDenied:
        return False


@pytest.mark.slow
async def test_a_key_follows_another_and_nobody_is_locked_out(
    settings: SignerSettings,
    config: Path,
    namespace: tuple[str, ...],
    user_key: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Step by step as the how-to says: at each one sshd takes all that is still to be taken, and no more."""
    folder = tmp_path / "sshd"
    folder.mkdir(mode=0o755)
    host = new_host_key(folder)
    trusted = folder / "ca.pub"
    krl = settings.krl_file
    assert krl is not None
    krl.touch()
    lines = (f"TrustedUserCAKeys {trusted}", f"RevokedKeys {krl}")
    trusted.write_text("\n".join(act(config, capsys, "ca-key")) + "\n")
    with an_sshd(folder, namespace, *lines) as port:
        old = await certificate(settings, user_key)
        both = act(config, capsys, "next-ca-key")
        assert len(both) == 2 and both == act(config, capsys, "ca-key")
        trusted.write_text("\n".join(both) + "\n")
        act(config, capsys, "switch-ca-key")
        new = await certificate(settings, user_key)
        assert await enters(port, host, user_key, old) and await enters(port, host, user_key, new)
        # A revocation between the two concerns what either has signed.
        async with running(settings):
            await SignerClient(settings.socket).revoke("alice", reason="test", by="tests")
        assert not await enters(port, host, user_key, old) and not await enters(port, host, user_key, new)
        krl.write_bytes(b"")
        last = await asyncio.to_thread(act, config, capsys, "retire-ca-key")
        assert last == [both[1]]
        trusted.write_text("\n".join(last) + "\n")
        assert not await enters(port, host, user_key, old)
        assert await enters(port, host, user_key, new)
    records = [json.loads(line) for line in settings.audit_log.read_text().splitlines()]
    signed_by = [one["authority"] for one in records if one["event"] == "certificate"]
    assert signed_by == [parse_public_key(line).fingerprint for line in both]
    changes = [one["reason"] for one in records if one["event"] == "ca-changed"]
    assert changes == ["next key made", "switched", "old key retired"]


@pytest.mark.slow
async def test_sshd_takes_what_an_agent_has_signed(
    settings: SignerSettings, namespace: tuple[str, ...], user_key: Any, tmp_path: Path
) -> None:
    """With each kind of key; and not once the line is gone from TrustedUserCAKeys, or by another key."""
    folder = tmp_path / "sshd"
    folder.mkdir(mode=0o755)
    host = new_host_key(folder)
    trusted = folder / "ca.pub"
    trusted.touch()
    kinds: dict[str, dict[str, int]] = {
        "ssh-ed25519": {},
        "ecdsa-sha2-nistp256": {},
        "ssh-rsa": {"key_size": 3072},
    }
    with an_sshd(folder, namespace, f"TrustedUserCAKeys {trusted}") as port, a_ca_agent(tmp_path) as agent:
        for kind, size in kinds.items():
            key = asyncssh.generate_private_key(kind, **size)
            add_key(agent, key)
            ca = CaSettings(kind=CaKind.AGENT, public_key=line_of(key), agent_socket=agent)
            made = await certificate(replace(settings, ca=ca), user_key)
            assert not await enters(port, host, user_key, made), kind
            trusted.write_text(line_of(key) + "\n")
            assert await enters(port, host, user_key, made), kind


def test_no_key_is_lost_on_the_way(settings: SignerSettings) -> None:
    """Back and forth, interrupted in between, out of turn: what signs is one of the two, and both stay."""
    state = settings.state_dir
    first = line_of(load_ca_key(state))
    for act_now in (switch_ca_key, switch_ca_key_back, retire_ca_key):
        with pytest.raises(InvalidRequest):
            act_now(state)
    make_next_ca_key(state)
    (second,) = other_keys(state)
    with pytest.raises(InvalidRequest):
        make_next_ca_key(state)
    (state / "ca_key.old").hardlink_to(state / "ca_key")  # as a crash would leave it
    for present, other in ((second, first), (first, second), (second, first)):
        (switch_ca_key if present == second else switch_ca_key_back)(state)
        assert (line_of(load_ca_key(state)), other_keys(state)) == (present, [other])
    with pytest.raises(InvalidRequest):
        make_next_ca_key(state)
    retire_ca_key(state)
    assert (line_of(load_ca_key(state)), other_keys(state)) == (second, [])
    assert {path.stat().st_mode & 0o777 for path in state.iterdir()} == {0o600}


async def test_the_key_that_a_running_signer_has_is_not_retired(
    settings: SignerSettings, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Until it is restarted it signs with the old key, which login nodes would then refuse."""
    async with running(settings):
        act(config, capsys, "next-ca-key")
        act(config, capsys, "switch-ca-key")
        assert await asyncio.to_thread(main, ["signer", "--config", str(config), "retire-ca-key"]) == 1
        assert "still signs with the old key" in capsys.readouterr().err
        assert (settings.state_dir / "ca_key.old").exists()
        assert "old key retired" not in settings.audit_log.read_text()
    async with running(settings):
        await asyncio.to_thread(act, config, capsys, "retire-ca-key")
    assert not (settings.state_dir / "ca_key.old").exists()


def test_an_authority_elsewhere_changes_elsewhere(
    settings: SignerSettings, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a key in an agent, the settings say which keys are trusted; the files' verbs are refused."""
    keys = [line_of(asyncssh.generate_private_key("ssh-ed25519")) for _ in range(2)]
    config.write_text(
        config.read_text().replace(
            "[proof]",
            f'[ca]\nkind = "agent"\nagent_socket = "a.sock"\npublic_key = "{keys[0]} mine"\n'
            f'also_trusted = ["{keys[1]}"]\n[proof]',
        )
    )
    (settings.state_dir / "ca_key").unlink()
    assert act(config, capsys, "init") == []
    assert act(config, capsys, "ca-key") == [f"{key} hpchub" for key in keys]
    for verb in ("next-ca-key", "switch-ca-key", "retire-ca-key"):
        act(config, capsys, verb, code=1)


@pytest.mark.slow
async def test_a_host_authority_vouches_for_its_hosts_alone(
    settings: SignerSettings,
    config: Path,
    namespace: tuple[str, ...],
    user_key: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The right name by the right authority; no other name, authority or pattern, nothing expired."""
    folder = tmp_path / "sshd"
    folder.mkdir(mode=0o755)
    new_host_key(folder)
    (folder / "ca.pub").write_text(act(config, capsys, "ca-key")[0])
    act(config, capsys, "make-host-ca")
    sign = ("host-certificate", "--name", "login1.example.org", "--name", "login1", "--days", "30")
    (line,) = act(config, capsys, *sign, str(folder / "host_key.pub"))
    (folder / "host_key-cert.pub").write_text(line + "\n")
    (known,) = act(config, capsys, "host-ca-key", "*.example.org", "login1")
    certificates = [asyncssh.import_certificate(await certificate(settings, user_key))]
    lines = (f"HostCertificate {folder}/host_key-cert.pub", f"TrustedUserCAKeys {folder}/ca.pub")
    known_hosts = tmp_path / "known_hosts"

    async def reached(name: str, text: str) -> bool:
        known_hosts.write_text(text + "\n")
        node = LoginNode(name=name, address="127.0.0.1", port=port)
        try:
            host_keys = known_host_keys(known_hosts, node)
            connection = await log_in("alice", node, host_keys, user_key.private, certificates[0], QUICK)
        except HostKeyMismatch:
            return False
        connection.close()
        await connection.wait_closed()
        return True

    with an_sshd(folder, namespace, *lines) as port:
        assert await reached("login1", known) and await reached("login1.example.org", known)
        assert not await reached("login2.example.org", known)  # trusted for it, but certified for another
        assert not await reached(
            "login1", known.replace(",login1 ", " ")
        )  # certified, but not trusted for it
        assert not await reached("login1", known.replace("@cert-authority ", ""))
        assert not await reached("login1", known + "\n" + known.replace("@cert-authority", "@revoked"))
        other = line_of(asyncssh.generate_private_key("ssh-ed25519"))
        users = (folder / "ca.pub").read_text().rstrip()
        for authority in (other, users):
            assert not await reached("login1", f"@cert-authority login1 {authority}")
    for change in ("expired", "user"):
        write_bad_certificate(settings, folder, change)
        with an_sshd(folder, namespace, *lines) as port:
            assert not await reached("login1", known), change
    record = json.loads(settings.audit_log.read_text().splitlines()[1])
    assert (record["event"], record["reason"]) == ("host-certificate", "login1.example.org login1")
    assert f"Serial: {record['serial']}" in ssh_keygen(line)


def write_bad_certificate(settings: SignerSettings, folder: Path, change: str) -> None:
    """By the right authority and for the right name, and yet none that a host may show."""
    key = load_ca_key(settings.state_dir, "host_ca_key")
    public = parse_public_key((folder / "host_key.pub").read_text())
    contents = plan_host_certificate(["login1"], days=1, now=1_000_000_000, serial=5)
    if change == "user":
        contents = replace(contents, kind=Kind.USER, valid_before=2**40)
    line = sign_host_certificate(key, public, contents)
    (folder / "host_key-cert.pub").write_text(line + "\n")


def ssh_keygen(line: str) -> str:
    """What OpenSSH reads in a certificate."""
    done = subprocess.run(
        ["ssh-keygen", "-L", "-f", "-"], input=line + "\n", capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize(
    "names",
    [["*"], ["*.example.org"], ["a,b"], [""], ["Login1"], ["a b"], ["a\n"], ["-a"], ["ä"], [], ["a"] * 17],
)
def test_no_host_certificate_stands_for_others(names: list[str]) -> None:
    """No wildcard, list, empty name or control character; and no lifetime without end."""
    with pytest.raises(InvalidRequest):
        plan_host_certificate(names, days=30, now=1_800_000_000, serial=5)
    for days in (0, -1, 1096):
        with pytest.raises(InvalidRequest):
            plan_host_certificate(["a"], days=days, now=1_800_000_000, serial=5)


def test_a_pattern_for_known_hosts_is_one() -> None:
    """What would end the line, or begin another, is refused."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    assert known_hosts_line(key, ["*.example.org", "[192.0.2.1]:2222"]).startswith(
        "@cert-authority *.example.org,[192.0.2.1]:2222 ssh-ed25519 "
    )
    for pattern in ("", "a b", "a\nb", "!a", "a,b", "@revoked", "|1|x"):
        with pytest.raises(InvalidRequest):
            known_hosts_line(key, [pattern])
