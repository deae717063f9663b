"""The plugins in a real JupyterHub behind its real proxy."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
from hub.harness import PASSWORDS, RunningHub

from hpchub.errors import HostUnreachable, StartFailed
from support.hub import HubSession


def until(happened: Callable[[], Any], seconds: float = 15) -> Any:
    """What `happened` returns once it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := happened():
            return result
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def ready(session: HubSession, user: str, name: str = "") -> bool:
    servers = session.get(f"hub/api/users/{user}").json()["servers"]
    return name in servers and bool(servers[name]["ready"])


def test_login_shows_the_form(hub: RunningHub) -> None:
    """After the login comes the form, with each field bound to its label."""
    session = hub.session()
    page = session.submit_login("alice", PASSWORDS["alice"])
    assert page.status_code == 200
    assert page.url.endswith("/hub/spawn")
    for name in ("partition", "account", "time", "cpus", "memory", "gpus", "environment"):
        assert f'for="hpchub-{name}"' in page.text
        assert f'id="hpchub-{name}" name="{name}"' in page.text
    assert ">physics</option>" in page.text
    assert ">chemistry</option>" in page.text


def test_account_names_keep_their_capitals(hub: RunningHub) -> None:
    """A capital and a dot in a name survive the login, and the server starts under that name."""
    session = hub.login("Dot.Cap")
    assert session.get("hub/api/user").json()["name"] == "Dot.Cap"
    answer = hub.api().post("hub/api/users/Dot.Cap/server", json={"user_options": {"placement": "login"}})
    assert answer.status_code in {201, 202}
    until(lambda: ready(hub.api(), "Dot.Cap"))


@pytest.mark.parametrize("name", ["alice", "nobody-here", "root", "../etc", "a b", "ALICE"])
def test_refusals_have_the_same_words(hub: RunningHub, name: str) -> None:
    """A wrong password, an unknown, an unsafe and a miscapitalized name are refused alike."""
    answer = hub.session().submit_login(name, "wrong")
    assert answer.status_code == 403
    assert "Invalid username, password, code or security key" in answer.text


def test_unreachable_signer_is_no_wrong_password(hub: RunningHub) -> None:
    """Where the signer does not answer, the login page says so and blames nobody's password."""
    hub.stop_signer()
    try:
        answer = hub.session().submit_login("alice", PASSWORDS["alice"])
    finally:
        hub.start_signer()
    assert answer.status_code == 503
    assert "Your password was not refused" in answer.text
    assert "Invalid username" not in answer.text
    assert 'name="password"' in answer.text


def test_password_is_nowhere(hub: RunningHub) -> None:
    """The password is in no file and no log of the hub, whatever its log level."""
    hub.login("alice")
    canary = PASSWORDS["alice"].encode()
    files = [path for path in hub.folder.rglob("*") if path.is_file()]
    assert len(files) > 4
    assert [
        path for path in files if canary in path.read_bytes() or b"canary%207391" in path.read_bytes()
    ] == []


def test_logout_and_expiry_end_the_session(hub: RunningHub) -> None:
    """Logout closes the bridge's session; a session that the bridge has ended asks for a new login."""
    session = hub.login("bob")
    assert "bob" in hub.bridge.sessions
    session.get("hub/logout")
    assert "bob" not in hub.bridge.sessions

    session = hub.login("bob")
    del hub.bridge.sessions["bob"]
    time.sleep(1.1)
    assert session.get("hub/home").url.split("?")[0].endswith("/hub/login")


def test_absent_bridge_logs_nobody_out(hub: RunningHub) -> None:
    """Where the bridge cannot be asked, people stay logged in and the form says what is wrong."""
    session = hub.login("alice")
    hub.bridge.close()
    try:
        time.sleep(1.1)
        page = session.get("hub/spawn")
    finally:
        hub.bridge.start()
    assert page.url.endswith("/hub/spawn")
    assert "could not be asked for" in page.text
    assert 'type="text" id="hpchub-account"' in page.text


def test_form_starts_a_server(hub: RunningHub) -> None:
    """The form starts a server with what it says; the way to it leads through the proxy."""
    session = hub.login("alice")
    session.get("hub/spawn")
    answer = session.post(
        "hub/spawn",
        data={
            "cluster": "demo",
            "placement": "compute",
            "partition": "gpu",
            "account": "",
            "time": "00:10:00",
            "cpus": "2",
            "memory": "1G",
            "gpus": "1",
            "environment": "bare",
        },
        headers={"Referer": f"{hub.url}/hub/spawn"},
        params={"_xsrf": session.xsrf_token()},
    )
    assert answer.ok, answer.text
    until(lambda: ready(session, "alice"))
    assert session.get("user/alice/api").json() == {"user": "alice", "server": ""}
    (one,) = hub.bridge.alive("alice")
    assert one.options["gpus"] == "1"
    assert "account" not in one.options
    assert one.base_url == "/user/alice/"
    assert one.environ["JUPYTERHUB_API_TOKEN"]
    assert one.environ["JUPYTERHUB_API_TOKEN"] not in hub.log()


def test_form_names_each_refused_field(hub: RunningHub) -> None:
    """Bad values come back to the form with the field named, the range, and what was typed."""
    session = hub.login("alice")
    session.get("hub/spawn")
    before = len(hub.bridge.served)
    answer = session.post(
        "hub/spawn/alice/second",
        data={
            "placement": "compute",
            "partition": "cpu",
            "time": "00:10:00",
            "cpus": "1e9",
            "memory": "9G",
            "account": "theirs",
            "environment": "$(id)",
        },
        headers={"Referer": f"{hub.url}/hub/spawn/alice/second"},
        params={"_xsrf": session.xsrf_token()},
    )
    assert answer.status_code == 422
    for name in ("cpus", "memory", "account", "environment"):
        assert f'id="hpchub-{name}-error"' in answer.text
        assert f"<strong>{name}</strong>: " in re.search(
            r"spawn-error-msg[^>]*>(.*?)</p>", answer.text, re.S
        ).group(1)
    assert "Allowed: 1 to 4." in answer.text
    assert 'value="1e9"' in answer.text
    assert "$(id) (not offered)" in answer.text
    assert 'id="hpchub-time-error"' not in answer.text
    assert len(hub.bridge.served) == before


def test_link_fills_the_form(hub: RunningHub) -> None:
    """A link fills the form and starts nothing; nothing of it is logged as an error."""
    session = hub.login("alice")
    before = len(hub.bridge.served)
    page = session.get("hub/spawn?partition=gpu&time=00:05:00&cpus=99")
    assert page.status_code == 200
    assert 'name="time" value="00:05:00"' in page.text
    assert re.search(r'<option value="gpu"[^>]*selected', page.text)
    assert "Allowed: 1 to 2." in page.text
    assert "spawn-error-msg" not in page.text
    assert len(hub.bridge.served) == before
    assert "with query arguments\n" not in hub.log()


def test_opt_link_starts_at_once(hub: RunningHub) -> None:
    """JupyterHub's own `opt-` links start a server; a bad one comes back to the form."""
    session = hub.login("alice")
    page = session.get("hub/spawn?opt-placement=compute&opt-cpus=99")
    assert page.status_code == 422
    assert "Allowed: 1 to 4." in page.text
    session.get("hub/spawn?opt-placement=login")
    until(lambda: ready(session, "alice"))
    assert hub.bridge.alive("alice")[0].placement == "login"


def test_rest_refuses_with_the_fields(hub: RunningHub) -> None:
    """The API answers a bad start at once with 422 and the fields, and does not remember it."""
    hub.login("alice")
    api = hub.api()
    answer = api.post("hub/api/users/alice/servers/rest", json={"user_options": {"cpus": -1, "shoe": "9"}})
    assert answer.status_code == 422
    assert "cpus: '-1' cannot be read. Allowed: 1 to 4." in answer.json()["message"]
    assert "'shoe': There is no such option." in answer.json()["message"]
    answer = api.post("hub/api/users/alice/servers/rest")
    assert answer.status_code in {201, 202}, answer.text


def test_named_servers_start_and_stop(hub: RunningHub) -> None:
    """Several named servers run at once, each behind its own path; a stopped one is gone at the bridge."""
    session = hub.login("alice")
    api = hub.api()
    for name, placement in (("one", "login"), ("two", "compute")):
        options = {"user_options": {"placement": placement}}
        assert api.post(f"hub/api/users/alice/servers/{name}", json=options).status_code in {201, 202}
    for name in ("one", "two"):
        until(lambda name=name: ready(session, "alice", name))
        assert session.get(f"user/alice/{name}/api").json() == {"user": "alice", "server": name}
    assert api.delete("hub/api/users/alice/servers/one").status_code in {202, 204}
    until(lambda: [one.server_name for one in hub.bridge.alive("alice")] == ["two"])


def progress_of(session: HubSession, path: str, once_open: Callable[[], None]) -> list[dict[str, Any]]:
    with session.get(path, stream=True) as stream:
        once_open()
        lines = [line for line in stream.iter_lines(decode_unicode=True) if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_progress_tells_each_phase(hub: RunningHub) -> None:
    """The stream tells each phase in the bridge's words, its bar never goes back, and it ends ready."""
    hub.login("alice")
    api = hub.api()
    hub.bridge.stays_queued.set()
    api.post("hub/api/users/alice/server", json={"user_options": {}}, timeout=30)
    events = progress_of(api, "hub/api/users/alice/server/progress", hub.bridge.stays_queued.clear)
    told = [event["message"] for event in events]
    assert "Submitted as job 42" in told
    assert "Job 42 is pending: waiting for resources" in told
    percents = [event["progress"] for event in events]
    assert percents == sorted(percents)
    assert events[-1]["ready"] is True


def test_failed_start_shows_the_log(hub: RunningHub) -> None:
    """A job that dies while starting: its message, hint, last lines and the log's place, all escaped."""
    session = hub.login("alice")
    hub.bridge.dies = StartFailed(
        "Jupyter did not start in job 42.",
        "Choose another environment.",
        log_tail="Traceback <b>\nModuleNotFoundError: jupyterhub",
        log_path="/home/alice/.hpchub/server.log",
    )
    session.get("hub/spawn")
    answer = session.post(
        "hub/spawn",
        data={"placement": "compute"},
        headers={"Referer": f"{hub.url}/hub/spawn"},
        params={"_xsrf": session.xsrf_token()},
    )
    assert answer.status_code in {200, 409}, "the second where it has failed already"
    until(lambda: session.get("hub/spawn-pending/alice").status_code == 409)
    page = session.get("hub/spawn-pending/alice")
    for text in (
        "Jupyter did not start in job 42.",
        "Choose another environment.",
        "ModuleNotFoundError",
        "&lt;b&gt;",
        "/home/alice/.hpchub/server.log",
    ):
        assert text in page.text
    assert "<b>" not in page.text


def test_stop_while_queued_leaves_no_job(hub: RunningHub) -> None:
    """Stopped while its job is queued, a server is gone at the bridge too; its page stops that one."""
    session = hub.login("alice")
    api = hub.api()
    hub.bridge.stays_queued.set()
    assert api.post("hub/api/users/alice/servers/long", json={"user_options": {}}).status_code == 202
    assert len(hub.bridge.queued("alice")) == 1
    assert 'api.stop_named_server("alice", "long"' in session.get("hub/spawn-pending/alice/long").text
    assert api.delete("hub/api/users/alice/servers/long").status_code in {202, 204}
    until(lambda: hub.bridge.alive("alice") == [])


def test_ended_server_is_noticed(hub: RunningHub) -> None:
    """A server that ends by itself is soon known to have ended; one nobody can ask about is not."""
    hub.login("alice")
    api = hub.api()
    api.post("hub/api/users/alice/server", json={"user_options": {"placement": "login"}})
    until(lambda: ready(api, "alice"))
    hub.bridge.close()
    time.sleep(2.5)
    assert ready(api, "alice")
    hub.bridge.start()
    hub.bridge.end(hub.bridge.alive("alice")[0])
    until(lambda: not ready(api, "alice"))


def test_a_deleted_user_leaves_nothing_running(hub: RunningHub) -> None:
    """Whoever is deleted while servers run and wait: all are ended first, and the session with them."""
    hub.login("bob")
    api = hub.api()
    for path in ("server", "servers/named"):
        api.post(f"hub/api/users/bob/{path}", json={"user_options": {"placement": "login"}})
    until(lambda: ready(api, "bob") and ready(api, "bob", "named"))
    hub.bridge.stays_queued.set()
    api.post("hub/api/users/bob/servers/waits", json={"user_options": {}})
    assert len(hub.bridge.queued("bob", 3)) == 3
    answer = api.delete("hub/api/users/bob")
    assert answer.status_code == 204, answer.text
    assert hub.bridge.alive("bob") == [] and "bob" not in hub.bridge.sessions
    assert api.get("hub/api/users/bob").status_code == 404
    hub.login("bob")
    assert api.get("hub/api/users/bob").json()["servers"] == {}


def test_nobody_is_deleted_whose_servers_cannot_be_ended(hub: RunningHub) -> None:
    """An administrator reads why, and the person is still there."""
    hub.login("bob")
    api = hub.api()
    hub.bridge.close()
    answer = api.delete("hub/api/users/bob")
    hub.bridge.start()
    assert answer.status_code == 503 and "bob was not deleted" in answer.json()["message"]
    assert api.get("hub/api/users/bob").status_code == 200


def test_carol_may_use_login_nodes(hub: RunningHub) -> None:
    """Without an association, the form says so and bars compute nodes; login nodes work."""
    session = hub.login("carol")
    page = session.get("hub/spawn")
    assert "no association" in page.text
    assert "Login nodes still work." in page.text
    api = hub.api()
    answer = api.post("hub/api/users/carol/server", json={"user_options": {"placement": "compute"}})
    assert answer.status_code == 409
    assert "no association" in answer.json()["message"]
    assert api.post("hub/api/users/carol/server", json={"user_options": {"placement": "login"}}).ok


def test_silent_cluster_still_shows_the_form(hub: RunningHub) -> None:
    """A cluster that does not answer is named above the form."""
    hub.bridge.asking_fails = HostUnreachable("No login node of Demo answers.", "Try again later.")
    page = hub.login("alice").get("hub/spawn")
    assert "No login node of Demo answers." in page.text
    assert 'id="hpchub-placement-login"' in page.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.slow
def test_servers_outlive_the_hub(hub: RunningHub, number: signal.Signals) -> None:
    """A hub that restarts finds what runs and what is still queued; neither is stopped or doubled."""
    hub.login("alice")
    api = hub.api()
    api.post("hub/api/users/alice/servers/runs", json={"user_options": {"placement": "login"}})
    until(lambda: ready(api, "alice", "runs"))
    hub.bridge.stays_queued.set()
    api.post("hub/api/users/alice/servers/waits", json={"user_options": {}})
    hub.bridge.queued("alice", 2)
    hub.end(number)
    assert len(hub.bridge.alive("alice")) == 2
    hub.begin()
    until(lambda: ready(api, "alice", "runs"), 20)
    assert len(hub.bridge.alive("alice")) == 2
    hub.bridge.stays_queued.clear()
    until(lambda: ready(api, "alice", "waits"), 20)
    assert api.get("user/alice/waits/api").json()["server"] == "waits"
    assert len(hub.bridge.alive("alice")) == 2


@pytest.mark.slow
def test_servers_outlive_a_proxy_of_the_hub_s_own(hub: RunningHub) -> None:
    """Killed, it is started again with every route, though it left its socket behind."""
    hub.login("alice")
    api = hub.api()
    api.post("hub/api/users/alice/server", json={"user_options": {"placement": "login"}})
    until(lambda: ready(api, "alice", ""))
    pid = int((hub.folder / "proxy.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    until(lambda: _route_is_back(api), 20)
    assert int((hub.folder / "proxy.pid").read_text()) != pid


def _route_is_back(api: HubSession) -> bool:
    try:
        return bool(api.get("user/alice/api", timeout=5).status_code == 200)
    except requests.RequestException:
        return False


def test_the_revocation_list(hub: RunningHub) -> None:
    """Whoever asks gets the signer's list, without a login; where the signer is away, 503 and no list."""
    address = f"{hub.url}/hub/hpchub/krl"
    answer = requests.get(address, timeout=10)
    assert answer.status_code == 200 and answer.content.startswith(b"SSHKRL\n\0")
    assert answer.headers["Cache-Control"] == "no-store"
    assert requests.post(address, timeout=10).status_code in {403, 405}
    hub.stop_signer()
    try:
        assert requests.get(address, timeout=10).status_code == 503
    finally:
        hub.start_signer()
