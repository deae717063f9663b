"""The revocation list, as OpenSSH's own ssh-keygen reads it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpchub.core.certificate import Profile
from hpchub.signer.certificates import parse_public_key, sign
from hpchub.signer.keys import render_ca_public_key
from hpchub.signer.krl import Revoked, render_krl
from hpchub.signer.policy import Plan, Policy, plan_certificate, plan_grant

CA = asyncssh.generate_private_key("ssh-ed25519")
OTHER_CA = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
KEY = asyncssh.generate_private_key("ssh-ed25519")
LINE = parse_public_key(KEY.export_public_key("openssh").decode())
POLICY = Policy(certificate_lifetime_s=600, login_ceiling_s=3600, source_addresses=("127.0.0.1/32",))


def ca_line(key: asyncssh.SSHKey = CA) -> str:
    return render_ca_public_key(key)


def certificate(serial: int = 77, ca: asyncssh.SSHKey = CA) -> tuple[str, Plan]:
    now = int(time.time())
    grant = plan_grant(
        POLICY, account="alice", factor="password", fingerprint=LINE.fingerprint, now=now, grant_id="0" * 32
    )
    plan = plan_certificate(
        POLICY, grant, profile=Profile.CONTROL, fingerprint=LINE.fingerprint, now=now, serial=serial
    )
    return sign(ca, LINE, plan), plan


def is_revoked(folder: Path, krl: bytes, line: str) -> bool:
    """ssh-keygen's own word: 0 where the key is fine, 1 where it is revoked; AssertionError if unreadable."""
    (folder / "krl").write_bytes(krl)
    (folder / "key.pub").write_text(line + "\n")
    done = subprocess.run(
        ["ssh-keygen", "-Q", "-f", str(folder / "krl"), str(folder / "key.pub")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "REVOKED" in done.stdout or done.stdout.rstrip().endswith(": ok"), (done.stdout, done.stderr)
    return done.returncode == 1


def krl(**revoked: Any) -> bytes:
    return render_krl((ca_line(),), Revoked(**revoked), version=3, now=int(time.time()))


def test_an_empty_list_revokes_nothing(tmp_path: Path) -> None:
    """And can be read."""
    assert not is_revoked(tmp_path, krl(), certificate()[0])
    assert not is_revoked(tmp_path, krl(), LINE.line)


@pytest.mark.parametrize("serial", [1, 77, 2**63, 2**64 - 1])
def test_by_serial(serial: int, tmp_path: Path) -> None:
    """That certificate and no other; not another authority's of the same serial; not the bare key."""
    line, _ = certificate(serial)
    listed = krl(serials=[serial, 5, serial])
    assert is_revoked(tmp_path, listed, line)
    assert not is_revoked(tmp_path, listed, certificate(6)[0])
    assert not is_revoked(tmp_path, listed, certificate(serial, OTHER_CA)[0])
    assert not is_revoked(tmp_path, listed, LINE.line)


def test_by_key_id(tmp_path: Path) -> None:
    """Whole, not as a prefix."""
    line, plan = certificate()
    assert is_revoked(tmp_path, krl(key_ids=[plan.key_id, "x"]), line)
    assert not is_revoked(tmp_path, krl(key_ids=[plan.key_id[:-1]]), line)


@pytest.mark.parametrize("algorithm", ["ssh-ed25519", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"])
def test_by_key_and_fingerprint(algorithm: str, tmp_path: Path) -> None:
    """The bare key and every certificate for it, whoever signed that."""
    key = asyncssh.generate_private_key(algorithm)
    public = parse_public_key(key.export_public_key("openssh").decode())
    for listed in (krl(public_keys=[public.line]), krl(fingerprints=[public.fingerprint])):
        assert is_revoked(tmp_path, listed, public.line)
        assert not is_revoked(tmp_path, listed, certificate()[0])
    for listed in (krl(public_keys=[LINE.line]), krl(fingerprints=[LINE.fingerprint])):
        assert is_revoked(tmp_path, listed, certificate()[0])
        assert is_revoked(tmp_path, listed, certificate(ca=OTHER_CA)[0])


def test_all_at_once(tmp_path: Path) -> None:
    """Every section in one list, and many of each."""
    line, plan = certificate(3)
    listed = krl(
        serials=range(1000, 3000),
        key_ids=[f"hpchub:u{number}:control:0" for number in range(1000)] + [plan.key_id],
        public_keys=[LINE.line],
        fingerprints=[OTHER_CA.get_fingerprint()],
    )
    assert is_revoked(tmp_path, listed, line)
    assert is_revoked(tmp_path, listed, OTHER_CA.export_public_key("openssh").decode().strip())
    shown = subprocess.run(
        ["ssh-keygen", "-Q", "-l", "-f", str(tmp_path / "krl")], capture_output=True, text=True, check=True
    ).stdout
    assert "# KRL version 3" in shown and shown.count("serial: ") == 1 and shown.count("id: ") == 1001


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(min_value=1, max_value=2**64 - 1), max_size=50))
def test_the_same_as_ssh_keygen_makes(tmp_path_factory: pytest.TempPathFactory, serials: list[int]) -> None:
    """Whatever the serials: the list that ssh-keygen itself writes holds the same."""
    folder = tmp_path_factory.mktemp("krl")
    (folder / "ca.pub").write_text(ca_line() + "\n")
    (folder / "spec").write_text("".join(f"serial: {serial}\n" for serial in serials))
    theirs = ("ssh-keygen", "-q", "-k", "-f", folder / "theirs", "-s", folder / "ca.pub", folder / "spec")
    subprocess.run(theirs, check=True)
    (folder / "ours").write_bytes(krl(serials=serials))

    def dump(name: str) -> list[str]:
        done = subprocess.run(
            ["ssh-keygen", "-Q", "-l", "-f", str(folder / name)], capture_output=True, text=True, check=True
        )
        return [line for line in done.stdout.splitlines() if "serial" in line]

    assert dump("ours") == dump("theirs")
