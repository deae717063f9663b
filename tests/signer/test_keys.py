"""Keys and other private files: made for one account only, and refused where others can reach them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpchub.errors import ConfigError
from hpchub.private_files import write_private_file
from hpchub.signer.keys import init_keys, load_ca_key, load_keys, render_ca_public_key
from hpchub.signer.password_file import load_password_file
from hpchub.signer.settings import SignerSettings
from support import require


def test_init_makes_private_keys_whatever_the_umask(tmp_path: Path) -> None:
    """The folder is 0700 and each key 0600 from its first moment; drafts are gone."""
    umask = os.umask(0)
    try:
        made = init_keys(tmp_path / "state")
    finally:
        os.umask(umask)
    assert [path.name for path in made] == ["ca_key", "grant_key"]
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()} == {
        "ca_key": 0o600,
        "grant_key": 0o600,
    }


def test_init_never_replaces_a_key(tmp_path: Path) -> None:
    """A second init makes only what is missing: clusters go on trusting the same authority."""
    state = tmp_path / "state"
    init_keys(state)
    before = (state / "ca_key").read_bytes()
    (state / "grant_key").unlink()
    assert [path.name for path in init_keys(state)] == ["grant_key"]
    assert init_keys(state) == []
    assert (state / "ca_key").read_bytes() == before


def test_a_taken_name_is_not_overwritten(tmp_path: Path) -> None:
    """An exclusive write fails where the file is there already, and leaves it as it is."""
    (tmp_path / "key").write_text("old")
    with pytest.raises(ConfigError, match="key"):
        write_private_file(tmp_path / "key", b"new", replace=False)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_ssh_keygen_reads_the_ca_key(tmp_path: Path) -> None:
    """The CA key is in OpenSSH's own form, and its public half is the one we print."""
    require.programs("ssh-keygen")
    init_keys(tmp_path / "state")
    done = subprocess.run(
        ["ssh-keygen", "-y", "-f", tmp_path / "state" / "ca_key"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == render_ca_public_key(load_ca_key(tmp_path / "state")).split()


@pytest.mark.parametrize("name", ["ca_key", "grant_key", "passwords"])
@pytest.mark.parametrize("fault", ["loose", "symlink", "owner", "pipe", "missing"])
def test_files_that_others_could_reach_are_refused(settings: SignerSettings, name: str, fault: str) -> None:
    """Loose mode, symbolic link, wrong owner, pipe, missing: a ConfigError that names the path."""
    assert settings.proof.file is not None
    path = settings.proof.file if name == "passwords" else settings.state_dir / name
    if fault == "loose":
        path.chmod(0o640)
    elif fault == "symlink":
        path.rename(path.with_name("elsewhere"))
        path.symlink_to(path.with_name("elsewhere"))
    elif fault == "owner":
        require.root()
        os.chown(path, 12345, -1)
    else:
        path.unlink()
        if fault == "pipe":
            os.mkfifo(path, 0o600)
    with pytest.raises(ConfigError) as caught:
        load_keys(settings.state_dir)
        load_password_file(settings.proof.file)
    assert str(path) in caught.value.message


@pytest.mark.parametrize("fault", ["loose", "symlink", "owner", "missing", "file"])
def test_a_state_folder_that_others_could_reach_is_refused(settings: SignerSettings, fault: str) -> None:
    """The folder is held to the same rules as the keys in it."""
    path = settings.state_dir
    if fault == "loose":
        path.chmod(0o750)
    elif fault == "owner":
        require.root()
        os.chown(path, 12345, -1)
    else:
        path.rename(path.with_name("elsewhere"))
        if fault == "symlink":
            path.symlink_to(path.with_name("elsewhere"))
        elif fault == "file":
            path.touch(0o600)
    with pytest.raises(ConfigError) as caught:
        load_keys(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize("name", ["ca_key", "grant_key"])
def test_a_file_that_is_no_key_is_refused(settings: SignerSettings, name: str) -> None:
    """Garbage, and the other key, are refused by name and without showing content."""
    path = settings.state_dir / name
    other = settings.state_dir / ("grant_key" if name == "ca_key" else "ca_key")
    canary = "canary-not-a-key"
    for content in (canary.encode(), b"", other.read_bytes() if name == "grant_key" else b"\xff"):
        path.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            load_keys(settings.state_dir)
        assert str(path) in caught.value.message
        assert canary not in str(caught.value)
