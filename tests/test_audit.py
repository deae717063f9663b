"""The audit log: whole lines, nothing forged, nothing granted that is not on the disk."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpchub.audit import SCHEMA, AuditLog, Event, Outcome, Record, render_record
from hpchub.audit_files import verify
from hpchub.errors import SiteError

AT = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
GRANTED = Record(
    event=Event.CERTIFICATE,
    outcome=Outcome.GRANTED,
    user="alice",
    factor="password",
    profile="control",
    serial="18446744073709551615",
    key_id="hpchub:alice:control:ff",
    fingerprint="SHA256:" + "a" * 43,
    grant_id="0" * 32,
    authority="SHA256:" + "b" * 43,
)
REFUSED = Record(event=Event.LOGIN, outcome=Outcome.REFUSED, reason="wrong password", user="alice")


def test_a_line_holds_every_field() -> None:
    """A record is one JSON object with the time first and every field of the schema."""
    body = json.loads(render_record(GRANTED, AT))
    assert body == {"time": "2026-01-02T03:04:05.000006+00:00"} | asdict(GRANTED)
    assert next(iter(body)) == "time"
    assert set(body) | {"number", "previous"} == set(SCHEMA["properties"])  # type: ignore[call-overload]


@given(*(st.text() for _ in range(4)))
def test_no_text_forges_or_ends_a_line(user: str, source: str, reason: str, profile: str) -> None:
    """Whatever a person types, the record is one printable ASCII line that says what was typed."""
    record = replace(REFUSED, user=user, source=source, reason=reason or "x", profile=profile)
    line = render_record(record, AT)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["user"] == (user if len(user) <= 256 else user[:255] + "…")


def test_a_certificate_for_queries_comes_of_no_login() -> None:
    """It alone has no grant to be joined to."""
    record = replace(GRANTED, user="slurmwatch", profile="query", factor="socket", grant_id="")
    assert json.loads(render_record(record, AT))["grant_id"] == ""


HAPPENS = {
    Event.LOGOUT: replace(
        GRANTED, event=Event.LOGOUT, reason="by the person", profile="", serial="", key_id=""
    ),
    Event.REVOCATION: Record(
        event=Event.REVOCATION, outcome=Outcome.DONE, reason="stolen", user="alice", source="root"
    ),
    Event.ENDED: replace(GRANTED, event=Event.ENDED, reason="revoked", profile="", serial="", key_id=""),
    Event.DISCONNECTED: Record(
        event=Event.DISCONNECTED, outcome=Outcome.DONE, reason="logged out: 2 connections", user="alice"
    ),
}
IS_GRANTED = {
    Event.LOGIN: replace(GRANTED, event=Event.LOGIN, profile="", serial="", key_id=""),
    Event.CERTIFICATE: GRANTED,
    Event.ENROLMENT: Record(
        event=Event.ENROLMENT, outcome=Outcome.GRANTED, user="alice", factor="totp", source="192.0.2.1"
    ),
    Event.FACTOR_CHANGE: Record(
        event=Event.FACTOR_CHANGE, outcome=Outcome.GRANTED, user="alice", factor="password+webauthn"
    ),
    Event.FACTOR_REMOVAL: Record(
        event=Event.FACTOR_REMOVAL, outcome=Outcome.GRANTED, user="alice", factor="webauthn"
    ),
    Event.TERMINAL_PROOF: Record(
        event=Event.TERMINAL_PROOF, outcome=Outcome.GRANTED, reason="log out", user="alice", factor="password"
    ),
    Event.SECOND_FACTOR_RESET: Record(
        event=Event.SECOND_FACTOR_RESET, outcome=Outcome.GRANTED, user="alice", factor="staff"
    ),
    Event.CA_CHANGED: Record(
        event=Event.CA_CHANGED, outcome=Outcome.GRANTED, reason="switched", factor="staff"
    ),
    Event.HOST_CERTIFICATE: Record(
        event=Event.HOST_CERTIFICATE,
        outcome=Outcome.GRANTED,
        serial="5",
        key_id="hpchub:host",
        factor="staff",
    ),
    Event.LIMIT_LIFTED: Record(
        event=Event.LIMIT_LIFTED, outcome=Outcome.GRANTED, source="192.0.2.1", factor="staff"
    ),
    Event.ADDRESS_KNOWN: Record(
        event=Event.ADDRESS_KNOWN, outcome=Outcome.GRANTED, user="alice", source="192.0.2.1", factor="staff"
    ),
}


@pytest.mark.parametrize("event", Event)
def test_every_event_has_its_outcomes(event: Event) -> None:
    """What was asked for is granted, what just happens is done, and never the other way; either may fail."""
    happens = event in HAPPENS
    good = replace(HAPPENS[event], outcome=Outcome.DONE) if happens else IS_GRANTED[event]
    for outcome in Outcome:
        record = replace(good, outcome=outcome, reason=good.reason or "why")
        if outcome is (Outcome.GRANTED if happens else Outcome.DONE):
            with pytest.raises(ValueError, match="breaks its schema"):
                render_record(record, AT)
        else:
            assert json.loads(render_record(record, AT))["event"] == event.value


def test_long_texts_are_cut() -> None:
    """A name of a megabyte does not make a line of a megabyte."""
    assert len(render_record(replace(REFUSED, user="x" * 10**6), AT)) < 1000


@pytest.mark.parametrize(
    "record",
    [
        replace(REFUSED, reason=""),
        replace(REFUSED, serial="5"),
        replace(GRANTED, serial=""),
        replace(GRANTED, authority=""),
        replace(GRANTED, authority="SHA256:short"),
        replace(GRANTED, serial="0"),
        replace(GRANTED, serial="1e9"),
        replace(GRANTED, key_id=""),
        replace(GRANTED, key_id="a b"),
        replace(GRANTED, key_id="a\nb"),
        replace(GRANTED, fingerprint="MD5:00"),
        replace(GRANTED, user=""),
        replace(GRANTED, factor=""),
        replace(GRANTED, profile=""),
        replace(GRANTED, grant_id="x"),
        replace(GRANTED, grant_id=""),
        replace(GRANTED, profile="query", grant_id="", factor=""),
        replace(IS_GRANTED[Event.LIMIT_LIFTED], factor=""),
        replace(HAPPENS[Event.DISCONNECTED], reason=""),
    ],
)
def test_a_record_that_breaks_the_schema_is_not_written(record: Record, tmp_path: Path) -> None:
    """A refusal without a reason, a certificate without its serial: an error, and no line."""
    log = AuditLog(tmp_path / "audit.jsonl")
    with pytest.raises(SiteError, match="audit log"):
        log.record(record)
    assert not log.path.exists()


def test_no_field_could_hold_a_secret_by_name() -> None:
    """The schema is closed, and none of its fields is a password, a token or a grant."""
    assert SCHEMA["additionalProperties"] is False
    assert {field.name for field in fields(Record)} == {
        "event", "outcome", "reason", "user", "factor", "source",
        "profile", "serial", "key_id", "fingerprint", "grant_id", "server_id", "authority",
    }  # fmt: skip


def test_the_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    """The log is made with mode 0600."""
    umask = os.umask(0)
    try:
        AuditLog(tmp_path / "audit.jsonl").record(REFUSED)
    finally:
        os.umask(umask)
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600


def test_records_are_appended_also_after_rotation(tmp_path: Path) -> None:
    """Renaming the file starts a new one; no record is lost."""
    log = AuditLog(tmp_path / "audit.jsonl")
    log.record(REFUSED)
    log.record(GRANTED)
    log.path.rename(tmp_path / "audit.1")
    log.record(REFUSED)
    assert len((tmp_path / "audit.1").read_text().splitlines()) == 2
    assert len(log.path.read_text().splitlines()) == 1


def test_a_record_cut_short_does_not_spoil_the_next(tmp_path: Path) -> None:
    """After a full disk the next record starts a line of its own."""
    log = AuditLog(tmp_path / "audit.jsonl")
    log.record(REFUSED)
    with log.path.open("a") as file:
        file.write('{"time": "20')
    log.record(GRANTED)
    assert json.loads(log.path.read_text().splitlines()[-1])["key_id"] == GRANTED.key_id


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    """A write that stops half-way raises; whoever asked must grant nothing."""
    limit = 600  # bytes: the first record fits, the second does not
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from hpchub.audit import *; from hpchub.errors import SiteError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "log = AuditLog(Path(sys.argv[1]))\n"
        "record = Record(event=Event.LOGIN, outcome=Outcome.REFUSED, reason='x', user='alice')\n"
        "log.record(record)\n"
        "try:\n    log.record(record)\n"
        "except SiteError as error:\n    print(error.__cause__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.jsonl")], capture_output=True, text=True, check=True
    )
    assert "cut short" in done.stdout
    (line,) = (tmp_path / "a.jsonl").read_text().splitlines(keepends=True)  # and nothing of the second
    assert line.endswith("}\n")
    assert verify(tmp_path / "a.jsonl").faults == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] != limit


@pytest.mark.parametrize("kind", ["symlink", "pipe", "folder", "writable", "no folder"])
def test_a_file_that_others_could_write_is_refused(kind: str, tmp_path: Path) -> None:
    """A link, a pipe, a folder, a file writable by others: an error at the start, and at each record."""
    path = tmp_path / "audit.jsonl"
    if kind == "symlink":
        (tmp_path / "elsewhere").touch(0o600)
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind == "folder":
        path.mkdir()
    elif kind == "writable":
        path.touch()
        path.chmod(0o620)
    else:
        path = tmp_path / "none" / "audit.jsonl"
    with pytest.raises(SiteError, match="cannot be written"):
        AuditLog(path).check()
    with pytest.raises(SiteError, match="cannot be written"):
        AuditLog(path).record(REFUSED)


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    """Records from several threads are all there, each a whole line."""
    log = AuditLog(tmp_path / "audit.jsonl")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(log.record, [replace(REFUSED, user=f"u{n}") for n in range(100)]))
    users = {json.loads(line)["user"] for line in log.path.read_text().splitlines()}
    assert users == {f"u{n}" for n in range(100)}
