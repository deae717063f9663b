"""`[ca]` of signer.toml: each kind's own keys, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpchub.errors import ConfigError
from hpchub.signer.issuer_settings import CaKind, CaSettings
from hpchub.signer.settings import load_settings

# The same in every run: they stand in the names of tests.
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICcj0PkofvzToCmr9R6CdjzhrR9raVZYfvw/QFZPvv7u"
OTHER = (
    "ecdsa-sha2-nistp256 "
    "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBC+GVYo6Pt0BM5EWjvi7J2Ps73XSYMbB2KInDosQKiguncobTMriG3NroZv2stZgjsf8nlqzEq4RZvNm2YSL1RY="
)
BASE = (
    'socket = "s"\nstate_dir = "state"\naudit_log = "a"\nsource_addresses = ["192.0.2.7"]\n'
    '[proof]\nkind = "pam"\nservice = "hpchub"\n'
)
AGENT = f'kind = "agent"\nagent_socket = "agent.sock"\npublic_key = "{KEY} a comment"\n'
VAULT = (
    f'kind = "vault"\naddress = "https://vault.example.org:8200"\nrole = "hpchub"\ntoken_file = "token"\n'
    f'public_key = "{KEY}"\n'
)
STEP = (
    f'kind = "step-ca"\nurl = "https://[2001:db8::1]:9000"\nprovisioner = "hpchub"\nkey_file = "p.jwk"\n'
    f'ca_file = "root.pem"\npublic_key = "{KEY}"\n'
)


def read(folder: Path, table: str) -> CaSettings:
    path = folder / "signer.toml"
    path.write_text(f"{BASE}[ca]\n{table}")
    return load_settings(path).ca


def test_a_key_file_is_what_there_is_without_a_word(tmp_path: Path) -> None:
    """As in every installation before."""
    assert read(tmp_path, "") == CaSettings()


def test_each_kind_has_its_own_keys(tmp_path: Path) -> None:
    """Paths count from the file's folder; public keys lose their comments."""
    agent = read(tmp_path, AGENT + f'also_trusted = ["{OTHER} old"]\n')
    assert agent == CaSettings(
        kind=CaKind.AGENT, public_key=KEY, agent_socket=tmp_path / "agent.sock", also_trusted=(OTHER,)
    )
    vault = read(tmp_path, VAULT).vault
    assert vault is not None and (vault.mount, vault.ca_file) == ("ssh", None)
    assert vault.token_file == tmp_path / "token"
    step = read(tmp_path, STEP).step
    assert step is not None and step.key_file == tmp_path / "p.jwk"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('kind = "hsm"\n', "ca.kind"),
        (f'public_key = "{KEY}"\n', "there is no key 'public_key' here"),
        (AGENT.replace("agent_socket", "socket"), "ca.agent_socket: is missing"),
        (AGENT.replace(KEY, "ssh-ed25519 AAAA"), "ca.public_key"),
        (AGENT.replace(f"{KEY} a comment", ""), "ca.public_key"),
        (AGENT + 'also_trusted = ["no key"]\n', "ca.also_trusted"),
        (VAULT.replace("https://", "http://"), "ca.address"),
        (VAULT.replace(":8200", ":8200/v1"), "ca.address"),
        (VAULT.replace("https://", "https://user:password@"), "ca.address"),
        (VAULT.replace('"hpchub"', '"../sys/raw"'), "ca.role"),
        (VAULT + 'mount = "ssh/../sys"\n', "ca.mount"),
        (VAULT + 'token = "hvs.secret"\n', "there is no key 'token' here"),
        (STEP.replace("ca_file", "ca_fle"), "did you mean 'ca_file'"),
    ],
)
def test_faults_are_named(table: str, said: str, tmp_path: Path) -> None:
    """An unknown kind, a foreign or missing key, no TLS, a path that leads elsewhere, a secret."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, table)
    assert any(said in problem for problem in caught.value.problems), caught.value.problems
    assert "hvs.secret" not in str(caught.value)
