"""What the hub's pages tell of a person's servers, in a real JupyterHub."""

from __future__ import annotations

import time
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from hub.harness import RunningHub
from hub.recorded_bridge import Served

from support.hub import HubSession

_HOSTILE = "waiting for <img src=x onerror=alert(1)> \u202eresources (Resources)\n"


def _asked(session: HubSession, query: str = "") -> tuple[int, str]:
    """What the pages' script would get."""
    token = session.xsrf_token()
    headers = {"X-XSRFToken": token, "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
    answer = session.get(f"hub/hpchub/servers{query}", headers=headers, allow_redirects=False)
    return answer.status_code, answer.text


@pytest.fixture
def waiting(hub: RunningHub) -> Iterator[tuple[HubSession, Served]]:
    """alice, whose server waits in the queue."""
    hub.bridge.stays_queued.set()
    session = hub.login("alice")
    session.get("hub/spawn")
    options = {"partition": "gpu", "cpus": 2}
    answer = session.post("hub/api/users/alice/server", json={"user_options": options})
    assert answer.status_code == 202, answer.text
    [one] = hub.bridge.queued("alice")
    one.more |= {"node": "", "reason": _HOSTILE, "queue_place": 3, "expected_start": 1_900_000_000}
    yield session, one
    hub.bridge.stays_queued.clear()


@pytest.mark.parametrize("page", ["hub/home", "hub/spawn-pending/alice", "hub/hpchub/servers"])
def test_waiting_server(waiting: tuple[HubSession, Served], page: str) -> None:
    """Both pages, and what their script asks for, say where the job waits, why, and until when; what came
    from the cluster is text and never markup.
    """
    session, _ = waiting
    html = session.get(page).text
    assert "Demo, partition gpu, job 42" in html
    assert "3 jobs of its partition go first." in html
    assert 'datetime="2030-03-17T17:46:40+00:00"' in html
    assert "waiting for &lt;img src=x onerror=alert(1)&gt;  resources (Resources)" in html
    assert "<img src=x" not in html
    assert "\u202e" not in html


def test_running_server(hub: RunningHub) -> None:
    """A running server tells its node and the time left; a successor is offered near the end only."""
    session = hub.login("alice")
    session.get("hub/spawn")
    session.post("hub/api/users/alice/server", json={"user_options": {}})
    [one] = hub.bridge.queued("alice")
    one.more |= {"phase": "ready", "ends_at": time.time() + 3 * 3600 + 30}
    _, html = _asked(session)
    assert "Demo, node c1, job 42" in html
    assert "<strong data-until=" in html
    assert "3 h 0 min" in html
    assert "successor" not in html
    one.more["reason"] = "login1 could not be reached."
    assert "login1 could not be reached." in _asked(session)[1]
    one.more["ends_at"] = time.time() + 600
    _, html = _asked(session)
    assert 'href="/hub/hpchub/successor/"' in html


def test_only_ones_own(hub: RunningHub, waiting: tuple[HubSession, Served]) -> None:
    """Nobody reads another's servers, neither by name nor without a login, nor with a token."""
    bob = hub.login("bob")
    assert _asked(bob) == (200, "")
    assert _asked(bob, "?user=alice")[0] == 404
    assert _asked(hub.session())[0] == 403
    assert hub.api().get("hub/hpchub/servers").status_code == 403
    alice, _ = waiting
    assert "job 42" in _asked(alice, "?user=alice&server=")[1]
    assert _asked(alice, "?server=other") == (200, "")


def test_pages_of_notebooks_cannot_ask(waiting: tuple[HubSession, Served]) -> None:
    """A script that has the cookie and no XSRF token of the hub's, as in a notebook's page, is refused."""
    session, _ = waiting
    headers = {"X-XSRFToken": "", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
    assert session.get("hub/hpchub/servers", headers=headers).status_code == 403


def test_absent_bridge(hub: RunningHub) -> None:
    """Without the bridge the home page comes, at once, and says what it cannot tell."""
    session = hub.login("alice")
    hub.bridge.close()
    try:
        began = time.monotonic()
        page = session.get("hub/home")
        assert time.monotonic() - began < 3
    finally:
        hub.bridge.start()
    assert page.status_code == 200
    assert "cannot be asked just now" in page.text


def test_successor(hub: RunningHub, waiting: tuple[HubSession, Served]) -> None:
    """A successor's link leads to the form of a new server with the same options, and starts nothing."""
    session, _ = waiting
    answer = session.get("hub/hpchub/successor/", allow_redirects=False)
    assert answer.status_code == 302
    where = urlsplit(answer.headers["Location"])
    assert where.path == "/hub/spawn/alice/next"
    assert parse_qs(where.query) == {"partition": ["gpu"], "cpus": ["2"]}
    form = session.get("hub/hpchub/successor")
    assert form.status_code == 200
    assert 'value="gpu"' in form.text
    assert len(hub.bridge.alive("alice")) == 1
    assert session.get("hub/hpchub/successor/nobody").status_code == 404
    assert "/hub/login" in hub.session().get("hub/hpchub/successor/").url
