"""Each person's servers on a domain of their own: a hub at `hub.localhost`, people below it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from hub.harness import PASSWORDS, RunningHub, a_hub
from hub.test_hub import ready, until

from support.ports import free_port

HOST = "hub.localhost"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def names() -> Iterator[None]:
    """Names below `localhost` are this machine (RFC 6761, section 6.3); not every resolver knows."""
    ask = socket.getaddrinfo

    def answer(host: Any, *args: Any, **kwargs: Any) -> Any:
        return ask("127.0.0.1" if str(host).endswith(".localhost") else host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", answer)
        yield


@pytest.fixture(scope="module")
def hub(names: None, clusters_dir: Path) -> Iterator[RunningHub]:
    """A hub of this kind."""
    port = free_port()
    address = f"http://{HOST}:{port}"
    more = f"c.JupyterHub.public_url = '{address}/'\nc.JupyterHub.subdomain_host = '{address}'\n"
    with a_hub(clusters_dir, more=more, port=port, host=HOST) as running:
        yield running


def at(hub: RunningHub, label: str, path: str = "") -> str:
    """An address on somebody's domain."""
    return f"http://{label}.{HOST}:{urlsplit(hub.url).port}/{path}"


def route_is_there(url: str) -> bool:
    return requests.get(url, timeout=10, allow_redirects=False).status_code == 200


def test_each_on_a_domain_of_their_own(hub: RunningHub) -> None:
    """A server answers on its owner's domain alone, through our unix sockets; what it is told names both the
    hub's domain and its own; and a proxy that restarts has the routes back.
    """
    session, api = hub.login("alice"), hub.api()
    api.post("hub/api/users/alice/server", json={"user_options": {"placement": "login"}})
    api.post("hub/api/users/alice/servers/two", json={"user_options": {"placement": "login"}})
    until(lambda: ready(api, "alice") and ready(api, "alice", "two"))
    alice = at(hub, "alice", "user/alice/api")
    for name, url in (("", alice), ("two", at(hub, "alice", "user/alice/two/api"))):
        assert requests.get(url, timeout=10).json() == {"user": "alice", "server": name}
    # On the hub's own domain nothing of a person's is run: JupyterHub sends the browser away.
    answer = session.get("user/alice/api", allow_redirects=False)
    assert answer.status_code == 302
    assert (
        requests.get(at(hub, "bob", "user/alice/api"), timeout=10, allow_redirects=False).status_code != 200
    )
    environ = next(one for one in hub.bridge.alive("alice") if not one.server_name).environ
    assert environ["JUPYTERHUB_HOST"] == hub.url
    assert environ["JUPYTERHUB_OAUTH_CALLBACK_URL"] == at(hub, "alice", "user/alice/oauth_callback")

    before = (hub.folder / "proxy.pid").read_text()
    os.kill(int(before), signal.SIGKILL)

    def is_back() -> bool:
        try:
            return route_is_there(alice) and (hub.folder / "proxy.pid").read_text() != before
        except (requests.RequestException, FileNotFoundError):
            return False

    until(is_back, 20)


def test_a_person_s_page_gets_nothing_of_the_hub_s(hub: RunningHub) -> None:
    """The hub's cookies stay on its own domain, all but the session's number, which opens nothing; forms may
    lead to people's domains and nowhere else.
    """
    session = hub.login("bob")
    sent = {cookie.name: cookie.domain for cookie in session.cookies}
    assert sent.pop("jupyterhub-session-id") == f".{HOST}"
    assert sent and set(sent.values()) == {HOST}
    page = session.get("hub/home")
    port = urlsplit(hub.url).port
    assert f"form-action 'self' http://*.{HOST}:{port};" in page.headers["Content-Security-Policy"]
    thief = hub.session()
    number = next(one.value for one in session.cookies if one.name == "jupyterhub-session-id")
    thief.cookies.set("jupyterhub-session-id", number, domain=f".{HOST}", path="/")
    assert thief.get("hub/api/user").status_code == 403


@pytest.mark.parametrize(
    "there", ["http://evil.example/", "//nothub.localhost/", "//hub.localhost.evil.example/"]
)
def test_a_login_leads_nowhere_else(hub: RunningHub, there: str) -> None:
    """A domain that only looks like one of ours is none."""
    first = hub.session().submit_login("bob", PASSWORDS["bob"], to=there).history[0]
    assert urlsplit(first.headers["Location"]).netloc in {"", urlsplit(hub.url).netloc}


def test_names_that_are_no_domains(hub: RunningHub) -> None:
    """A name with capitals and dots gets a label of its own, which is nobody else's."""
    api = hub.api()
    hub.login("Dot.Cap")
    api.post("hub/api/users/Dot.Cap/server", json={"user_options": {"placement": "login"}})
    until(lambda: ready(api, "Dot.Cap"))
    one = hub.bridge.alive("Dot.Cap")[0]
    label = urlsplit(one.environ["JUPYTERHUB_OAUTH_CALLBACK_URL"]).hostname.removesuffix(f".{HOST}")
    assert label.startswith("u-dotcap--") and "." not in label
    url = at(hub, label, "user/Dot.Cap/api")
    assert requests.get(url, timeout=10).json() == {"user": "Dot.Cap", "server": ""}
