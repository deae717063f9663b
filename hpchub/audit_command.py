"""`hpchub audit`: search the audit log, and check its chain."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hpchub.audit import Event, Outcome
from hpchub.audit_files import Report, files_of, lines_of, verify
from hpchub.chain import read_head
from hpchub.core.slugs import caseless
from hpchub.errors import InvalidRequest
from hpchub.logs import printable
from hpchub.signer.settings import load_settings

DEFAULT_CONFIG = Path("/etc/hpchub/signer.toml")

_AGO = re.compile(r"([0-9]{1,6})([smhd])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_ANCHOR = re.compile(r"([1-9][0-9]{0,18}):([0-9a-f]{64})", re.ASCII)
_SHOWN = ("user", "factor", "profile", "serial", "key_id", "source", "reason")


def configure(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help=f"default: {DEFAULT_CONFIG}")
    where.add_argument("--file", type=Path, help="the log itself; rotated files are found beside it")
    parser.add_argument("--user", help="of this account, or who typed this name")
    parser.add_argument("--event", choices=[event.value for event in Event])
    parser.add_argument("--outcome", choices=[outcome.value for outcome in Outcome])
    parser.add_argument("--serial", help="of this certificate, as sshd's log has it, or of this key id")
    parser.add_argument("--key", metavar="SHA256:…", help="of the session with this key")
    parser.add_argument(
        "--since", metavar="TIME", help="2026-01-31, 2026-01-31T12:00:00, or 90m, 12h, 7d ago"
    )
    parser.add_argument("--until", metavar="TIME", help="likewise; not included")
    parser.add_argument("--json", action="store_true", help="the lines as they are in the file")
    parser.add_argument(
        "--verify", action="store_true", help="check the chain; exit code 1 where it is broken"
    )
    parser.add_argument(
        "--anchor",
        action="append",
        default=[],
        metavar="NUMBER:HASH",
        help="with --verify: as noted elsewhere",
    )
    parser.add_argument(
        "--head", action="store_true", help="print NUMBER:HASH of the newest record, to note it"
    )


def run(args: argparse.Namespace) -> int:
    """Search, or check. Exit code 1 where the chain is broken, or nothing was found."""
    path = args.file or load_settings(args.config).audit_log
    if args.head:
        head = read_head(path)
        if head is None:
            raise InvalidRequest(f"There is no chain at {path}.")
        print(f"{head.number}:{head.hash}")
        return 0
    if args.verify:
        report = verify(path, dict(_anchor(text) for text in args.anchor))
        print(render_report(report))
        return 1 if report.faults else 0
    found = 0
    for line, body in search(path, wanted(args)):
        found += 1
        print(line if args.json else render_line(body))
    return 0 if found else 1


def wanted(args: argparse.Namespace) -> dict[str, str]:
    """What to look for, by field; `since` and `until` as the log writes times.

    Raises:
        InvalidRequest: A time cannot be read.
    """
    now = datetime.now(UTC)
    times = {name: _time(getattr(args, name), now) for name in ("since", "until") if getattr(args, name)}
    fields = {"user": args.user, "event": args.event, "outcome": args.outcome, "fingerprint": args.key}
    if args.serial:
        fields["serial" if args.serial.isdecimal() else "key_id"] = args.serial
    return times | {name: value for name, value in fields.items() if value}


def search(path: Path, what: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records that fit, oldest first, each as its line and as an object. Unreadable lines are told."""
    times = {name: what[name] for name in ("since", "until") if name in what}
    fields = {name: value for name, value in what.items() if name not in times}
    for file in files_of(path):
        for line in lines_of(file):
            body = _object(line.content)
            if body is None:
                print(f"hpchub audit: {line} is no record", file=sys.stderr)
                continue
            at = str(body.get("time", ""))
            in_time = times.get("since", "") <= at and ("until" not in times or at < times["until"])
            if in_time and all(_fits(name, value, body) for name, value in fields.items()):
                yield line.content.decode("ascii", "backslashreplace"), body


def _fits(name: str, wanted: str, body: Mapping[str, Any]) -> bool:
    """Whether a record has that in that field. Names count without their capitals, as failures do."""
    found = str(body.get(name, ""))
    if name != "user":
        return found == wanted
    return caseless(wanted) in {caseless(found), *caseless(found).split(",")}  # of a key's revocation: all


def render_line(body: Mapping[str, Any]) -> str:
    """One record for a terminal: time, event, outcome, then what it has of the rest."""
    words = [str(body.get(name, "-")) for name in ("time", "event", "outcome")]
    words += [f"{name}={str(body[name])!r}" if name == "reason" else f"{name}={body[name]}"
              for name in _SHOWN if body.get(name)]  # fmt: skip
    return printable(" ".join(words))


def render_report(report: Report) -> str:
    """What a check found, faults last."""
    head = report.last
    lines = [
        f"{report.records} records in the chain" + (f", {report.first} to {head.number}" if head else "")
    ]
    lines += [f"newest: {head.number}:{head.hash}"] if head else []
    lines += [printable(note) for note in report.notes]
    lines += [f"BROKEN {printable(fault)}" for fault in report.faults]
    return "\n".join([*lines, "the chain is broken" if report.faults else "the chain is whole"])


def _anchor(text: str) -> tuple[int, str]:
    match = _ANCHOR.fullmatch(text)
    if not match:
        raise InvalidRequest(f"{text!r} is no NUMBER:HASH.", "Give what `hpchub audit --head` printed.")
    return int(match[1]), match[2]


def _time(text: str, now: datetime) -> str:
    ago = _AGO.fullmatch(text)
    try:
        at = now - timedelta(**{_UNITS[ago[2]]: int(ago[1])}) if ago else datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(
            f"{text!r} is no time.", "Write 2026-01-31T12:00:00, or 12h for 12 hours ago."
        ) from error
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None
