"""Who may call the signer: real accounts on its socket, and real certificates over TLS."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.core.toml_table import load_table
from hpchub.errors import ConfigError, HpchubError, NotAllowed, ProcessAway
from hpchub.local_api.tls import TlsListen, TlsPeer, load_peer
from hpchub.signer.callers import RIGHTS, Callers, Role, read_callers
from hpchub.signer.client import SignerClient
from hpchub.signer.server import make_signer_app, running
from hpchub.signer.settings import SignerSettings
from support import require
from support.folders import let_others_pass
from support.pki import Files, TestAuthority

from .test_server import SOURCE

PASSWORD = Secret("canary-alice-77")
GROUP = 20600
UIDS = {Role.HUB: 20601, Role.BRIDGE: 20602, Role.STAFF: 20603}
STRANGER = 20604

# As another account, with or without the group: status and class of the answer, or why there was none.
_CALL = """
import json, os, socket, sys
path, uid, groups, requests = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), json.loads(sys.argv[4])
os.setgroups(groups); os.setgid(uid); os.setuid(uid)
found = []
for method, target in requests:
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(path)
            lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", "Content-Length: 2"]
            s.sendall("\\r\\n".join([*lines, "", "{}"]).encode())
            answer = b"".join(iter(lambda: s.recv(65536), b"")).decode()
        body = json.loads(answer.split("\\r\\n\\r\\n", 1)[1])
        found.append([int(answer.split()[1]), body.get("error", ""), body.get("message", "")])
    except OSError as error:
        found.append([0, type(error).__name__, ""])
print(json.dumps(found))
"""


def call_as(path: Path, uid: int, requests: list[tuple[str, str]], *, in_group: bool = True) -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-c", _CALL, str(path), str(uid), json.dumps([GROUP] if in_group else []),
         json.dumps(requests)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return list(json.loads(done.stdout))


def all_requests() -> list[tuple[str, str]]:
    gets = {"/v1/health", "/v1/ready", "/v1/metrics", "/v1/ca", "/v1/second-factor", "/v1/ends", "/v1/krl"}
    gets.add("/v1/sessions")
    return [("GET" if path in gets else "POST", path) for path in RIGHTS if path != "/v1/metrics"]


async def test_each_account_its_part(settings: SignerSettings, tmp_path: Path) -> None:
    """The hub proves, the bridge mints, staff take back; nobody anything else, and a stranger nothing."""
    require.root()
    settings = replace(
        settings,
        callers=Callers(group=GROUP, uids={role: frozenset({uid}) for role, uid in UIDS.items()}),
    )
    let_others_pass(tmp_path)
    async with running(settings):
        status = settings.socket.stat()
        assert (status.st_gid, status.st_mode & 0o777) == (GROUP, 0o660)
        assert settings.socket.parent.stat().st_mode & 0o777 == 0o750
        requests = all_requests()
        for role, uid in UIDS.items():
            answers = await asyncio.to_thread(call_as, settings.socket, uid, requests)
            refused = {
                path
                for (_, path), answer in zip(requests, answers, strict=True)
                if answer[2] == "That is not for this caller."
            }
            assert refused == {path for _, path in requests if role not in RIGHTS[path]}, role
            assert all(answer[0] for answer in answers)
        answers = await asyncio.to_thread(call_as, settings.socket, STRANGER, requests)
        assert {tuple(one) for one in answers} == {(403, "NotAllowed", "That is not for this caller.")}
        for uid in (*UIDS.values(), STRANGER):
            kept_out = await asyncio.to_thread(
                lambda uid=uid: call_as(settings.socket, uid, requests[:1], in_group=False)
            )
            assert kept_out == [[0, "PermissionError", ""]]


async def test_without_callers_only_our_own(settings: SignerSettings) -> None:
    """Where the settings name nobody, the folder is closed, as it always was."""
    async with running(settings):
        assert settings.socket.stat().st_mode & 0o777 == 0o600
        assert settings.socket.parent.stat().st_mode & 0o777 == 0o700
        await SignerClient(settings.socket).sessions()


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o757, 0o700])
async def test_a_folder_of_another_mode_is_refused(settings: SignerSettings, mode: int) -> None:
    """One that others can enter, that the group can write to, or that the group cannot enter."""
    require.root()
    settings.socket.parent.mkdir()
    os.chown(settings.socket.parent, -1, GROUP)
    settings.socket.parent.chmod(mode)
    with pytest.raises(ConfigError, match="not 0750"):
        async with running(replace(settings, callers=Callers(group=GROUP))):
            pass


def test_every_address_is_somebodys() -> None:
    """No part of the API is forgotten in the table of rights; what is would be for root alone."""
    nobody: Any = SimpleNamespace(
        metrics=SimpleNamespace(registry=None), factors=None, ending=None, principals=()
    )
    app = make_signer_app(["ssh-ed25519 AAAA"], nobody, nobody, Callers())
    paths = {route.resource.canonical for route in app.router.routes() if route.resource}
    assert paths == set(RIGHTS)


def read(tmp_path: Path, text: str) -> Callers:
    path = tmp_path / "callers.toml"
    path.write_text(text)

    def read_all(table: Any) -> Callers:
        found = read_callers(table, tmp_path)
        table.finish()
        return found

    return load_table(path, read_all, "wrong:")


def test_settings(tmp_path: Path) -> None:
    """Accounts by name or number; names in certificates; nobody where nothing is written."""
    assert read(tmp_path, "") == Callers(uids=dict.fromkeys(Role, frozenset()))
    found = read(
        tmp_path,
        '[callers]\ngroup = "root"\nhub = ["daemon", "4711"]\n'
        '[remote]\nlisten = "[::1]:8443"\ncertificate = "a.pem"\nkey = "a.key"\nclient_ca = "ca.pem"\n'
        'bridge = ["bridge.example.org"]\n',
    )
    assert found.uids == {Role.HUB: {1, 4711}, Role.BRIDGE: frozenset(), Role.STAFF: frozenset()}
    assert found.group == 0
    assert found.names == {Role.HUB: frozenset(), Role.BRIDGE: {"bridge.example.org"}}
    assert found.listen == TlsListen(
        host="::1", port=8443, certificate=tmp_path / "a.pem", key=tmp_path / "a.key",
        client_ca=tmp_path / "ca.pem",
    )  # fmt: skip


FILES = 'certificate = "a"\nkey = "a"\nclient_ca = "a"\n'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[callers]\nhub = ["daemon"]', "group"),
        ('[callers]\ngroup = "root"\nhub = ["no-such-account"]', "no account"),
        ('[callers]\ngroup = "no-such-group"', "no group"),
        ('[callers]\ngroup = "root"\nhubs = ["daemon"]', "did you mean 'hub'"),
        (f'[remote]\nlisten = "x:1"\n{FILES}', "names nobody"),
        (f'[remote]\nlisten = "x"\n{FILES}hub = ["h"]', "host and a port"),
        (f'[remote]\nlisten = "x:70000"\n{FILES}hub = ["h"]', "host and a port"),
        (f'[remote]\nlisten = "x:1"\n{FILES}staff = ["h"]', "no key 'staff'"),
    ],
)
def test_wrong_settings(tmp_path: Path, text: str, fault: str) -> None:
    """Each fault is named; staff do not come over the network."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert fault in "\n".join(caught.value.problems)


# -- over TLS ---------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path, "site")


@pytest.fixture
def listen(authority: TestAuthority) -> TlsListen:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    own = authority.make("signer.example.org")
    return TlsListen(
        host="127.0.0.1", port=port, certificate=own.certificate, key=own.key, client_ca=authority.ca
    )


@pytest.fixture
async def remote(settings: SignerSettings, listen: TlsListen) -> AsyncIterator[TlsListen]:
    """A signer that listens over TLS, for a hub and a bridge by these names."""
    names = {Role.HUB: frozenset({"hub.example.org"}), Role.BRIDGE: frozenset({"bridge.example.org"})}
    async with running(replace(settings, callers=Callers(listen=listen, names=names))):
        yield listen


def client(remote: TlsListen, ca: Path, files: Files) -> SignerClient:
    return SignerClient(
        TlsPeer(host=remote.host, port=remote.port, certificate=files.certificate, key=files.key, ca=ca)
    )


async def test_hub_and_bridge_elsewhere(remote: TlsListen, authority: TestAuthority, user_key: Any) -> None:
    """Each by its certificate, and for its part alone; staff's part is for this machine."""
    hub = client(remote, authority.ca, authority.make("hub.example.org"))
    bridge = client(remote, authority.ca, authority.make("bridge.example.org"))
    login = await hub.grant("alice", PASSWORD, user_key.public, SOURCE)
    minted = await bridge.certificate(login.grant, user_key.public, Profile.CONTROL)
    assert minted.certificate
    assert (await bridge.ends(0))[1] == 0
    with pytest.raises(NotAllowed, match="not for this caller"):
        await hub.certificate(login.grant, user_key.public, Profile.CONTROL)
    with pytest.raises(NotAllowed, match="not for this caller"):
        await bridge.grant("alice", PASSWORD, user_key.public, SOURCE)
    for one in (hub, bridge):
        with pytest.raises(NotAllowed, match="not for this caller"):
            await one.revoke("alice", reason="", by="")


async def test_whoever_is_not_ours_is_refused(
    remote: TlsListen, authority: TestAuthority, tmp_path: Path
) -> None:
    """No handshake with a certificate that is another authority's, or has expired; no role, no answer."""
    (tmp_path / "other").mkdir()
    foreign = TestAuthority(tmp_path / "other", "other").make("hub.example.org")
    expired = authority.make("bridge.example.org", valid_for=timedelta(seconds=-60))
    for files in (foreign, expired):
        with pytest.raises(ProcessAway):
            await client(remote, authority.ca, files).health()
    stranger = client(remote, authority.ca, authority.make("web.example.org"))
    with pytest.raises(NotAllowed, match="not for this caller"):
        await stranger.health()
    await client(remote, authority.ca, authority.make("hub.example.org")).health()


@pytest.mark.parametrize("version", ["none", "1.2"])
async def test_no_certificate(remote: TlsListen, authority: TestAuthority, version: str) -> None:
    """Without a certificate, or with an older TLS, nothing is answered."""
    context = ssl.create_default_context(cafile=str(authority.ca))
    if version == "1.2":
        files = authority.make("hub.example.org")
        context.load_cert_chain(files.certificate, files.key)
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    def ask() -> bytes:
        with (
            socket.create_connection((remote.host, remote.port), 10) as plain,
            context.wrap_socket(plain, server_hostname="signer.example.org") as secure,
        ):
            secure.sendall(b"GET /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return secure.recv(4096)

    try:
        answer = await asyncio.to_thread(ask)
    except OSError:
        answer = b""  # the handshake failed, or the connection was closed: which of them comes first is luck
    assert answer == b""
    await client(remote, authority.ca, authority.make("bridge.example.org")).health()


async def test_a_signer_that_is_not_ours(
    settings: SignerSettings, listen: TlsListen, authority: TestAuthority, tmp_path: Path, user_key: Any
) -> None:
    """A host with a foreign, expired or differently named certificate gets no password to see."""
    (tmp_path / "other").mkdir()
    wrong = {
        "foreign": TestAuthority(tmp_path / "other", "other").make("signer.example.org"),
        "expired": authority.make("old.example.org", valid_for=timedelta(seconds=-60)),
        "named": authority.make("web.example.org"),
    }
    files = authority.make("hub.example.org")
    for what, own in wrong.items():
        posing = replace(listen, certificate=own.certificate, key=own.key)
        names = {Role.HUB: frozenset({"hub.example.org"})}
        async with running(replace(settings, callers=Callers(listen=posing, names=names))):
            host = "localhost" if what == "named" else posing.host
            caller = client(replace(posing, host=host), authority.ca, files)
            with pytest.raises(ProcessAway):
                await caller.grant("alice", PASSWORD, user_key.public, SOURCE)
    assert not settings.audit_log.exists() or not settings.audit_log.read_text()


async def test_loose_or_missing_keys(settings: SignerSettings, listen: TlsListen, tmp_path: Path) -> None:
    """A key that others can read, and a file that is not there, are said before anything listens."""
    listen.key.chmod(0o640)
    with pytest.raises(ConfigError, match="has mode"):
        async with running(replace(settings, callers=Callers(listen=listen))):
            pass
    listen.key.chmod(0o600)
    missing = replace(listen, client_ca=tmp_path / "nowhere.pem")
    with pytest.raises(ConfigError, match="TLS cannot be set up"):
        async with running(replace(settings, callers=Callers(listen=missing))):
            pass
    with pytest.raises(HpchubError):
        await SignerClient(TlsPeer(host="127.0.0.1", port=1, certificate=listen.certificate,
                                   key=listen.key, ca=tmp_path / "nowhere.pem")).health()  # fmt: skip


def test_the_callers_file(tmp_path: Path) -> None:
    """Its paths count from its own folder, and each fault is named."""
    path = tmp_path / "signer-tls.toml"
    path.write_text('address = "signer.example.org:8443"\ncertificate = "a"\nkey = "/b"\nca = "c"\n')
    assert load_peer(path) == TlsPeer(
        host="signer.example.org", port=8443, certificate=tmp_path / "a", key=Path("/b"), ca=tmp_path / "c"
    )
    path.write_text('address = "signer.example.org"\ncertificate = "a"\nkeys = "b"\n')
    with pytest.raises(ConfigError) as caught:
        load_peer(path)
    assert len(caught.value.problems) == 4
