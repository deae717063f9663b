"""What browsers are told: in every answer, by the real hub behind its real proxy."""

from __future__ import annotations

import logging
import re
from types import SimpleNamespace
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
import requests
from hub.harness import ADMIN, PASSWORDS, RunningHub
from hub.test_second_factor import enrolling as enrolling
from jinja2 import DictLoader, Environment
from jupyterhub.handlers import BaseHandler
from tornado.web import RequestHandler

from hpchub.hub.authenticators import HpchubAuthenticator
from hpchub.hub.browser_rules import ScriptNonces, form_targets, has_tls, set_browser_rules
from hpchub.hub.terminals import ForProgramsHandler
from support.hub import HubSession

_TAG = re.compile(r"<script\b[^>]*>")
_NONCE = re.compile(r"script-src 'nonce-([\w-]{20,})' 'strict-dynamic'(?:;|$)")


def nonce_of(answer: requests.Response) -> str:
    found = _NONCE.search(answer.headers["Content-Security-Policy"])
    assert found, answer.headers
    return found[1]


def test_only_the_page_s_own_scripts_run(hub: RunningHub) -> None:
    """Each script carries the answer's nonce, new each time; nothing else may run, frame or embed."""
    alice = hub.login("alice")
    paths = ("home", "spawn", "token", "no-such-page", "spawn?partition=gpu", "spawn-pending/alice/none")
    answers = [hub.session().get("hub/login"), *(alice.get(f"hub/{path}") for path in (*paths, "home"))]
    for answer in answers:
        tags = _TAG.findall(answer.text)
        assert len(tags) >= 4
        assert [tag for tag in tags if f'nonce="{nonce_of(answer)}"' not in tag] == []
        policy = answer.headers["Content-Security-Policy"]
        assert "script-src 'unsafe" not in policy and "unsafe-eval" not in policy
        for rule in ("object-src 'none'", "base-uri 'none'", "frame-ancestors 'none'", "form-action 'self';"):
            assert rule in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert "camera=()" in answer.headers["Permissions-Policy"]
        assert "Strict-Transport-Security" not in answer.headers  # this hub speaks plain HTTP
    assert len({nonce_of(answer) for answer in answers}) == len(answers)


def test_answers_that_are_no_pages_run_nothing(hub: RunningHub) -> None:
    """The API's answers and the pieces of pages keep their narrower policies."""
    session = hub.login("alice")
    for path in ("hub/api/user", "hub/hpchub/servers"):
        answer = session.get(path)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_of_the_second_factor(enrolling: tuple[HubSession, requests.Response]) -> None:
    """It keeps to the rules, and tells nobody where the person was."""
    _, page = enrolling
    assert f'nonce="{nonce_of(page)}"' in page.text
    assert page.headers["Referrer-Policy"] == "no-referrer"


def test_cookies_are_for_the_hub_alone(hub: RunningHub) -> None:
    """No script reads them, no other site's page sends them along, and the login's is for /hub/ alone."""
    session = hub.login("alice")
    cookies = {cookie.name: cookie for cookie in session.cookies}
    assert {"jupyterhub-hub-login", "jupyterhub-session-id", "_xsrf"} <= set(cookies)
    for cookie in cookies.values():
        rest = {key.lower(): value for key, value in cookie._rest.items()}
        assert "httponly" in rest and rest["samesite"] == "Lax", cookie
        assert not cookie.secure  # this hub speaks plain HTTP
    assert cookies["jupyterhub-hub-login"].path == cookies["_xsrf"].path == "/hub/"


def test_a_session_that_somebody_else_began_is_worth_nothing(hub: RunningHub) -> None:
    """Fixation: whoever planted a session's id before the login is not logged in by it afterwards."""
    planted = "0123456789abcdef" * 2
    victim, thief = hub.session(), hub.session()
    for session in (victim, thief):
        session.cookies.set("jupyterhub-session-id", planted, domain="127.0.0.1", path="/")
    before = thief.get("hub/login")
    victim.login("alice", PASSWORDS["alice"])
    assert thief.get("hub/home").url.split("?")[0].endswith("/hub/login")
    assert thief.get("hub/api/user").status_code == 403
    # Nor is the XSRF token good that was handed out before.
    token = re.search(r'name="_xsrf"[^>]*value="([^"]*)"', before.text)
    assert token
    answer = victim.post("hub/spawn", params={"_xsrf": token[1]}, headers={"X-XSRFToken": token[1]})
    assert answer.status_code == 403


_ELSEWHERE = (
    "https://evil.example/",
    "/\\evil.example/",
    "///evil.example/",
    "//evil.example/",
    "\\\\evil.example",
    "https:evil.example",
    "javascript:alert(1)",
    "http://127.0.0.1.evil.example/hub/home",
)


def test_a_login_leads_nowhere_else(hub: RunningHub) -> None:
    """`next=` takes people to pages of this hub and to no other place, logged in before or now."""
    session = hub.login("bob")
    answers = [
        hub.session().submit_login("bob", PASSWORDS["bob"], to=there).history[0] for there in _ELSEWHERE[:3]
    ] + [session.get("hub/login", params={"next": there}, allow_redirects=False) for there in _ELSEWHERE]
    for answer in answers:
        assert answer.status_code == 302
        leads = urlsplit(urljoin(answer.url, answer.headers["Location"]))
        assert (leads.scheme, leads.netloc) == ("http", urlsplit(hub.url).netloc)


def test_a_login_s_address_makes_no_header(hub: RunningHub) -> None:
    """A line end in `next=` begins no header of its own."""
    there = "/hub/home\r\nX-Planted: yes"
    for answer in (
        hub.session().submit_login("bob", PASSWORDS["bob"], to=there),
        hub.login("bob").get("hub/login", params={"next": there}, allow_redirects=False),
    ):
        assert not any("X-Planted" in one.headers for one in (answer, *answer.history))


def app(**more: Any) -> SimpleNamespace:
    """As much of JupyterHub as the rules look at."""
    known: dict[str, Any] = dict.fromkeys(("ssl_cert", "public_url", "subdomain_host"), "")
    known["log"] = logging.getLogger("hub")
    known |= {"bind_url": "http://:8000", "services": []}
    environments = {name: Environment(autoescape=True) for name in ("jinja2_env", "jinja2_env_sync")}
    return SimpleNamespace(**{**known, "tornado_settings": environments, **more})


def _ours_that_change() -> list[tuple[str, str]]:
    """Every address of ours and method that changes something, but those where no cookie counts."""
    policy = BaseHandler.content_security_policy
    try:
        handlers = HpchubAuthenticator().get_handlers(app())
    finally:
        BaseHandler.content_security_policy = policy
    return [
        (method, re.sub(r"\(.*?\)", "x", path).removesuffix("/?"))
        for path, handler, *_ in handlers
        for method in ("post", "put", "patch", "delete")
        if getattr(handler, method) is not getattr(RequestHandler, method)
        and not issubclass(handler, ForProgramsHandler)
    ]


@pytest.mark.parametrize(("method", "path"), _ours_that_change())
def test_nothing_is_changed_without_the_token(hub: RunningHub, method: str, path: str) -> None:
    """Every handler of ours that changes something refuses a caller without the hub's XSRF token."""
    session = hub.login("alice")
    for headers in (
        {},
        {"X-XSRFToken": "0" * 32},
        {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"},
    ):
        answer = requests.request(
            method,
            f"{hub.url}/hub{path}",
            headers={**headers, "Cookie": session.cookie_header("/hub/")},
            data={"username": "alice", "password": PASSWORDS["alice"], "code": "123456"},
            allow_redirects=False,
            timeout=10,
        )
        assert answer.status_code == 403
        assert "xsrf" in answer.text.lower()
        assert "set-cookie" not in {name.lower() for name in answer.headers} or "hub-login" not in str(
            answer.headers["Set-Cookie"]
        )


def test_a_form_is_not_sent_without_the_token(hub: RunningHub) -> None:
    """JupyterHub's form, which starts servers: a page of another site cannot press its button."""
    session = hub.login("alice")
    cookies = session.cookie_header("/hub/")
    answer = requests.post(
        f"{hub.url}/hub/spawn", headers={"Cookie": cookies}, data={"placement": "login"}, timeout=10
    )
    assert answer.status_code == 403
    assert hub.bridge.alive("alice") == []


@pytest.fixture
def policy_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BaseHandler, "content_security_policy", BaseHandler.content_security_policy)


@pytest.mark.usefixtures("policy_kept")
@pytest.mark.parametrize(
    ("more", "is_tls"),
    [
        ({}, False),
        ({"public_url": "https://hub.example.org/"}, True),
        ({"subdomain_host": "https://hub.example.org"}, True),
        ({"ssl_cert": "/etc/tls/hub.pem"}, True),
        ({"bind_url": "https://:443"}, True),
        ({"public_url": "http://hub.example.org/"}, False),
    ],
)
def test_tls_makes_it_stricter(more: dict[str, str], is_tls: bool, caplog: pytest.LogCaptureFixture) -> None:
    """With TLS, cookies are for TLS alone and browsers remember to use it; without, nobody is locked out."""
    hub = app(**more)
    set_browser_rules(hub)
    assert ("no_tls" in caplog.text) is not bool(more)  # said where the site has said nothing
    settings = hub.tornado_settings
    assert has_tls(hub) is is_tls
    assert ("Strict-Transport-Security" in settings["headers"]) is is_tls
    for cookies in (settings["cookie_options"], settings["xsrf_cookie_kwargs"]):
        assert (cookies.get("secure"), cookies["samesite"]) == (True if is_tls else None, "Lax")


@pytest.mark.usefixtures("policy_kept")
def test_what_a_site_sets_stays() -> None:
    """Its headers and cookie options, however it writes them."""
    hub = app(public_url="https://hub.example.org/")
    hub.tornado_settings |= {
        "headers": {"referrer-policy": "no-referrer", "X-Own": "yes"},
        "cookie_options": {"samesite": "Strict"},
        "xsrf_cookie_kwargs": {"path": "/hub/"},
    }
    set_browser_rules(hub)
    headers, cookies = hub.tornado_settings["headers"], hub.tornado_settings["cookie_options"]
    assert headers.get_list("Referrer-Policy") == ["no-referrer"] and headers["X-Own"] == "yes"
    assert headers["Strict-Transport-Security"] == "max-age=31536000"
    assert cookies == {"samesite": "Strict", "secure": True}
    assert hub.tornado_settings["xsrf_cookie_kwargs"]["path"] == "/hub/"


def test_where_forms_may_lead() -> None:
    """Beside the hub: people's own domains, and services that log in here from elsewhere."""
    services = [
        {"oauth_redirect_uri": "https://plots.example.org/callback"},
        {"name": "idle-culler"},
        {"oauth_redirect_uri": "/services/x/oauth"},
    ]
    assert form_targets("https://hub.example.org:8443", services) == [
        "https://*.hub.example.org:8443",
        "https://plots.example.org",
    ]
    assert form_targets("", []) == []


def test_every_way_to_write_a_script() -> None:
    """Tags in one line or several, in a page or what it includes; a nonce that is there is not doubled."""
    pages = {
        "page": '<script>1</script><script\n src="x"></script>{% include "part" %}<scripted></scripted>',
        "part": '<script type="a" nonce="{{ 7 }}">2</script>',
    }
    environment = Environment(loader=DictLoader(pages), extensions=[ScriptNonces], autoescape=True)
    text = environment.get_template("page").render()
    assert text == (
        '<script nonce="">1</script><script nonce=""\n src="x"></script>'
        '<script type="a" nonce="7">2</script><scripted></scripted>'
    )


async def test_nobody_may_use_the_hub_before_a_site_says_who(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signer's yes is not enough: without a setting of the site's nobody is let in, and nobody is admin;
    the session that the right password had opened is closed again.
    """
    closed = []

    async def right(_self: HpchubAuthenticator, handler: Any, data: Any) -> str:
        handler.hpchub_session = data["username"]
        return str(data["username"])

    async def close(_self: HpchubAuthenticator, username: str) -> None:
        closed.append(username)

    monkeypatch.setattr(HpchubAuthenticator, "authenticate", right)
    monkeypatch.setattr(HpchubAuthenticator, "end_session", close)
    for settings, is_in in (
        ({}, False),
        ({"allowed_users": {"bob"}}, False),
        ({"allowed_users": {"alice"}}, True),
        ({"allow_all": True}, True),
    ):
        authenticator = HpchubAuthenticator(**settings)
        closed.clear()
        found = await authenticator.get_authenticated_user(
            SimpleNamespace(), {"username": "alice", "password": "x"}
        )
        assert bool(found) is is_in
        assert closed == ([] if is_in else ["alice"])
        assert authenticator.admin_users == set()
        if found:
            assert not found["admin"]


def test_an_administrator_s_page_keeps_to_the_rules(hub: RunningHub) -> None:
    """Its two scripts, written without quotes, have the nonce too."""
    page = hub.login(ADMIN).get("hub/admin")
    assert page.status_code == 200 and "admin-react.js" in page.text
    assert [tag for tag in _TAG.findall(page.text) if f'nonce="{nonce_of(page)}"' not in tag] == []
    assert hub.login("alice").get("hub/admin").status_code == 403
