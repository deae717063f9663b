"""The audit log: who tried what, with which factor, and how it ended. One JSON line for each event.

It is apart from the operational log and stricter. A record is checked against `SCHEMA` before it is
written, the line is on the disk when `record` returns, and whoever cannot record an attempt must
grant nothing. Serial and key id are those in sshd's own log, so the two can be joined.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import fastjsonschema

from hpchub.chain import Chain
from hpchub.errors import SiteError

_log = logging.getLogger(__name__)

_TEXT_LENGTH = 256

# syslog(3): facility authpriv, severity info. RFC 3164, section 4.1.1.
_SYSLOG_PRIORITY = (10 << 3) | 6


class Event(StrEnum):
    """What was tried, or what happened.

    `second-factor-change`: somebody proves who they are, to add or remove second factors.
    `terminal-proof`: the key of somebody's own machine has signed, to manage tokens, say.
    `ended`: a login has ended before its ceiling, or an account is locked. `disconnected`: the bridge has
    closed somebody's connections for it.
    """

    LOGIN = "login"
    CERTIFICATE = "certificate"
    ENROLMENT = "enrolment"
    FACTOR_CHANGE = "second-factor-change"
    TERMINAL_PROOF = "terminal-proof"
    FACTOR_REMOVAL = "second-factor-removal"
    SECOND_FACTOR_RESET = "second-factor-reset"
    LIMIT_LIFTED = "limit-lifted"
    ADDRESS_KNOWN = "address-known"
    LOGOUT = "logout"
    REVOCATION = "revocation"
    ENDED = "ended"
    DISCONNECTED = "disconnected"
    CA_CHANGED = "ca-changed"
    HOST_CERTIFICATE = "host-certificate"


class Outcome(StrEnum):
    """How it ended. `refused`: the answer was no. `error`: nobody could tell. `done`: it happened."""

    DONE = "done"
    GRANTED = "granted"
    REFUSED = "refused"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One event. `user` is what was typed, or the account once it is proven; `reason` is the true one.

    `source` is the browser's address as the hub saw it; for a revocation, who asked for it. `serial` is
    decimal text: as a JSON number it would lose digits in tools that read numbers as doubles. `grant_id`
    joins certificates to a login; those for queries come of none. `server_id`, where the bridge asked for
    a server's sake, joins to that server in the other logs. `authority` is the fingerprint of the key that
    signed, or was to sign.
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
    authority: str = ""


_FIELDS = tuple(Record.__dataclass_fields__)

_GRANTED = {"properties": {"outcome": {"const": Outcome.GRANTED.value}}}
_DONE = {"properties": {"outcome": {"const": Outcome.DONE.value}}}
_END = {
    "properties": {
        "event": {
            "enum": [Event.LOGOUT.value, Event.REVOCATION.value, Event.ENDED.value, Event.DISCONNECTED.value]
        }
    }
}
_LOGIN = {"properties": {"event": {"const": Event.LOGIN.value}}}
_QUERY = {"properties": {"profile": {"const": "query"}}}
_CERTIFICATE = {"properties": {"event": {"const": Event.CERTIFICATE.value}}}

# No key and no login need be behind these; what staff do at a terminal may be about an address alone.
_KEYLESS = {"properties": {"event": {"not": {"enum": [Event.LOGIN.value, Event.CERTIFICATE.value]}}}}


def _filled(*names: str) -> dict[str, object]:
    return {"properties": {name: {"minLength": 1} for name in names}}


_TEXT = {"type": "string", "maxLength": _TEXT_LENGTH}

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "hpchub audit record",
    "type": "object",
    "additionalProperties": False,
    "required": ["time", *_FIELDS],
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
        "authority": {"type": "string", "pattern": r"^(?:SHA256:[A-Za-z0-9+/]{43})?$"},
        "server_id": {"type": "string", "pattern": r"^[0-9a-f]{0,64}$"},
        # What the chain adds to each line (hpchub.chain).
        "number": {"type": "integer", "minimum": 1},
        "previous": {"type": "string", "pattern": r"^[0-9a-f]{64}$"},
    },
    "allOf": [
        {"if": _GRANTED, "then": _filled("factor"), "else": _filled("reason")},
        {"if": _END, "then": {"not": _GRANTED}, "else": {"not": _DONE}},
        {"if": {"allOf": [_GRANTED, {"not": _KEYLESS}]}, "then": _filled("user", "fingerprint")},
        {"if": {"allOf": [_GRANTED, {"not": _QUERY}, {"not": _KEYLESS}]}, "then": _filled("grant_id")},
        {
            "if": {"allOf": [_GRANTED, _CERTIFICATE]},
            "then": _filled("profile", "serial", "key_id", "authority"),
        },
        {"if": _LOGIN, "then": {"properties": {"serial": {"maxLength": 0}, "key_id": {"maxLength": 0}}}},
    ],
}

_CONDITIONS = [(fastjsonschema.compile(one["if"]), one) for one in SCHEMA["allOf"]]


@lru_cache
def _check_for(event: str, outcome: str, profile: str) -> Callable[[object], object]:
    """The schema compiled for records of one kind: its conditions ask for nothing but these three fields.

    Interpreting the schema took longer than signing a certificate, and trying its conditions as long.
    """
    kind = {"event": event, "outcome": outcome, "profile": profile}
    branches = [one.get("then" if _holds(check, kind) else "else") for check, one in _CONDITIONS]
    return fastjsonschema.compile({**SCHEMA, "allOf": [branch for branch in branches if branch is not None]})


def _holds(check: Callable[[object], object], body: object) -> bool:
    try:
        check(body)
    except fastjsonschema.JsonSchemaValueException:
        return False
    return True


def render_record(record: Record, at: datetime) -> str:
    """A record as one JSON object without a newline; ASCII, so that no name can end or forge a line.

    Raises:
        ValueError: The record breaks the schema.
    """
    body = {"time": at.astimezone(UTC).isoformat(timespec="microseconds")}
    body |= {name: _bounded(getattr(record, name)) for name in _FIELDS}
    try:
        _check_for(record.event, record.outcome, "query" if record.profile == "query" else "")(body)
    except fastjsonschema.JsonSchemaValueException as error:
        # Not chained: the exception carries the record.
        raise ValueError(f"an audit record breaks its schema at {error.name}: {error.rule}") from None
    # DEL is the one control character that ASCII JSON leaves as it is.
    return json.dumps(body, ensure_ascii=True).replace("\x7f", "\\u007f")


def _bounded(text: str) -> str:
    return text if len(text) <= _TEXT_LENGTH else text[: _TEXT_LENGTH - 1] + "…"


class AuditLog:
    """Appends records to one chained file, made with mode 0600, and copies them to syslog if so wished.

    Safe to use from several threads and processes. The file may be rotated by renaming it, at any time.
    """

    def __init__(self, path: Path, *, rotate_bytes: int = 0, syslog: Path | None = None) -> None:
        """`rotate_bytes`: as `Chain` has it. `syslog`: the local socket, `/dev/log`."""
        self.path = path
        self._chain = Chain(path, rotate_bytes)
        self._syslog = syslog
        self._syslog_failed = False

    def record(self, record: Record) -> None:
        """Write one record; it is on the disk when this returns. Blocks: call it from a thread.

        Raises:
            SiteError: It could not be written. The caller must then grant nothing.
        """
        try:
            texts = [render_record(record, datetime.now(UTC))]
        except ValueError as error:
            raise _unwritable() from error
        self.append(texts)

    def append(self, texts: Sequence[str]) -> None:
        """Write records that were rendered already, all or none. Blocks.

        Raises:
            SiteError: They could not be written.
        """
        try:
            lines = self._chain.append(texts)
        except OSError as error:
            raise _unwritable() from error
        if self._syslog is not None:
            self._tell_syslog(self._syslog, lines)

    def check(self) -> None:
        """Open the file as `record` will; SiteError where that cannot be done."""
        try:
            self._chain.check()
        except OSError as error:
            raise SiteError(f"The audit log {self.path} cannot be written: {error}.") from error

    def _tell_syslog(self, path: Path, lines: Sequence[bytes]) -> None:
        """A copy; the file is the record. So a syslog that is away stops nobody, and is told of once."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(1.0)
                sender.connect(str(path))
                for line in lines:
                    sender.send(b"<%d>hpchub-audit: %s" % (_SYSLOG_PRIORITY, line))
        except OSError as error:
            if not self._syslog_failed:
                _log.error("audit.syslog_away path=%s reason=%s", path, error.strerror or error)
            self._syslog_failed = True
        else:
            self._syslog_failed = False


def _unwritable() -> SiteError:
    return SiteError(
        "The audit log cannot be written, and nothing is granted unrecorded.", "Tell the site's staff."
    )
