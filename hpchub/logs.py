"""The operational log: one event per line, its fields by name, and one id from the click to the job.

A log call is `log.info("server.ready id=%s node=%s", …)`: an event and its fields. Much of what the
fields hold comes from outside, so no value can end a line, begin one, or pass for another field.
"""

from __future__ import annotations

import contextvars
import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum

CORRELATION_HEADER = "X-Hpchub-Server"

# A server's id (docs/reference/processes.md). What else comes in a header is not ours.
_ID = re.compile(r"[0-9a-f]{1,32}", re.ASCII)
_EVENT = re.compile(r"[a-z_]+(?:\.[a-z_]+)+")
_FIELD = re.compile(r"([a-z_]+)=%(?:\.\d+)?[sdrfg]")
_PLAIN = re.compile(r"[\w./:@+-]+", re.ASCII)

_correlation: contextvars.ContextVar[str] = contextvars.ContextVar("hpchub_correlation", default="")


class LogFormat(StrEnum):
    """How a line looks: for people, or for a log store."""

    TEXT = "text"
    JSON = "json"


@contextmanager
def correlated(server_id: str) -> Iterator[None]:
    """What is done inside, and in the tasks begun there, is about one server.

    Text that cannot be a server's id is ignored: it may come from another process.
    """
    token = _correlation.set(server_id if _ID.fullmatch(server_id) else "")
    try:
        yield
    finally:
        _correlation.reset(token)


def correlation_id() -> str:
    """The id of the server that the running task is about; empty where there is none."""
    return _correlation.get()


def configure_logging(log_format: LogFormat) -> None:
    """Log to standard error from INFO on, and of the libraries only what staff should see."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format is LogFormat.JSON else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("asyncssh").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.000Z INFO hpchub.bridge.life server.ready id=9f… node=c1`.

    A traceback follows on lines that begin with ` | `, as no line of the log does.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line, and those of the traceback."""
        event, fields = parse_record(record)
        words = [_time(record), record.levelname, record.name, printable(event)]
        words += [f"{name}={_word(value)}" for name, value in fields.items()]
        traceback = "".join(f"\n | {printable(line)}" for line in _traceback(record).split("\n") if line)
        return " ".join(words) + traceback


class JsonFormatter(logging.Formatter):
    """One JSON object per line: `time`, `level`, `logger`, `event`, `fields`, and `traceback` if any."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of ASCII."""
        event, fields = parse_record(record)
        body: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "event": event,
            "fields": fields,
        }
        if traceback := _traceback(record):
            body["traceback"] = traceback
        # DEL is the one control character that ASCII JSON leaves as it is.
        return json.dumps(body, ensure_ascii=True).replace("\x7f", "\\u007f")


def parse_record(record: logging.LogRecord) -> tuple[str, dict[str, str]]:
    """The event and its fields. A library's message, which has none, is an event as it is."""
    head, _, rest = str(record.msg).partition(" ")
    args = record.args if isinstance(record.args, tuple) else ()
    in_head, names = head.count("%"), _FIELD.findall(rest)
    event = record.getMessage()
    fields: dict[str, str] = {}
    if in_head + len(names) == len(args) and rest.count("%") == len(names):
        named = head % args[:in_head] if in_head else head
        if _EVENT.fullmatch(named):
            event = named
            fields = {name: str(value) for name, value in zip(names, args[in_head:], strict=True)}
    if correlation_id():
        fields.setdefault("id", correlation_id())
    return event, fields


def _time(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _traceback(record: logging.LogRecord) -> str:
    text = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
    return "\n".join(filter(None, (text, record.stack_info)))


def _word(value: str) -> str:
    """The value as it is, or quoted where it could be taken for more than one word."""
    return value if _PLAIN.fullmatch(value) else '"' + printable(value).replace('"', '\\"') + '"'


def printable(text: str) -> str:
    """The text without line ends, terminal controls, or characters that turn the direction of text."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text
    )
