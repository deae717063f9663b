"""The audit log: who tried what, with which factor, and how it ended. One JSON line for each attempt.

It is apart from the operational log and stricter. A record is checked against `SCHEMA` before it is
written, the line is on the disk when `record` returns, and whoever cannot record an attempt must
grant nothing. Serial and key id are those in sshd's own log, so the two can be joined.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]

from hpchub.errors import SiteError

_TEXT_LENGTH = 256


class Event(StrEnum):
    """What was tried."""

    LOGIN = "login"
    CERTIFICATE = "certificate"
    ENROLMENT = "enrolment"
    SECOND_FACTOR_RESET = "second-factor-reset"
    LIMIT_LIFTED = "limit-lifted"
    ADDRESS_KNOWN = "address-known"


class Outcome(StrEnum):
    """How it ended. `refused`: the answer was no. `error`: nobody could tell."""

    GRANTED = "granted"
    REFUSED = "refused"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One attempt. `user` is what was typed, or the account once it is proven; `reason` is the true one.

    `source` is the browser's address as the hub saw it. `serial` is decimal text: as a JSON number it
    would lose digits in tools that read numbers as doubles. `grant_id` joins certificates to a login;
    those for queries come of none. `server_id`, where the bridge asked for a server's sake, joins to
    that server in the other logs.
    """

    event: Event
    outcome: Outcome
    reason: str = ""
    user: str = ""
    factor: str = ""
    source: str = ""
    profile: str = ""
    serial: str = ""
    key_id: str = ""
    fingerprint: str = ""
    grant_id: str = ""
    server_id: str = ""


_GRANTED = {"properties": {"outcome": {"const": Outcome.GRANTED.value}}}
_LOGIN = {"properties": {"event": {"const": Event.LOGIN.value}}}
_QUERY = {"properties": {"profile": {"const": "query"}}}
_CERTIFICATE = {"properties": {"event": {"const": Event.CERTIFICATE.value}}}


# No key and no login is behind these; what staff do at a terminal may be about an address alone.
_KEYLESS = {"properties": {"event": {"not": {"enum": [Event.LOGIN.value, Event.CERTIFICATE.value]}}}}


def _filled(*names: str) -> dict[str, object]:
    return {"properties": {name: {"minLength": 1} for name in names}}


_TEXT = {"type": "string", "maxLength": _TEXT_LENGTH}

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "hpchub audit record",
    "type": "object",
    "additionalProperties": False,
    "required": ["time", *Record.__dataclass_fields__],
    "properties": {
        "time": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00$"},
        "event": {"enum": [event.value for event in Event]},
        "outcome": {"enum": [outcome.value for outcome in Outcome]},
        "reason": _TEXT,
        "user": _TEXT,
        "factor": _TEXT,
        "source": _TEXT,
        "profile": _TEXT,
        "serial": {"type": "string", "pattern": r"^(?:[1-9][0-9]{0,19})?$"},
        "key_id": {"type": "string", "pattern": r"^[A-Za-z0-9._:=@-]{0,128}$"},
        "fingerprint": {"type": "string", "pattern": r"^(?:SHA256:[A-Za-z0-9+/]{43})?$"},
        "grant_id": {"type": "string", "pattern": r"^[0-9a-f]{0,64}$"},
        "server_id": {"type": "string", "pattern": r"^[0-9a-f]{0,64}$"},
    },
    "allOf": [
        {"if": _GRANTED, "then": _filled("factor"), "else": _filled("reason")},
        {"if": {"allOf": [_GRANTED, {"not": _KEYLESS}]}, "then": _filled("user", "fingerprint")},
        {"if": {"allOf": [_GRANTED, {"not": _QUERY}, {"not": _KEYLESS}]}, "then": _filled("grant_id")},
        {"if": {"allOf": [_GRANTED, _CERTIFICATE]}, "then": _filled("profile", "serial", "key_id")},
        {"if": _LOGIN, "then": {"properties": {"serial": {"maxLength": 0}, "key_id": {"maxLength": 0}}}},
    ],
}

_VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def render_record(record: Record, at: datetime) -> str:
    """The line of a record, newline included; ASCII, so that no name can end or forge a line.

    Raises:
        ValueError: The record breaks the schema.
    """
    body = {"time": at.astimezone(UTC).isoformat(timespec="microseconds")}
    body |= {name: _bounded(value) for name, value in asdict(record).items()}
    fault = jsonschema.exceptions.best_match(_VALIDATOR.iter_errors(body))
    if fault is not None:
        raise ValueError(f"an audit record breaks its schema at {fault.json_path}: {fault.validator}")
    # DEL is the one control character that ASCII JSON leaves as it is.
    return json.dumps(body, ensure_ascii=True).replace("\x7f", "\\u007f") + "\n"


def _bounded(text: str) -> str:
    return text if len(text) <= _TEXT_LENGTH else text[: _TEXT_LENGTH - 1] + "…"


class AuditLog:
    """Appends records to one file, made with mode 0600. Safe to use from several threads and processes.

    The file is opened anew for each record, so it may be rotated by renaming it, at any time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(self, record: Record) -> None:
        """Write one record; it is on the disk when this returns. Blocks: call it from a thread.

        Raises:
            SiteError: It could not be written. The caller must then grant nothing.
        """
        try:
            line = render_record(record, datetime.now(UTC))
            self._append(line.encode("ascii"))
        except (OSError, ValueError) as error:
            raise SiteError(
                "The audit log cannot be written, and nothing is granted unrecorded.",
                "Tell the site's staff.",
            ) from error

    def check(self) -> None:
        """Open the file as `record` will; SiteError where that cannot be done."""
        try:
            os.close(self._open())
        except OSError as error:
            raise SiteError(f"The audit log {self.path} cannot be written: {error}.") from error

    def _open(self) -> int:
        # O_NONBLOCK: a named pipe in the file's place would otherwise block us for ever.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self.path, flags, 0o600)
        status = os.fstat(descriptor)
        # Auditors may be let in to read by the site; nobody else may write.
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            os.close(descriptor)
            raise PermissionError(f"{self.path} is no file of our own that only we may write")
        return descriptor

    def _append(self, line: bytes) -> None:
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # a full disk cut the record before this one short
            if os.write(descriptor, line) != len(line):
                raise OSError(f"{self.path}: a record was cut short")
            os.fsync(descriptor)
            if not size:
                _sync_folder(self.path.parent)  # the new file's own name
        finally:
            os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
