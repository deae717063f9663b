"""`hpchub login` on a laptop: real hub, proxy and signer, a real ssh-agent and sshd, OpenSSH's own client."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from unittest import mock
from urllib.parse import urlsplit

import asyncssh
import pytest
import requests
from hub.harness import CLUSTER, RunningHub

from hpchub.cli import main
from hpchub.core.terminal import LOG_OUT, MANAGE_TOKENS, key_proof
from hpchub.errors import NotAllowed
from hpchub.hub.terminal_keys import own_host
from hpchub.terminal.hub import Hub
from hpchub.terminal.keys import new_key
from support.account_sshd import Sshd, an_account_sshd
from support.hub import HubSession
from support.ports import listens

_XSRF = re.compile(r'name="_xsrf" value="([^"]*)"')
_GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass
class Laptop:
    """A machine of alice's, with an agent and an ssh folder of its own."""

    hub: RunningHub
    folder: Path
    environ: dict[str, str] = field(repr=False)

    @property
    def ssh_dir(self) -> Path:
        return self.folder / ".ssh"

    def start(self, *argv: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "hpchub.cli", *argv]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, env=self.environ, cwd=self.folder, **pipes)  # type: ignore[call-overload,no-any-return]

    def hpchub(self, *argv: str) -> tuple[int, str]:
        """A verb that asks nobody anything, in this process: half of the time would go into imports."""
        said = io.StringIO()
        with (
            mock.patch.dict(os.environ, self.environ, clear=True),
            redirect_stdout(said),
            redirect_stderr(said),
        ):
            return main(argv), said.getvalue()

    def log_in(self, session: HubSession, *options: str, answer: str = "allow") -> tuple[int, str]:
        """`hpchub login`, confirmed by whoever has that session."""
        process = self.start("login", self.hub.url, *options)
        assert process.stdout is not None
        said = process.stdout.readline()
        code = re.search(r"user_code=([A-Z-]+)", said)
        if code is None:
            rest, _ = process.communicate(timeout=60)
            return process.returncode, said + rest
        confirm(session, code[1], answer)
        rest, _ = process.communicate(timeout=60)
        return process.returncode, said + rest

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv, env=self.environ, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )

    def ssh(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return self.run("ssh", "-F", str(self.ssh_dir / "config"), "-o", "BatchMode=yes", *argv)

    def agent_keys(self) -> list[str]:
        done = self.run("ssh-add", "-L")
        return done.stdout.splitlines() if done.returncode == 0 else []


def look_at(session: HubSession, code: str) -> requests.Response:
    return session.get("hub/hpchub/device", params={"user_code": code})


def confirm(session: HubSession, code: str, answer: str = "allow") -> requests.Response:
    page = look_at(session, code)
    token = _XSRF.search(page.text)
    assert token, page.text[:2000]
    form = {"_xsrf": html.unescape(token[1]), "user_code": code, "answer": answer}
    return session.post("hub/hpchub/device", data=form)


def audit(hub: RunningHub) -> list[dict[str, str]]:
    return [json.loads(line) for line in (hub.folder / "signer" / "audit.log").read_text().splitlines()]


@contextmanager
def an_agent(folder: Path) -> Iterator[str]:
    socket = folder / "agent.sock"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not listens(socket):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield str(socket)
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def laptop(hub: RunningHub, tmp_path: Path) -> Iterator[Laptop]:
    """With settings of alice's own, which nobody may touch."""
    (tmp_path / ".ssh").mkdir(mode=0o700)
    (tmp_path / ".ssh" / "config").write_text("Host github\n    User git\n")
    with an_agent(tmp_path) as socket:
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "SSH_AUTH_SOCK": socket,
            "LANG": "C.UTF-8",
        }
        yield Laptop(hub, tmp_path, environ)


@pytest.fixture(scope="module")
def sshd(running_hub: RunningHub, clusters_dir: Path) -> Iterator[Sshd]:
    """A login node that the hub's cluster files describe, while these tests run."""
    ca = Hub(running_hub.url)  # the name only; the key comes from the signer's folder
    assert ca.url == running_hub.url
    authority = asyncssh.read_private_key(running_hub.folder / "signer" / "state" / "ca_key")
    public = authority.export_public_key("openssh").decode().strip()
    krl = running_hub.folder / "signer" / "revoked_keys"
    with (
        TemporaryDirectory(prefix="hpchub-sshd-", dir="/tmp") as folder,
        an_account_sshd(Path(folder), "alice", public, krl) as found,
    ):
        described = clusters_dir / "near.toml"
        node = f'name = "login1"\naddress = "127.0.0.1"\nport = {found.port}'
        described.write_text(CLUSTER.replace('name = "login1"', node).replace("demo.known", "near.known"))
        (clusters_dir / "near.known_hosts").write_text(found.known_hosts + "\n")
        yield found
        described.unlink()


def test_plain_ssh_works_after_the_login_and_no_longer_after_the_logout(
    laptop: Laptop, hub: RunningHub, sshd: Sshd
) -> None:
    """A shell, forwarding, scp, no agent; a second login replaces lines and key; a logout ends it all."""
    alice = hub.login("alice")
    own = (laptop.ssh_dir / "config").read_text()
    code, said = laptop.log_in(alice)
    assert code == 0, said
    assert "You are alice until" in said
    assert "ssh near" in said
    assert (laptop.ssh_dir / "config").read_text().endswith(own)
    done = laptop.ssh("near", "id -un; tty")
    assert done.stdout.splitlines()[:1] == ["alice"], done.stderr
    assert laptop.ssh("-tt", "near", "tty").stdout.startswith("/dev/pts/")
    assert laptop.ssh("-W", f"127.0.0.1:{sshd.port}", "near").stdout.startswith("SSH-2.0-")
    assert laptop.ssh("-A", "near", "echo agent:$SSH_AUTH_SOCK").stdout == "agent:\n"
    (laptop.folder / "data").write_text("canary\n")
    config = str(laptop.ssh_dir / "config")
    assert laptop.run("scp", "-F", config, "data", "near:copied").returncode == 0
    assert (sshd.home / "copied").read_text() == "canary\n"
    (first,) = [one for one in laptop.agent_keys() if "cert-v01" in one]

    files = {path.name: path.read_bytes() for path in (laptop.ssh_dir / "hpchub").iterdir()}
    assert not any(b"PRIVATE" in content for content in files.values())
    before = (laptop.ssh_dir / "config").read_text()
    code, said = laptop.log_in(alice)
    assert code == 0, said
    (second,) = [one for one in laptop.agent_keys() if "cert-v01" in one]
    assert (first != second, len(laptop.agent_keys())) == (True, 2)
    assert (laptop.ssh_dir / "config").read_text() == before
    assert {path.name for path in (laptop.ssh_dir / "hpchub").iterdir()} == set(files)
    assert laptop.ssh("near", "id -un").stdout == "alice\n"

    copy = laptop.folder / "copy"
    copy.write_text("\n".join(laptop.agent_keys()) + "\n")
    code, said = laptop.hpchub("logout")
    assert (code, laptop.agent_keys()) == (0, []), said
    assert (laptop.ssh_dir / "config").read_text() == own
    assert [path.name for path in (laptop.ssh_dir / "hpchub").iterdir()] == []
    krl = hub.folder / "signer" / "revoked_keys"
    assert laptop.run("ssh-keygen", "-Q", "-f", str(krl), str(copy)).returncode != 0
    records = [one for one in audit(hub) if one["profile"] == "terminal" and one["user"] == "alice"]
    assert [(one["event"], one["outcome"]) for one in records[-4:]] == [
        ("certificate", "granted"),
        ("certificate", "granted"),
        ("logout", "done"),
        ("logout", "done"),
    ]
    accepted = sshd.log.read_text()
    for one in records[-4:-2]:
        assert f"ID {one['key_id']} (serial {one['serial']})" in accepted


def test_with_a_key_file_a_stolen_copy_is_refused_after_the_logout(
    laptop: Laptop, hub: RunningHub, sshd: Sshd
) -> None:
    """`--key-file` needs no agent and has mode 0600; sshd refuses a copy once the original is given back."""
    del laptop.environ["SSH_AUTH_SOCK"]
    alice = hub.login("alice")
    code, said = laptop.log_in(alice)
    assert code == 1
    assert "No ssh-agent" in said
    key_file = laptop.folder / "key"
    code, said = laptop.log_in(alice, "--key-file", str(key_file))
    assert code == 0, said
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert laptop.ssh("near", "id -un").stdout == "alice\n"
    stolen = laptop.folder / "stolen"
    stolen.write_bytes(key_file.read_bytes())
    stolen.chmod(0o600)
    (certificate,) = (laptop.ssh_dir / "hpchub").glob("*-cert.pub")
    (laptop.folder / "stolen-cert.pub").write_bytes(certificate.read_bytes())
    known = laptop.folder / "known_hosts"
    known.write_text(sshd.known_hosts + "\n")
    as_thief = (
        *("ssh", "-F", "none", "-i", str(stolen), "-o", f"UserKnownHostsFile={known}"),
        *("-o", "BatchMode=yes", "-p", str(sshd.port), "alice@127.0.0.1", "id -un"),
    )
    assert laptop.run(*as_thief).stdout == "alice\n"
    code, said = laptop.hpchub("logout")
    assert code == 0, said
    assert not key_file.exists()
    done = laptop.run(*as_thief)
    assert (done.returncode, done.stdout) == (255, "")


def ask(hub: RunningHub) -> tuple[str, dict[str, str]]:
    """A public key, and what the hub answers a machine that brings it."""
    _, public_key = new_key("a test's")
    return public_key, Hub(hub.url).post("device/authorization", {"public_key": public_key, "name": "<b>x"})


def collect(hub: RunningHub, began: dict[str, str]) -> dict[str, str]:
    """One poll, as late as the hub wants it."""
    time.sleep(0.6)
    fields = {"grant_type": _GRANT_TYPE, "device_code": began["device_code"]}
    return Hub(hub.url).post("device/token", fields)


def test_who_asks_is_shown_and_nothing_happens_without_the_button(hub: RunningHub) -> None:
    """Address, name and key stand on the page, as text; neither a look nor a POST without token grants."""
    public_key, began = ask(hub)
    login_first = hub.session().get("hub/hpchub/device", params={"user_code": began["user_code"]})
    assert "/hub/login?next=" in login_first.url
    page = look_at(hub.login("alice"), began["user_code"].lower().replace("-", " "))
    fingerprint = asyncssh.import_public_key(public_key).get_fingerprint()
    for shown in (html.escape(fingerprint), "127.0.0.1", "&lt;b&gt;x", "<strong>alice</strong>"):
        assert shown in page.text
    assert page.text.index('value="deny"') < page.text.index('value="allow"')
    assert "no-store" in page.headers["Cache-Control"]
    assert collect(hub, began)["error"] == "authorization_pending"
    bare = requests.Session()
    bare.cookies.update(hub.login("alice").cookies)
    form = {"user_code": began["user_code"], "answer": "allow"}
    assert bare.post(f"{hub.url}/hub/hpchub/device", data=form, timeout=30).status_code == 403
    assert collect(hub, began)["error"] == "authorization_pending"


def test_denied_is_denied_once_and_for_all(hub: RunningHub) -> None:
    """The machine is told no, a second answer counts for nothing, and no certificate was made."""
    made = len(audit(hub))
    _, began = ask(hub)
    alice = hub.login("alice")
    assert "Denied" in confirm(alice, began["user_code"], "deny").text
    assert look_at(alice, began["user_code"]).status_code == 422
    assert collect(hub, began)["error"] == "access_denied"
    assert collect(hub, began)["error"] == "invalid_grant"
    assert [one for one in audit(hub)[made:] if one["profile"] == "terminal"] == []


def test_what_was_granted_is_told_once_and_is_whose_who_confirmed(hub: RunningHub) -> None:
    """bob confirms a code: the certificate is bob's and says so; a replayed poll gets nothing."""
    public_key, began = ask(hub)
    assert "Allowed" in confirm(hub.login("bob"), began["user_code"]).text
    granted = collect(hub, began)
    assert granted["username"] == "bob"
    certificate = asyncssh.import_certificate(granted["certificate"])
    assert certificate.principals == ["bob"]
    assert certificate.key.export_public_key().split()[:2] == public_key.encode().split()[:2]
    assert collect(hub, began) == {"error": "invalid_grant"}
    assert collect(hub, {"device_code": "never given out"}) == {"error": "invalid_grant"}


def test_the_machine_may_insist_on_whose_login_it_is(hub: RunningHub, laptop: Laptop) -> None:
    """`--user alice`, confirmed by bob: refused by name, and nothing is written or kept."""
    code, said = laptop.log_in(hub.login("bob"), "--user", "alice")
    assert (code, laptop.agent_keys()) == (1, [])
    assert "bob has confirmed" in said
    assert not (laptop.ssh_dir / "hpchub").exists()
    code, said = laptop.log_in(hub.login("bob"), answer="deny")
    assert (code, "denied" in said, laptop.agent_keys()) == (1, True, [])


def test_too_many_wrong_codes_have_to_wait(hub: RunningHub) -> None:
    """Ten wrong codes of one person, and that person's right one waits too; others' do not."""
    _, began = ask(hub)
    carol = hub.login("carol")
    statuses = [look_at(carol, f"BCDFGHJ{letter}").status_code for letter in "BCDFGHJKLM"]
    assert statuses == [422] * 10
    assert look_at(carol, began["user_code"]).status_code == 429
    assert look_at(hub.login("alice"), began["user_code"]).status_code == 200


def test_a_login_that_has_ended_at_the_bridge_grants_nothing(hub: RunningHub) -> None:
    """The hub's cookie alone is worth nothing: without a session on the bridge the page says so."""
    _, began = ask(hub)
    alice = hub.login("alice")
    page = look_at(alice, began["user_code"])
    token = _XSRF.search(page.text)
    assert token
    hub.bridge.sessions.pop("alice")
    form = {"_xsrf": html.unescape(token[1]), "user_code": began["user_code"], "answer": "allow"}
    answer = alice.post("hub/hpchub/device", data=form)
    assert "has no live session" in answer.text or "/hub/login" in answer.url
    assert collect(hub, began)["error"] == "authorization_pending"


def test_tokens_are_made_listed_and_revoked_with_the_key(hub: RunningHub, laptop: Laptop) -> None:
    """Shown once or written with mode 0600; as scoped as asked, ends as asked, and gone once revoked."""
    assert laptop.hpchub("token", "list")[0] == 1
    code, said = laptop.log_in(hub.login("alice"))
    assert code == 0, said
    file = laptop.folder / "token"
    options = ("--scope", "read:users:name!user", "--expires", "01:00:00", "--note", "canary")
    code, said = laptop.hpchub("token", "new", *options, "--output", str(file))
    assert (code, file.stat().st_mode & 0o777) == (0, 0o600), said
    token = file.read_text().strip()
    assert token not in said
    assert laptop.hpchub("token", "new", *options, "--output", str(file))[0] == 1
    header = {"Authorization": f"token {token}"}
    about = requests.get(f"{hub.url}/hub/api/user", headers=header, timeout=30).json()
    # The groups are what JupyterHub lets every token know of its owner.
    may = {"read:users:name!user=alice", "read:users:groups!user=alice"}
    assert (about["name"], set(about["scopes"]) <= may) == ("alice", True)
    assert (
        requests.get(f"{hub.url}/hub/api/users/alice/tokens", headers=header, timeout=30).status_code == 403
    )
    code, said = laptop.hpchub("token", "list")
    (row,) = [line for line in said.splitlines() if "canary" in line]
    assert (code, token in said, "at work" in said) == (0, False, False)
    assert laptop.hpchub("token", "revoke", row.split()[0])[0] == 0
    assert requests.get(f"{hub.url}/hub/api/user", headers=header, timeout=30).status_code == 403
    code, said = laptop.hpchub("token", "new", "--scope", "admin:users")
    assert (code, "scope" in said) == (1, True)
    assert token not in hub.log()


@pytest.mark.parametrize("asked", ["hub.example.org", "HUB.example.org:8443", "false.example.org"])
def test_a_hub_goes_by_its_own_name(asked: str) -> None:
    """By `public_url`, where that is set: whoever passes something on can ask for any host."""
    request = SimpleNamespace(host=asked)
    for settings, own in (
        ({"public_url": urlsplit("https://hub.example.org/")}, "hub.example.org"),
        ({"public_url": ""}, asked.partition(":")[0].lower()),
    ):
        for meant in ("hub.example.org", "false.example.org", ""):
            handler = SimpleNamespace(
                settings=settings, request=request, get_body_argument={"hub": meant}.__getitem__
            )
            with nullcontext() if meant == own else pytest.raises(NotAllowed, match="Log in at its own"):
                assert own_host(handler) == own


def test_a_challenge_counts_once_and_for_one_purpose(hub: RunningHub) -> None:
    """What was signed to manage tokens logs nobody out, and is worth nothing a second time or elsewhere."""
    key, public_key = new_key("a test's")
    began = Hub(hub.url).post("device/authorization", {"public_key": public_key})
    confirm(hub.login("alice"), began["user_code"])

    def proof(purpose: str, by: asyncssh.SSHKey = key, to: str = Hub(hub.url).host) -> dict[str, str]:
        challenge = Hub(hub.url).post("key/challenge", {})["challenge"]
        made = base64.b64encode(by.sign(key_proof(purpose, to, challenge), b"ssh-ed25519")).decode()
        return {"public_key": public_key, "hub": to, "challenge": challenge, "signature": made}

    used = proof(MANAGE_TOKENS)
    assert "token" in Hub(hub.url).post("key/token", used)
    for path, fields in (
        ("key/token", used),
        ("key/logout", proof(MANAGE_TOKENS)),
        ("key/token", proof(LOG_OUT)),
        ("key/logout", proof(LOG_OUT, new_key("another")[0])),
        ("key/token", proof(MANAGE_TOKENS) | {"challenge": "mine"}),
        ("key/token", proof(MANAGE_TOKENS, to="false.example.org")),
        ("key/token", proof(MANAGE_TOKENS, to="false.example.org") | {"hub": Hub(hub.url).host}),
    ):
        with pytest.raises(NotAllowed):
            Hub(hub.url).post(path, fields)
    assert Hub(hub.url).post("key/logout", proof(LOG_OUT)) == {}
    with pytest.raises(NotAllowed, match="has ended"):
        Hub(hub.url).post("key/token", proof(MANAGE_TOKENS))
