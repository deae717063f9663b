"""Who signs: an agent, Vault, step-ca. Whatever they return is what was planned, or nobody gets it."""

from __future__ import annotations

import base64
import json
import logging
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.errors import ConfigError, HpchubError, RemoteError, SiteError
from hpchub.signer import agent_issuer, issuer_http
from hpchub.signer.agent_issuer import AgentIssuer
from hpchub.signer.answers import Certificate
from hpchub.signer.certificate_bytes import Contents, Kind
from hpchub.signer.certificates import (
    PublicKey,
    line_of,
    parse_public_key,
    sign_contents,
)
from hpchub.signer.client import SignerClient
from hpchub.signer.issuer import issue
from hpchub.signer.issuer_settings import CaKind, CaSettings, make_issuer
from hpchub.signer.policy import Plan, plan_certificate, plan_grant
from hpchub.signer.server import running
from hpchub.signer.settings import SignerSettings
from hpchub.signer.step_issuer import StepIssuer, StepSettings
from hpchub.signer.vault_issuer import VaultSettings
from support import require
from support.ca_agent import a_ca_agent, add_key
from support.https import https
from support.step_ca import PROVISIONER, StepCa, new_provisioner_key
from support.vault import TOKEN, Role, Vault

SHORT_S = 0.3


@pytest.fixture
def plan(settings: SignerSettings, user_key: Any) -> Plan:
    """What alice's tunnel certificate would be now."""
    return plan_for(settings, user_key, Profile.TUNNEL)


def plan_for(settings: SignerSettings, user_key: Any, profile: Profile) -> Plan:
    now = int(time.time())
    fingerprint = parse_public_key(user_key.public).fingerprint
    grant = plan_grant(
        settings.policy,
        account="alice",
        factor="password",
        fingerprint=fingerprint,
        now=now,
        grant_id="0" * 32,
    )
    return plan_certificate(
        settings.policy, grant, profile=profile, fingerprint=fingerprint, now=now, serial=2**63 + 5
    )


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """A real ssh-agent without keys; its socket."""
    tmp_path.chmod(0o700)
    with a_ca_agent(tmp_path) as path:
        yield path


@asynccontextmanager
async def a_vault(vault: Vault, folder: Path) -> AsyncIterator[CaSettings]:
    """What `[ca]` says of it, with a token that it takes."""
    folder.mkdir(mode=0o700)
    (folder / "token").touch(0o600)
    (folder / "token").write_text(TOKEN + "\n")
    async with https(vault.app(), folder) as url:
        settings = VaultSettings(
            address=url, mount="ssh", role="hpchub", token_file=folder / "token", ca_file=folder / "ca.pem"
        )
        yield CaSettings(kind=CaKind.VAULT, public_key=line_of(vault.key), vault=settings)


@asynccontextmanager
async def a_step_ca(step: StepCa, folder: Path) -> AsyncIterator[CaSettings]:
    """What `[ca]` says of it, with the provisioner's key."""
    folder.mkdir(mode=0o700)
    (folder / "provisioner.jwk").touch(0o600)
    (folder / "provisioner.jwk").write_text(json.dumps(step.provisioner_key))
    async with https(step.app(), folder) as url:
        step.url = url
        settings = StepSettings(
            url=url,
            provisioner=PROVISIONER,
            key_file=folder / "provisioner.jwk",
            ca_file=folder / "ca.pem",
        )
        yield CaSettings(kind=CaKind.STEP_CA, public_key=line_of(step.key), step=settings)


async def mint(signer: SignerClient, user_key: Any, profile: Profile) -> Certificate:
    login = await signer.grant("alice", Secret("canary-alice-77"), user_key.public, "")
    return await signer.certificate(login.grant, user_key.public, profile)


def records(settings: SignerSettings) -> list[dict[str, Any]]:
    return [json.loads(line) for line in settings.audit_log.read_text().splitlines()]


# -- the comparison -----------------------------------------------------------------------------


class Lying:
    """Signs with its own key what `change` makes of what was asked."""

    def __init__(self, key: asyncssh.SSHKey, change: dict[str, Any], *, adjusts: bool) -> None:
        self.public_key = line_of(key)
        self.own_key = None
        self.adjusts = adjusts
        self._key = key
        self._change = change

    async def sign(self, public_key: PublicKey, contents: Contents) -> str:
        change = dict(self._change)
        public_key = change.pop("public_key", public_key)
        key = change.pop("by", self._key)
        text: str | None = change.pop("text", None)
        return sign_contents(key, public_key, replace(contents, **change)) if text is None else text

    async def check(self) -> None:
        """It says that all is well."""


_OTHER = asyncssh.generate_private_key("ssh-ed25519")
LIES: dict[str, dict[str, Any]] = {
    "another principal": {"principals": ("root",)},
    "two principals": {"principals": ("alice", "bob")},
    "any principal": {"principals": ()},
    "another key id": {"key_id": "hpchub:bob"},
    "no source address": {"critical_options": {"force-command": "/bin/false"}},
    "no forced command": {"critical_options": {"source-address": "127.0.0.1/32,::1/128"}},
    "one option more": {
        "critical_options": {
            "source-address": "127.0.0.1/32,::1/128",
            "force-command": "/bin/false",
            "verify-required": "",
        }
    },
    "a terminal": {"extensions": frozenset({"permit-port-forwarding", "permit-pty"})},
    "no extension": {"extensions": frozenset()},
    "a host's": {"kind": Kind.HOST},
    "for ever": {"valid_before": 2**64 - 1},
    "too long": {"valid_before": int(time.time()) + 3600},
    "over already": {"valid_before": int(time.time()) - 1},
    "not yet": {"valid_after": int(time.time()) + 3600},
    "since always": {"valid_after": 0},
    "serial 0": {"serial": 0},
    "another authority": {"by": _OTHER},
    "another key": {"public_key": parse_public_key(line_of(_OTHER))},
    "nothing": {"text": ""},
    "garbage": {"text": "ssh-ed25519-cert-v01@openssh.com AAAA"},
    "beyond ASCII": {"text": "caf\u00e9"},
    "the key itself": {"text": line_of(_OTHER)},
}


@pytest.mark.parametrize("adjusts", [False, True])
@pytest.mark.parametrize("lie", LIES)
async def test_what_differs_from_the_plan_never_leaves(
    lie: str, adjusts: bool, plan: Plan, user_key: Any
) -> None:
    """Whoever signs, and however much of the times is left to them: every other field is as planned."""
    issuer = Lying(asyncssh.generate_private_key("ssh-ed25519"), LIES[lie], adjusts=adjusts)
    with pytest.raises(SiteError, match="differs from its plan"):
        await issue(issuer, parse_public_key(user_key.public), plan, int(time.time()))


async def test_who_may_adjust_gets_serial_and_times_within_bounds(plan: Plan, user_key: Any) -> None:
    """Serial, an earlier end and a clock half a minute off are taken as they are; from others nothing is."""
    change = {"serial": 7, "valid_after": plan.valid_after + 30, "valid_before": plan.valid_before - 9}
    key = asyncssh.generate_private_key("ssh-ed25519")
    public = parse_public_key(user_key.public)
    issued = await issue(Lying(key, change, adjusts=True), public, plan, int(time.time()))
    assert issued.plan == replace(plan, **change)  # type: ignore[arg-type]
    with pytest.raises(SiteError, match="differs from its plan in serial, valid after, valid before"):
        await issue(Lying(key, change, adjusts=False), public, plan, int(time.time()))


# -- an agent -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "size"), [("ssh-ed25519", {}), ("ecdsa-sha2-nistp384", {}), ("ssh-rsa", {"key_size": 3072})]
)
async def test_an_agent_signs(
    algorithm: str, size: dict[str, int], agent: Path, settings: SignerSettings, user_key: Any
) -> None:
    """The signer has no CA key of its own then, and the certificates are as with one; RSA with SHA-512."""
    key = asyncssh.generate_private_key(algorithm, **size)
    add_key(agent, key)
    (settings.state_dir / "ca_key").unlink()
    ca = CaSettings(kind=CaKind.AGENT, public_key=line_of(key), agent_socket=agent)
    async with running(replace(settings, ca=ca)):
        signer = SignerClient(settings.socket)
        await signer.ready()
        assert await signer.ca_public_key() == f"{line_of(key)} hpchub"
        minted = await mint(signer, user_key, Profile.CONTROL)
    assert asyncssh.import_certificate(minted.certificate).principals == ["alice"]
    assert algorithm != "ssh-rsa" or b"rsa-sha2-512" in base64.b64decode(minted.certificate.split()[1])
    assert records(settings)[-1]["authority"] == key.get_fingerprint()


async def test_a_token_behind_an_agent_signs(
    agent: Path, settings: SignerSettings, user_key: Any, tmp_path: Path
) -> None:
    """A key that only a PKCS#11 token has (SoftHSM's): ssh-agent asks the token, and we the agent."""
    require.programs("softhsm2-util", "openssl")
    module = Path("/usr/lib/softhsm/libsofthsm2.so").resolve()
    (tmp_path / "tokens").mkdir(mode=0o700)
    key, ask = tmp_path / "key.pem", tmp_path / "ask"
    ask.write_text("#!/bin/sh\necho 1234\n")
    ask.chmod(0o700)
    env = {
        "PATH": "/usr/bin:/bin",
        "SOFTHSM2_CONF": str(tmp_path / "softhsm2.conf"),
        "SSH_AUTH_SOCK": str(agent),
        "SSH_ASKPASS": str(ask),
        "SSH_ASKPASS_REQUIRE": "force",
    }

    def run(*argv: object) -> str:
        return subprocess.run(
            [str(one) for one in argv], env=env, check=True, capture_output=True, text=True
        ).stdout

    run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key)
    run("softhsm2-util", "--init-token", "--free", "--label", "ca", "--pin", "1234", "--so-pin", "5678")
    run("softhsm2-util", "--import", key, "--token", "ca", "--label", "ca", "--id", "01", "--pin", "1234")
    key.unlink()
    run("ssh-add", "-q", "-s", module)
    public = parse_public_key(run("ssh-add", "-L"))
    ca = CaSettings(kind=CaKind.AGENT, public_key=public.line, agent_socket=agent)
    async with running(replace(settings, ca=ca)):
        minted = await mint(SignerClient(settings.socket), user_key, Profile.TUNNEL)
    assert asyncssh.import_certificate(minted.certificate).principals == ["alice"]
    assert records(settings)[-1]["authority"] == public.fingerprint


@pytest.mark.slow
async def test_an_agent_that_is_away_slow_or_empty_may_come_back(
    agent: Path, plan: Plan, user_key: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No agent, no answer, no key: a retryable refusal within the time, and the next try works."""
    monkeypatch.setattr(agent_issuer, "ANSWER_S", SHORT_S)
    key, public = asyncssh.generate_private_key("ssh-ed25519"), parse_public_key(user_key.public)
    silent = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(silent))
        listener.listen()
        for path in (tmp_path / "none.sock", silent, agent):
            issuer = AgentIssuer(path, line_of(key))
            began = time.monotonic()
            for call in (issuer.check(), issue(issuer, public, plan, int(time.time()))):
                with pytest.raises(RemoteError) as caught:
                    await call
                assert caught.value.retryable
            assert time.monotonic() - began < 20 * SHORT_S
    add_key(agent, key)
    await issuer.check()
    assert (await issue(issuer, public, plan, int(time.time()))).plan == plan


# -- Vault and step-ca --------------------------------------------------------------------------


async def test_vault_signs_what_was_planned(tmp_path: Path, settings: SignerSettings, user_key: Any) -> None:
    """Every option is sent explicitly; serial and times are Vault's, in answer, audit log and ledger."""
    vault = Vault()
    (settings.state_dir / "ca_key").unlink()
    made = {}
    async with a_vault(vault, tmp_path / "vault") as ca, running(replace(settings, ca=ca)):
        signer = SignerClient(settings.socket)
        await signer.ready()
        for profile in (Profile.CONTROL, Profile.TUNNEL):
            minted = made[profile] = await mint(signer, user_key, profile)
            record = records(settings)[-1]
            assert (record["serial"], record["key_id"]) == (str(minted.serial), minted.key_id)
            assert record["authority"] == vault.key.get_fingerprint()
        sessions = (await signer.sessions()).logins
    held = {row["serial"] for session in sessions for row in session["certificates"]}
    assert held == {str(minted.serial) for minted in made.values()}
    source = {"source-address": "127.0.0.1/32,::1/128"}
    control, tunnel = vault.asked
    assert (control["critical_options"], control["extensions"]) == (source, {})
    assert tunnel["critical_options"] == {**source, "force-command": "/bin/false"}
    assert tunnel["extensions"] == {"permit-port-forwarding": ""}
    assert {(one["valid_principals"], one["cert_type"]) for one in vault.asked} == {("alice", "user")}


@pytest.mark.parametrize(
    ("vault", "profile", "said"),
    [
        (Vault(role=Role(default_extensions={"permit-pty": ""})), Profile.CONTROL, "in extensions"),
        (Vault(ttl_factor=100), Profile.TUNNEL, "by too much"),
        (Vault(role=Role(not_before_duration=3600)), Profile.TUNNEL, "by too much"),
        (Vault(role=Role(allowed_extensions="")), Profile.TUNNEL, "refuses"),
        (Vault(role=Role(allow_user_key_ids=False)), Profile.TUNNEL, "refuses"),
        (Vault(role=Role(max_ttl=60)), Profile.TUNNEL, "refuses"),
        (Vault(role=Role(allowed_users="bob")), Profile.TUNNEL, "refuses"),
        (Vault(status=307), Profile.TUNNEL, "refuses"),
    ],
)
async def test_a_role_that_does_not_fit_gives_nothing(
    vault: Vault, profile: Profile, said: str, settings: SignerSettings, tmp_path: Path, user_key: Any
) -> None:
    """Defaults of its own, other times, too narrow, a redirect: an error for staff, and no certificate."""
    plan = plan_for(settings, user_key, profile)
    async with a_vault(vault, tmp_path / "vault") as ca:
        with pytest.raises(SiteError, match=said) as caught:
            await issue(make_issuer(ca, tmp_path), parse_public_key(user_key.public), plan, int(time.time()))
        assert not caught.value.retryable


async def test_step_ca_signs_what_was_planned(
    tmp_path: Path, settings: SignerSettings, user_key: Any
) -> None:
    """Every field, out of a token that works once; with step-ca's default template nothing leaves."""
    step = StepCa(new_provisioner_key())
    (settings.state_dir / "ca_key").unlink()
    async with a_step_ca(step, tmp_path / "step") as ca, running(replace(settings, ca=ca)):
        signer = SignerClient(settings.socket)
        await signer.ready()
        for profile in (Profile.CONTROL, Profile.TUNNEL):
            minted = await mint(signer, user_key, profile)
            assert minted.key_id.endswith(f"{minted.serial:016x}")
        step.has_template = False
        with pytest.raises(SiteError, match="differs from its plan in serial, critical options, extensions"):
            await mint(signer, user_key, Profile.CONTROL)
    assert records(settings)[-1]["outcome"] == "error"
    assert len(step.used) == 3


@pytest.mark.parametrize("which", ["vault", "step-ca"])
async def test_an_authority_that_is_away_or_slow_may_come_back(
    which: str, plan: Plan, user_key: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent, sealed or gone: a retryable refusal within the time, in words that say which of them."""
    monkeypatch.setattr(issuer_http, "ANSWER_S", SHORT_S)
    server = Vault(delay_s=60) if which == "vault" else StepCa(new_provisioner_key(), delay_s=60)
    public = parse_public_key(user_key.public)

    async def refused(ca: CaSettings, said: str) -> None:
        began = time.monotonic()
        with pytest.raises(RemoteError, match=said) as caught:
            await issue(make_issuer(ca, tmp_path), public, plan, int(time.time()))
        assert caught.value.retryable
        assert time.monotonic() - began < 20 * SHORT_S

    started = (
        a_vault(server, tmp_path / "a") if isinstance(server, Vault) else a_step_ca(server, tmp_path / "a")
    )
    async with started as ca:
        await refused(ca, "did not answer within")
        if isinstance(server, Vault):
            server.delay_s, server.status = 0, 503
            await refused(ca, "status 503")
    await refused(ca, "cannot be reached")


@pytest.mark.parametrize("which", ["vault", "step-ca"])
async def test_an_authority_must_prove_who_it_is(
    which: str, plan: Plan, user_key: Any, tmp_path: Path
) -> None:
    """A TLS certificate that nobody vouches for: nothing is sent to it. Another key is noticed."""
    vault, step = Vault(), StepCa(new_provisioner_key())
    public = parse_public_key(user_key.public)
    other = tmp_path / "a" / "other_ca.pem"
    started = a_vault(vault, tmp_path / "a") if which == "vault" else a_step_ca(step, tmp_path / "a")
    async with started as ca:
        with pytest.raises(SiteError, match="another key than public_key says"):
            await make_issuer(replace(ca, public_key=line_of(_OTHER)), tmp_path).check()
        strange = replace(
            ca,
            vault=ca.vault and replace(ca.vault, ca_file=other),
            step=ca.step and replace(ca.step, ca_file=other),
        )
        for call in (
            make_issuer(strange, tmp_path).check(),
            issue(make_issuer(strange, tmp_path), public, plan, int(time.time())),
        ):
            with pytest.raises(SiteError, match="cannot prove who it is"):
                await call
    assert not vault.asked and not step.tokens


async def test_the_token_is_shown_to_nobody(
    tmp_path: Path, settings: SignerSettings, user_key: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a refusal, nor a log, the audit log, a repr or the settings has it; a loose file is refused."""
    caplog.set_level(logging.DEBUG)
    vault = Vault()
    async with a_vault(vault, tmp_path / "vault") as ca, running(replace(settings, ca=ca)):
        assert ca.vault is not None
        signer = SignerClient(settings.socket)
        said = ""
        for status in (200, 403, 503):
            vault.status = status
            try:
                await mint(signer, user_key, Profile.CONTROL)
            except HpchubError as error:
                said += f"{error}{error!r}{error.__cause__!r}"
        ca.vault.token_file.chmod(0o644)
        with pytest.raises(ConfigError, match="others can reach it"):
            await mint(signer, user_key, Profile.CONTROL)
    assert "status 403" in said and "status 503" in said
    for shown in (
        said,
        caplog.text,
        settings.audit_log.read_text(),
        repr(ca),
        repr(make_issuer(ca, tmp_path)),
    ):
        assert TOKEN not in shown


@pytest.mark.parametrize("fault", ["missing", "loose", "public", "no kid", "garbage", "encrypted"])
def test_a_provisioner_key_that_will_not_do_is_refused_at_the_start(fault: str, tmp_path: Path) -> None:
    """By name, and with none of its content."""
    body = new_provisioner_key()
    secret = body["d"]
    if fault == "public":
        del body["d"]
    elif fault == "no kid":
        del body["kid"]
    text = {"garbage": "{", "encrypted": '{"protected": "x", "ciphertext": "y"}'}.get(fault, json.dumps(body))
    path = tmp_path / "provisioner.jwk"
    if fault != "missing":
        path.touch(0o640 if fault == "loose" else 0o600)
        path.chmod(0o640 if fault == "loose" else 0o600)
        path.write_text(text)
    settings = StepSettings(url="https://127.0.0.1", provisioner="x", key_file=path, ca_file=path)
    with pytest.raises(ConfigError, match=r"provisioner\.jwk") as caught:
        StepIssuer(settings, line_of(_OTHER))
    assert secret not in f"{caught.value}{caught.value.__cause__!r}"
