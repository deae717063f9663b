"""PAM: a real service with real modules, in a mount namespace where accounts are the test's own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hpchub.core.secret import Secret
from hpchub.errors import RemoteError, SiteError
from hpchub.signer import child, proofs
from hpchub.signer.proofs import PamProof, Refused

_ASK = """
import json, sys
from hpchub.core.secret import Secret
from hpchub.signer.proofs import PamProof
for name, password in json.load(sys.stdin):
    print(json.dumps(repr(PamProof(sys.argv[1]).verify(name, Secret(password)))))
"""


def ask(namespace: tuple[str, ...], pairs: list[tuple[str, str]], service: str = "hpchub-test") -> list[str]:
    done = subprocess.run(
        [*namespace, sys.executable, "-c", _ASK, service],
        input=json.dumps(pairs),
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        timeout=60,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_pam_decides(namespace: tuple[str, ...]) -> None:
    """pam_unix accepts the right password only; locked and expired accounts are refused with it."""
    good, wrong, unknown, locked, expired, empty, cut, root = ask(
        namespace,
        [
            ("alice", "pam-alice"),
            ("alice", "pam-bob"),
            ("nobody.here", "x"),
            ("carol", "pam-carol"),
            ("dora", "pam-dora"),
            ("alice", ""),
            ("alice", "pam-alice\0x"),
            ("root", "x"),
        ],
    )
    assert good == "Accepted(account='alice', factor='password')"
    assert wrong.startswith("Refused(reason='PAM: [PAM Error 7]")
    assert unknown.startswith("Refused(reason='PAM: [PAM Error 10]")
    assert locked.startswith("Refused(reason='PAM: [PAM Error 7]")
    assert expired.startswith("Refused(reason='PAM: [PAM Error 13]")
    assert empty == cut == "Refused(reason='unusable password')"
    assert root == "Refused(reason='unsafe account name')"


def test_an_unknown_service_refuses(namespace: tuple[str, ...]) -> None:
    """A service that PAM does not know lets nobody in."""
    (answer,) = ask(namespace, [("alice", "pam-alice")], service="no-such-service")
    assert answer.startswith("Refused(")


@pytest.mark.parametrize(
    ("username", "password"), [("alice", "x"), ("root", "x"), ("a\0b", "x"), ("alice", ""), ("x" * 9999, "x")]
)
def test_every_attempt_asks_pam_once(monkeypatch: pytest.MonkeyPatch, username: str, password: str) -> None:
    """Names and passwords that can never be right cost one question too, about nobody."""
    asked: list[tuple[list[str], bytes]] = []

    def run(argv: list[str], *, input: bytes, **options: object) -> subprocess.CompletedProcess[bytes]:
        asked.append((argv, input))
        return subprocess.CompletedProcess(argv, 0, b'\n{"ok": false, "said": "no"}', b"")

    monkeypatch.setattr(child.subprocess, "run", run)
    assert isinstance(PamProof("x").verify(username, Secret(password)), Refused)
    ((argv, question),) = asked
    assert username not in argv
    body = json.loads(question)
    assert (body["username"] == username) == (username == "alice" and password != "")
    assert body["password"]


def test_an_unsafe_name_made_by_pam_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PAM module that maps a name to root does not make a certificate for root."""
    answer = subprocess.CompletedProcess([], 0, b'module prints\n{"ok": true, "said": "root"}', b"")
    monkeypatch.setattr(child.subprocess, "run", lambda *args, **options: answer)
    assert PamProof("x").verify("alice", Secret("x")) == Refused("PAM: unsafe account name")


@pytest.mark.parametrize("output", [b"", b"\nnothing", b"\n[]", b'\n{"said": "alice"}', b'\n{"ok": true}'])
def test_a_broken_check_is_an_error(monkeypatch: pytest.MonkeyPatch, output: bytes) -> None:
    """No answer, or half of one, is the site's fault and grants nothing."""
    answer = subprocess.CompletedProcess([], 1, output, b"")
    monkeypatch.setattr(child.subprocess, "run", lambda *args, **options: answer)
    with pytest.raises(SiteError, match="does not work"):
        PamProof("x").verify("alice", Secret("x"))


def test_a_hanging_module_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A module that hangs is killed, and the error carries nothing of what was asked."""
    hanging = tmp_path / "pam_child.py"
    hanging.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(proofs, "__file__", str(tmp_path / "proofs.py"))
    with pytest.raises(RemoteError, match="in time") as caught:
        PamProof("x", timeout_s=0.3).verify("alice", Secret("canary"))
    assert caught.value.__cause__ is None


_LOOK = """
import json, sys
from hpchub.signer.proofs import PamProof
for name in json.load(sys.stdin):
    try:
        print(json.dumps(PamProof("hpchub-test").account_problem(name)))
    except Exception as error:
        print(json.dumps(type(error).__name__))
"""


def test_accounts_without_a_password(namespace: tuple[str, ...]) -> None:
    """Account management alone tells an expired account; one unknown may be a directory that is away."""
    done = subprocess.run(
        [*namespace, sys.executable, "-c", _LOOK],
        input=json.dumps(["alice", "dora", "nobody.here"]),
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2], timeout=60,
    )  # fmt: skip
    fine, expired, unknown = [json.loads(line) for line in done.stdout.splitlines()]
    assert fine == ""
    assert expired.startswith("PAM: [PAM Error 13]")
    assert unknown == "SiteError"
