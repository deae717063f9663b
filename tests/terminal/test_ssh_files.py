"""What `hpchub login` writes for ssh, read back by OpenSSH's own client."""

from __future__ import annotations

import subprocess
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpchub.errors import ConfigError, HpchubError, UnexpectedOutput
from hpchub.terminal.ssh_files import Kept, SshFiles

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1kzBTMVi4NGTvCMSzYwdZAVMCnfPHjIYVVSiFwHE7b"
KEPT = Kept(
    url="https://hub.example.org",
    username="alice",
    public_key=KEY,
    certificate="ssh-ed25519-cert-v01@openssh.com AAAA",
    valid_before=1_800_000_000,
)
CLUSTERS: list[dict[str, Any]] = [
    {
        "name": "alpha",
        "proxy_jump": "gate.example.org:2222",
        "known_hosts": [f"login1.example.org {KEY}"],
        "login_nodes": [
            {"name": "login1", "address": "login1.example.org", "port": 22},
            {"name": "login2", "address": "login2.example.org", "port": 2200},
        ],
    }
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ".ssh").mkdir(mode=0o700)
    return tmp_path / ".ssh"


@pytest.fixture
def files(folder: Path) -> SshFiles:
    return SshFiles(folder, "hub.example.org")


def asked(folder: Path, host: str) -> dict[str, str]:
    """What ssh would do for a host, by keyword."""
    argv = ["ssh", "-G", "-F", str(folder / "config"), host]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return dict(reversed([line.split(" ", 1) for line in done.stdout.splitlines()]))  # the first one counts


def test_ssh_finds_each_host_under_its_names(files: SshFiles, folder: Path) -> None:
    """Cluster, cluster and node, or address: the user's name, our known hosts and key, never an agent's."""
    assert files.write(KEPT, CLUSTERS) == ["alpha", "alpha-login2"]
    for name, address, port in (
        ("alpha", "login1.example.org", "22"),
        ("alpha-login1", "login1.example.org", "22"),
        ("alpha-login2", "login2.example.org", "2200"),
        ("login2.example.org", "login2.example.org", "2200"),
    ):
        found = asked(folder, name)
        assert (found["hostname"], found["port"], found["user"]) == (address, port, "alice")
        assert found["proxyjump"] == "gate.example.org:2222"
        assert found["userknownhostsfile"] == str(folder / "hpchub" / "hub.example.org_known_hosts")
        assert found["stricthostkeychecking"] in {"yes", "true"}
        assert found["certificatefile"] == str(folder / "hpchub" / "hub.example.org-cert.pub")
        assert (found["identitiesonly"], found["forwardagent"], found["forwardx11"]) == ("yes", "no", "no")
    jump = asked(folder, "gate.example.org")
    assert (jump["user"], "proxyjump" in jump) == ("alice", False)
    assert "hpchub" not in asked(folder, "elsewhere.example.org")["userknownhostsfile"]


@pytest.mark.parametrize(
    "own", ["", "Host a\n    User b\n", "Host *\n  User b", "\n\n# no end\tof line \xe9"]
)
def test_other_lines_are_left_alone(files: SshFiles, folder: Path, own: str) -> None:
    """Written twice is written once, the mode stays, and a logout leaves the file as it was."""
    config = folder / "config"
    config.write_bytes(own.encode("latin-1"))
    config.chmod(0o640)
    files.write(KEPT, CLUSTERS)
    once = config.read_bytes()
    assert once.endswith(own.encode("latin-1"))
    files.write(replace(KEPT, username="bob"), CLUSTERS)
    assert (config.read_bytes(), config.stat().st_mode & 0o777) == (once, 0o640)
    assert "User bob" in (folder / "hpchub" / "hub.example.org.conf").read_text()
    files.remove()
    assert config.read_bytes() == own.encode("latin-1")


def test_a_linked_config_is_written_where_it_lies(files: SshFiles, folder: Path) -> None:
    """People keep it in a repository and link it: the link stays one."""
    real = folder.parent / "dotfiles"
    real.write_text("Host a\n")
    (folder / "config").symlink_to(real)
    files.write(KEPT, CLUSTERS)
    assert (folder / "config").is_symlink()
    assert "Include" in real.read_text()


def test_two_hubs_share_the_line(files: SshFiles, folder: Path) -> None:
    """The line goes with the last of them."""
    other = SshFiles(folder, "other.example.org")
    files.write(KEPT, CLUSTERS)
    other.write(replace(KEPT, url="https://other.example.org"), [])
    assert SshFiles.hubs(folder) == ["hub.example.org", "other.example.org"]
    files.remove()
    assert "Include" in (folder / "config").read_text()
    assert other.kept() == replace(KEPT, url="https://other.example.org")
    other.remove()
    assert (folder / "config").read_text() == ""


def _with(change: Any) -> list[dict[str, Any]]:
    clusters = deepcopy(CLUSTERS)
    change(clusters[0])
    return clusters


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.update(name="alpha\n    ProxyCommand touch /tmp/x"),
        lambda one: one.update(name="a b"),
        lambda one: one.update(name="*"),
        lambda one: one.update(proxy_jump="a\nHost *"),
        lambda one: one.update(proxy_jump="-oProxyCommand=x"),
        lambda one: one.update(known_hosts=["a b\n* c"]),
        lambda one: one["login_nodes"][0].update(address="a;b"),
        lambda one: one["login_nodes"][0].update(address="-x"),
        lambda one: one["login_nodes"][0].update(address="*.example.org"),
        lambda one: one["login_nodes"][0].update(name="a\nb"),
        lambda one: one["login_nodes"][0].update(port="22\nProxyCommand x"),
        lambda one: one["login_nodes"][0].update(port=0),
        lambda one: one["login_nodes"][0].pop("address"),
        lambda one: one.pop("known_hosts"),
    ],
)
def test_a_hub_cannot_write_lines_of_its_own(files: SshFiles, folder: Path, change: Any) -> None:
    """Whatever could begin another line, match other hosts, or be read as an option: nothing is written."""
    with pytest.raises(UnexpectedOutput):
        files.write(KEPT, _with(change))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("user", ["root", "a b", "a\nb", "-oX", ""])
def test_a_hub_cannot_make_anybody_root(files: SshFiles, folder: Path, user: str) -> None:
    """Names are held to what an account's may be."""
    with pytest.raises(UnexpectedOutput):
        files.write(replace(KEPT, username=user), CLUSTERS)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ['a"b', "a\nb", "a%b", "a*b"])
def test_folders_that_ssh_would_read_otherwise(tmp_path: Path, name: str) -> None:
    """Quotes, line ends, percent signs and patterns in a path are refused before anything is done."""
    with pytest.raises(ConfigError):
        SshFiles(tmp_path / name, "hub")


def test_a_broken_note_of_the_login_is_named(files: SshFiles, folder: Path) -> None:
    """Not taken for no login."""
    files.write(KEPT, CLUSTERS)
    (folder / "hpchub" / "hub.example.org.json").write_text("{}")
    with pytest.raises(HpchubError, match=r"hub\.example\.org\.json"):
        files.kept()
