"""hpchub.core.server: what crosses the bridge's socket comes out as it went in"""

from __future__ import annotations

import json

import pytest

from hpchub.core.server import Phase, ServerView
from hpchub.errors import StartFailed

PLAIN = {
    "id": "9f",
    "user": "alice",
    "server_name": "",
    "cluster": "demo",
    "placement": "compute",
    "phase": "queued",
    "job_id": "42",
    "node": "",
    "native_state": "PENDING",
    "socket": "",
    "error": None,
    "created_at": 1.5,
}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"reason": "waiting for resources (Resources)", "queue_place": 3, "expected_start": 1700000000},
        {"ends_at": 1700003600},
    ],
)
def test_a_view_survives_the_way(more: dict[str, object]) -> None:
    """A view is read back as it was written, with what is known of its job and without."""
    view = ServerView.from_dict({**PLAIN, **more})
    assert view.phase is Phase.QUEUED
    assert ServerView.from_dict(json.loads(json.dumps(view.as_dict()))) == view


def test_what_is_not_known_is_none() -> None:
    """A bridge that says nothing of a job's times is understood."""
    view = ServerView.from_dict(PLAIN)
    assert (view.reason, view.queue_place, view.expected_start, view.ends_at) == ("", None, None, None)


def test_an_error_keeps_its_class() -> None:
    """It comes out as the class that went in."""
    body = {**PLAIN, "error": {"error": "StartFailed", "message": "It ended.", "log_tail": "x"}}
    error = ServerView.from_dict(json.loads(json.dumps(ServerView.from_dict(body).as_dict()))).error
    assert isinstance(error, StartFailed)
    assert error.log_tail == "x"
