"""What `configure` does beyond settings."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine
from tornado import netutil
from traitlets.config import Config

from hpchub.hub import config
from hpchub.hub.authenticators import HpchubAuthenticator
from hpchub.local_api.tls import TlsPeer


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    monkeypatch.setattr(netutil, "bind_unix_socket", netutil.bind_unix_socket)  # put back afterwards
    c = Config()
    config.configure(c, clusters="/c", bridge_socket="/b.sock", signer_socket="/s.sock", hub_socket="/h.sock")
    yield c
    event.remove(Engine, "connect", config._write_ahead)


@pytest.mark.usefixtures("configured")
def test_a_burst_waits_at_the_hub() -> None:
    """JupyterHub binds its socket with tornado's function: 400 who call at once are not refused."""
    with TemporaryDirectory(prefix="hpchub-t-", dir="/tmp") as folder, ExitStack() as stack:
        path = f"{folder}/s"
        stack.enter_context(netutil.bind_unix_socket(path, mode=0o600))
        for _ in range(400):
            caller = stack.enter_context(socket.socket(socket.AF_UNIX))
            caller.setblocking(False)
            caller.connect(path)


@pytest.mark.usefixtures("configured")
def test_the_hub_does_not_wait_for_the_disk_at_each_commit(tmp_path: Path) -> None:
    """SQLite writes ahead, and syncs at checkpoints only."""
    engine = create_engine(f"sqlite:///{tmp_path}/hub.sqlite")
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 1
    engine.dispose()


@pytest.mark.usefixtures("configured")
def test_where_sqlite_cannot_write_ahead_it_syncs_as_ever() -> None:
    """A database in memory has no log of that kind: nothing about its safety is changed."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "memory"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
    engine.dispose()


@pytest.mark.parametrize(
    ("public_url", "host", "is_prefixed"),
    [
        ("https://hub.example.org/", "https://hub.example.org", True),
        ("http://hub.localhost:8000/jupyter/", "http://hub.localhost:8000", False),
    ],
)
def test_a_domain_for_each_person(public_url: str, host: str, is_prefixed: bool) -> None:
    """Below the hub's own; with TLS, no page of a person's can plant a cookie of the hub's."""
    c = Config()
    config._name_the_hub(c, public_url, True)
    assert c.JupyterHub.public_url == public_url
    assert c.JupyterHub.subdomain_host == host
    assert c.JupyterHub.cookie_host_prefix_enabled is is_prefixed


def test_domains_of_what() -> None:
    """Without the hub's own address nobody can tell, and the hub does not start as if it had been told."""
    with pytest.raises(ValueError, match="public_url"):
        config._name_the_hub(Config(), "", True)
    c = Config()
    config._name_the_hub(c, "", False)
    assert "JupyterHub" not in c


def test_a_signer_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With `signer_tls` the authenticator calls the host that the file names."""
    monkeypatch.setattr(netutil, "bind_unix_socket", netutil.bind_unix_socket)
    file = tmp_path / "tls.toml"
    file.write_text('address = "signer.example.org:8443"\ncertificate = "a"\nkey = "b"\nca = "c"\n')
    c = Config()
    config.configure(c, clusters="/c", bridge_socket="/b.sock", signer_tls=file, hub_socket="/h.sock")
    event.remove(Engine, "connect", config._write_ahead)
    called = HpchubAuthenticator(config=c).signer().socket_path
    assert isinstance(called, TlsPeer)
    assert (str(called), called.ca) == ("signer.example.org:8443", tmp_path / "c")
