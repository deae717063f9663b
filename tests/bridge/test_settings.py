"""bridge.toml: every fault is found at once, and named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpchub.bridge.settings import load_settings
from hpchub.errors import ConfigError
from hpchub.local_api.tls import TlsPeer
from hpchub.ssh.limits import Limits

GOOD = """
runtime_dir = "/run/hpchub"
signer_socket = "/run/signer/signer.sock"
agent_socket = "agent.sock"
hub_socket = "hub.sock"
clusters = "clusters.d"
database = "sqlite:////var/lib/hpchub/bridge.db"
"""


def problems(folder: Path, text: str) -> list[str]:
    path = folder / "bridge.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert str(path) in caught.value.message
    return list(caught.value.problems)


def test_good_settings(tmp_path: Path) -> None:
    """Relative paths start at the file's folder; the socket is the runtime folder's by default."""
    path = tmp_path / "bridge.toml"
    path.write_text(GOOD)
    settings = load_settings(path)
    assert settings.socket == Path("/run/hpchub/bridge.sock")
    assert (settings.hub_socket, settings.clusters) == (tmp_path / "hub.sock", tmp_path / "clusters.d")


def test_every_key_is_required_but_the_socket(tmp_path: Path) -> None:
    """An empty file names all six, and nothing that follows from their absence."""
    found = problems(tmp_path, "")
    keys = ("runtime_dir", "signer_socket", "agent_socket", "hub_socket", "clusters", "database")
    assert found == [f"{tmp_path}/bridge.toml: {key}: is missing" for key in keys]


def test_faults_are_found_together_with_their_lines(tmp_path: Path) -> None:
    """A misspelt key names the nearest one; other kinds and bad URLs are told beside it."""
    text = GOOD.replace("hub_socket", "hub_sokcet").replace('"clusters.d"', "3")
    found = problems(tmp_path, text.replace("sqlite:////", "sqlite:nonsense "))
    assert len(found) == 4
    assert any(":5: hub_sokcet" in line and "did you mean 'hub_socket'?" in line for line in found)
    assert any(": hub_socket: is missing" in line for line in found)
    assert any(":6: clusters: 3 is not a text" in line for line in found)
    assert any(":7: database: is not an SQLAlchemy URL" in line for line in found)


@pytest.mark.parametrize(
    ("folder", "fault"),
    [
        ("/" + "x" * 59, ""),
        ("/" + "x" * 60, "longer than 60"),
        ("/" + "é" * 31, "longer than 60"),
        ("/run/hpcHub", "lower case"),
        ("/run/É", "lower case"),
    ],
)
def test_the_runtime_folder_fits_into_a_socket_path(tmp_path: Path, folder: str, fault: str) -> None:
    """60 bytes at most, so that a server's socket and its `:80` alias fit; and JupyterHub folds case."""
    path = tmp_path / "bridge.toml"
    path.write_text(GOOD.replace("/run/hpchub", folder))
    if fault:
        assert fault in problems(tmp_path, path.read_text())[0]
    else:
        runtime_dir = load_settings(path).runtime_dir
        assert len(os.fsencode(runtime_dir / "s" / ("f" * 32 + ".sock:80"))) <= 107


def test_a_database_password_is_not_shown(tmp_path: Path) -> None:
    """PostgreSQL URLs hold one; repr does not."""
    path = tmp_path / "bridge.toml"
    path.write_text(GOOD.replace("sqlite:////var/lib/hpchub/bridge.db", "postgresql://hub:canary@db/hub"))
    settings = load_settings(path)
    assert "canary" not in repr(settings) and "canary" in settings.database


def test_patience_with_ssh_can_be_set(tmp_path: Path) -> None:
    """[ssh] changes the limits it names and leaves the others; nonsense is a fault like any other."""
    path = tmp_path / "bridge.toml"
    path.write_text(GOOD + "[ssh]\nlogin_timeout_s = 5\nkeepalive_tries = 2\n")
    assert load_settings(path).limits == Limits(login_timeout_s=5, keepalive_tries=2)
    found = problems(tmp_path, GOOD + "[ssh]\nlogin_timeout_s = 0\nkeepalive_trys = 2\n")
    assert any("ssh.login_timeout_s: 0 is not a whole number from 1 to 120" in line for line in found)
    assert any("did you mean" in line for line in found)


def test_tunnels_end_with_the_login_unless_the_site_keeps_them(tmp_path: Path) -> None:
    """`keep_tunnels` is off by default, and nothing but true or false."""
    path = tmp_path / "bridge.toml"
    for more, kept in (("", False), ("keep_tunnels = true\n", True)):
        path.write_text(GOOD + more)
        assert load_settings(path).keep_tunnels is kept
    assert "keep_tunnels" in problems(tmp_path, GOOD + 'keep_tunnels = "yes"\n')[0]


PEER = 'address = "signer.example.org:8443"\ncertificate = "a.pem"\nkey = "a.key"\nca = "ca.pem"\n'


def test_a_signer_elsewhere(tmp_path: Path) -> None:
    """A file says where and with which certificates; it and a socket are one too many."""
    (tmp_path / "tls.toml").write_text(PEER)
    elsewhere = GOOD.replace('signer_socket = "/run/signer/signer.sock"', 'signer_tls = "tls.toml"')
    path = tmp_path / "bridge.toml"
    path.write_text(elsewhere)
    signer = load_settings(path).signer_socket
    assert isinstance(signer, TlsPeer)
    assert (str(signer), signer.key) == ("signer.example.org:8443", tmp_path / "a.key")
    assert "which of the two" in problems(tmp_path, GOOD + 'signer_tls = "tls.toml"\n')[0]
    (tmp_path / "tls.toml").write_text(PEER.replace("signer.example.org:8443", "nowhere"))
    assert "is not a host and a port" in problems(tmp_path, elsewhere)[0]


def test_a_hub_with_an_account_of_its_own(tmp_path: Path) -> None:
    """Accounts and group by name or number; accounts alone could not reach the sockets."""
    path = tmp_path / "bridge.toml"
    path.write_text(GOOD + '[callers]\ngroup = "4711"\nhub = ["root", "4712"]\n')
    settings = load_settings(path)
    assert (settings.group, settings.hub_uids) == (4711, {0, 4712})
    assert "group: is missing" in problems(tmp_path, GOOD + '[callers]\nhub = ["root"]\n')[0]
