"""What the page in a server's place tells of its end, in a real JupyterHub."""

from __future__ import annotations

import signal

import pytest
from hub.harness import RunningHub

from hpchub.errors import StartFailed
from support.hub import HubSession
from support.servers import until

_SAYS_NOTHING = "Server not running"
_ON_LOGIN_NODE = {"user_options": {"placement": "login"}}


def _why(words: str) -> StartFailed:
    return StartFailed(words, "Ask for more.", log_tail="the log's <b>last line")


def _start(api: HubSession, name: str = "") -> None:
    path = f"hub/api/users/alice/servers/{name}" if name else "hub/api/users/alice/server"
    answer = api.post(path, json=_ON_LOGIN_NODE)
    assert answer.status_code in {201, 202}, answer.text
    until(lambda: bool(_server(api, name).get("ready")), f"server {name!r} is ready")


def _server(api: HubSession, name: str) -> dict[str, object]:
    found: dict[str, object] = api.get("hub/api/users/alice").json()["servers"].get(name, {})
    return found


def _end(hub: RunningHub, name: str, error: StartFailed) -> None:
    hub.bridge.end(next(one for one in hub.bridge.alive("alice") if one.server_name == name), error)


def _let_go(api: HubSession, name: str = "") -> None:
    until(lambda: not _server(api, name), f"the hub has let server {name!r} go")


def _page(session: HubSession, path: str) -> str:
    answer = session.get(f"user/alice/{path}")
    assert answer.status_code == 424, answer.text
    return answer.text


def test_a_server_that_ended_by_itself(hub: RunningHub) -> None:
    """Its page and the form say why, with the log's last lines escaped; not once the next was stopped."""
    session, api = hub.login("alice"), hub.api()
    _start(api)
    _end(hub, "", _why("Job 42 ended: its time was up."))
    _let_go(api)
    for path in ("", "tree"):
        said = _page(session, path)
        assert "Your server has ended" in said and "Job 42 ended: its time was up." in said
        assert "Ask for more." in said and "the log&#39;s &lt;b&gt;last line" in said
    assert "Job 42 ended: its time was up." in session.get("hub/spawn").text, "who logs in later reads it too"
    assert "Job 42" not in session.get("hub/spawn?cpus=1").text, "a filled form is about the next one"
    _start(api)
    assert api.delete("hub/api/users/alice/server").status_code in {202, 204}
    _let_go(api)
    said = _page(session, "tree")
    assert _SAYS_NOTHING in said and "Job 42" not in said and "Reload this page" not in said
    assert "Job 42" not in session.get("hub/spawn").text


@pytest.mark.slow
def test_ends_around_a_restart_of_the_hub(hub: RunningHub) -> None:
    """They are told whether the hub had noticed, was away, or was killed while the server waited."""
    session, api = hub.login("alice"), hub.api()
    _start(api, "before")
    _start(api, "meanwhile")
    _end(hub, "before", _why("It ended before."))
    _let_go(api, "before")
    hub.bridge.stays_queued.set()
    assert api.post("hub/api/users/alice/servers/waits", json={"user_options": {}}).status_code == 202
    hub.bridge.queued("alice", 2)
    hub.end(signal.SIGKILL)
    _end(hub, "meanwhile", _why("It ended meanwhile."))
    _end(hub, "waits", _why("It was cancelled in the queue."))
    hub.begin()
    for name, words in (
        ("before", "It ended before."),
        ("meanwhile", "It ended meanwhile."),
        ("waits", "It was cancelled in the queue."),
    ):
        _let_go(api, name)
        said = _page(session, f"{name}/lab")
        assert "Your server has ended" in said and words in said, (name, said)


def test_a_server_that_is_called_as_a_page_of_jupyters(hub: RunningHub) -> None:
    """JupyterHub takes the default server's `/lab` for the one called "lab"; both their ends are told."""
    session, api = hub.login("alice"), hub.api()
    _start(api, "lab")
    assert api.delete("hub/api/users/alice/servers/lab").status_code in {202, 204}
    _let_go(api, "lab")
    _start(api)
    _end(hub, "", _why("The default one ended."))
    _let_go(api)
    said = _page(session, "lab/tree/notes.ipynb")
    assert "Your default server, which has this address too" in said and "The default one ended." in said
    _start(api, "lab")
    _end(hub, "lab", _why("The one called lab ended."))
    _let_go(api, "lab")
    said = _page(session, "lab")
    assert "The one called lab ended." in said and "Your default server" not in said
    assert "The default one ended." in _page(session, "")


def test_a_bridge_that_is_away(hub: RunningHub) -> None:
    """The page is there without the reason, and says so."""
    session = hub.login("alice")
    hub.bridge.close()
    try:
        said = _page(session, "")
    finally:
        hub.bridge.start()
    assert _SAYS_NOTHING in said and "cannot be asked just now" in said


def test_the_end_of_somebody_else_s_server(hub: RunningHub) -> None:
    """Who gets the name of a person who was deleted does not read what became of that person's server."""
    session, api = hub.login("alice"), hub.api()
    _start(api, "secret")
    _end(hub, "secret", _why("What nobody else may read."))
    _let_go(api, "secret")
    assert "What nobody else may read." in _page(session, "secret/lab")
    assert api.delete("hub/api/users/alice").status_code == 204
    session = hub.login("alice")
    assert api.put("hub/api/users/alice/servers/secret").status_code == 201
    said = _page(session, "secret/lab")
    assert _SAYS_NOTHING in said and "What nobody else may read." not in said


def test_a_start_after_one_that_failed(hub: RunningHub) -> None:
    """The API says that it is pending, as it does of any other."""
    hub.login("alice")
    api = hub.api()
    hub.bridge.dies = _why("It did not start.")
    assert api.post("hub/api/users/alice/server", json=_ON_LOGIN_NODE).status_code in {202, 409}
    _let_go(api)
    hub.bridge.dies = None
    hub.bridge.stays_queued.set()
    answer = api.post("hub/api/users/alice/server", json={"user_options": {}})
    assert answer.status_code == 202
    assert _server(api, "")["pending"] == "spawn"
