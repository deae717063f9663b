"""`hpchub audit`: searching the log, also with what it should not meet."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from hpchub.audit import AuditLog, Event, Outcome, Record
from hpchub.audit_files import verify
from hpchub.cli import main

MINTED = Record(
    event=Event.CERTIFICATE,
    outcome=Outcome.GRANTED,
    user="alice",
    factor="password",
    profile="control",
    serial="18446744073709551615",
    key_id="hpchub:alice:control:ffffffffffffffff",
    fingerprint="SHA256:" + "a" * 43,
    authority="SHA256:" + "b" * 43,
    grant_id="0" * 32,
)
REFUSED = Record(event=Event.LOGIN, outcome=Outcome.REFUSED, reason="wrong password", user="bob")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    log = AuditLog(tmp_path / "audit.jsonl")
    log.record(MINTED)
    log.record(REFUSED)
    log.record(replace(MINTED, serial="7", key_id="hpchub:alice:tunnel:07", profile="tunnel"))
    return log.path


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), ["18446744073709551615", "", "7"]),
        (("--user", "bob"), [""]),
        (("--user", "BOB"), [""]),
        (("--event", "certificate"), ["18446744073709551615", "7"]),
        (("--outcome", "refused"), [""]),
        (("--serial", "7"), ["7"]),
        (("--serial", "hpchub:alice:tunnel:07"), ["7"]),
        (("--key", "SHA256:" + "a" * 43, "--since", "1h"), ["18446744073709551615", "7"]),
        (
            ("--since", "2020-01-01", "--until", "2099-01-01T00:00:00+02:00"),
            ["18446744073709551615", "", "7"],
        ),
        (("--until", "1d"), []),
        (("--user", "ali"), []),
    ],
)
def test_searching(
    path: Path, arguments: tuple[str, ...], found: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """By name, event, outcome, serial, key id, key and time; exit code 1 where nothing fits."""
    assert main(["audit", "--file", str(path), "--json", *arguments]) == (0 if found else 1)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["serial"] for line in lines] == found


def test_a_name_in_any_case(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guesses at `Alice` were counted as alice's, and a key that two had was revoked for both."""
    AuditLog(path).record(replace(REFUSED, user="Alice"))
    both = replace(REFUSED, event=Event.REVOCATION, outcome=Outcome.DONE, user="alice,bob")
    AuditLog(path).record(both)
    assert main(["audit", "--file", str(path), "--json", "--user", "alice"]) == 0
    found = [json.loads(line)["user"] for line in capsys.readouterr().out.splitlines()]
    assert found == ["alice", "alice", "Alice", "alice,bob"]


def test_a_line_for_people(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line each, with what there is."""
    assert main(["audit", "--file", str(path), "--user", "bob"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith(" login refused user=bob reason='wrong password'")


def test_nothing_in_the_log_draws_on_the_terminal(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name of escape sequences, and lines that are no records, are told and harmless."""
    AuditLog(path).record(replace(REFUSED, user="\x1b[2J\u202eeve\nx"))
    with path.open("ab") as file:
        file.write(b"\xff\x1b[2Jgarbage\n[1]\n" + b"[" * 100_000 + b"\n")
    assert main(["audit", "--file", str(path), "--outcome", "refused"]) == 0
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 2
    assert all(char.isprintable() for line in told.out.splitlines() for char in line)
    assert told.err.count("is no record") == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("--since", "yesterday"),
        ("--since", "999999d"),
        ("--verify", "--anchor", "x"),
        ("--since", "2026-13-01"),
    ],
)
def test_what_cannot_be_read_is_said(
    path: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Times and anchors that are none."""
    assert main(["audit", "--file", str(path), *arguments]) == 1
    assert "hpchub audit: '" in capsys.readouterr().err


def test_syslog_gets_the_same_lines(tmp_path: Path) -> None:
    """With facility authpriv; the hash chain comes with them."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "log"))
        receiver.settimeout(2)
        AuditLog(tmp_path / "audit.jsonl", syslog=tmp_path / "log").record(MINTED)
        said = receiver.recv(65536)
    line = (tmp_path / "audit.jsonl").read_bytes().rstrip(b"\n")
    assert said == b"<86>hpchub-audit: " + line


def test_a_syslog_that_is_away_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The file is the record; the operational log tells of it once, and again after it was back."""
    log = AuditLog(tmp_path / "audit.jsonl", syslog=tmp_path / "none")
    log.record(MINTED)
    log.record(MINTED)
    assert caplog.text.count("audit.syslog_away") == 1
    assert verify(log.path).records == 2
