"""The log's lines: what is in them, and what nobody can put there."""

from __future__ import annotations

import asyncio
import json
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpchub.logs import (
    JsonFormatter,
    LogFormat,
    TextFormatter,
    configure_logging,
    correlated,
    correlation_id,
)

ID = "9f" * 16
FORGERIES = (
    "one\n2026-01-01T00:00:00.000Z INFO hpchub.bridge.life server.ready id=forged",
    "red \x1b[31m",
    "back\rward",
    "separators \x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029",
    "turned \u202e around",
    "half a pair \ud800",
)


def record(message: str, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("hpchub.bridge.life", logging.WARNING, "", 0, message, args, info)


def test_a_line_in_text() -> None:
    """Time in UTC, level, logger, event, and fields that are quoted where they are not one plain word."""
    line = TextFormatter().format(record("server.attach_failed id=%s error=%s", ID, 'no "answer" in time'))
    assert line.split(" ", 1)[1] == (
        f"WARNING hpchub.bridge.life server.attach_failed id={ID} "
        'error="no \\"answer\\" in time"'
    )  # fmt: skip
    assert line.split(" ")[0].endswith("Z")


def test_a_line_in_json() -> None:
    """Fields by name, and an event whose name is made of one."""
    body = json.loads(JsonFormatter().format(record("server.%s id=%s job=%d", "ready", ID, 7)))
    assert (body["event"], body["fields"]) == ("server.ready", {"id": ID, "job": "7"})
    assert (body["level"], body["logger"]) == ("WARNING", "hpchub.bridge.life")


@pytest.mark.parametrize("said", FORGERIES)
def test_what_comes_from_outside_stays_in_its_field(said: str) -> None:
    """A remote reason with line ends or terminal controls is one field of one line, in both formats."""
    made = record("scheduler.query_failed user=%s error=%s", "alice", said)
    text = TextFormatter().format(made)
    assert len(text.splitlines()) == 1 and text.isprintable() and text.count(" error=") == 1
    in_json = JsonFormatter().format(made)
    assert len(in_json.splitlines()) == 1 and in_json.isascii() and in_json.isprintable()
    assert json.loads(in_json)["fields"]["error"] == said


@given(st.text())
def test_no_text_forges_a_field(said: str) -> None:
    """Whatever a value holds, the fields that are read back from JSON are those that were logged."""
    body = json.loads(JsonFormatter().format(record("a.b error=%s node=%s", said, "c1")))
    assert body["fields"] == {"error": said, "node": "c1"}
    line = TextFormatter().format(record("a.b error=%s node=%s", said, "c1"))
    assert line.isprintable() and line.endswith(" node=c1")


def test_a_traceback_cannot_look_like_a_line() -> None:
    """Each of its lines is marked; an exception's own text may hold line ends."""
    try:
        raise ValueError("first\n2026-01-01T00:00:00.000Z INFO root server.ready id=forged")
    except ValueError as error:
        made = record("server.crashed id=%s", ID, error=error)
    first, *rest = TextFormatter().format(made).split("\n")
    assert first.endswith(f"server.crashed id={ID}")
    assert rest and all(line.startswith(" | ") for line in rest)
    assert "Traceback" in json.loads(JsonFormatter().format(made))["traceback"]


def test_a_librarys_message_is_an_event_as_it_is() -> None:
    """What is not in our form is not taken apart, and still escaped."""
    line = TextFormatter().format(record("Unclosed %s\nhere a=%s", "client", "b"))
    assert line.endswith("Unclosed client\\nhere a=b")


async def test_the_correlation_id_follows_the_task() -> None:
    """What is begun for a server says so in each line, also in tasks of its own; others do not."""

    async def deep() -> str:
        return TextFormatter().format(record("ssh.connected node=%s", "login1"))

    with correlated(ID):
        task = asyncio.create_task(deep())
        assert correlation_id() == ID
    assert correlation_id() == ""
    assert (await task).endswith(f"node=login1 id={ID}")
    assert "id=" not in await deep()


@pytest.mark.parametrize("text", ["", "x y", "abc\n", "A" * 8, "a" * 33])
def test_only_a_servers_id_correlates(text: str) -> None:
    """Another process sends it: anything else is dropped."""
    with correlated(text):
        assert correlation_id() == ""


def test_configure_logging(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines go to standard error in the format that was set; the SSH library speaks only of trouble."""
    monkeypatch.setattr(logging, "root", logging.RootLogger(logging.WARNING))
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    configure_logging(LogFormat.JSON)
    logging.root.info("a.b c=%s", 1)
    assert json.loads(capsys.readouterr().err)["fields"] == {"c": "1"}
    assert logging.getLogger("asyncssh").level == logging.WARNING
