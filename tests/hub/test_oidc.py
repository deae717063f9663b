"""Logging in at a real OpenID provider through the real hub, proxy and signer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest
import requests
from hub.harness import RunningHub, a_hub

from hpchub.signer import oidc_keys
from support.hub import HubSession
from support.ports import free_port
from support.provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    MFA,
    RealProvider,
    a_provider,
    answer_portal,
)

PROOF = """
[proof]
kind = "oidc"
issuer = "{issuer}"
client_id = "{client}"
scopes = ["openid", "profile", "email"]
acr_values = ["{mfa}"]
account_claim = "email"
account_suffix = "@example.org"
account_pattern = "[a-z][a-z0-9]*"
groups_claim = "groups"
groups = ["hpc"]
"""

CONFIG = """
c.JupyterHub.authenticator_class = "hpchub-oidc"
c.HpchubOidcAuthenticator.callback_url = {callback!r}
c.HpchubOidcAuthenticator.client_secret_file = {secret!r}
c.HpchubOidcAuthenticator.login_service = "the portal"
"""


@pytest.fixture(scope="module")
def portal_and_hub(
    clusters_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RealProvider, RunningHub]]:
    """A provider, and a hub that knows it."""
    port = free_port()
    callback = f"http://127.0.0.1:{port}/hub/oidc_callback"
    secret = tmp_path_factory.mktemp("client") / "secret"
    secret.touch(0o600)
    secret.write_text(CLIENT_SECRET + "\n")
    with a_provider(callback) as provider:
        proof = PROOF.format(issuer=provider.issuer, client=CLIENT_ID, mfa=MFA)
        more = CONFIG.format(callback=callback, secret=str(secret))
        with a_hub(clusters_dir, proof=proof, more=more, port=port) as hub:
            yield provider, hub


@pytest.fixture
def oidc_hub(portal_and_hub: tuple[RealProvider, RunningHub]) -> RunningHub:
    return portal_and_hub[1]


def at_the_portal(session: HubSession, *, to: str = "/hub/home") -> requests.Response:
    """Press the hub's button; the portal's login page."""
    return session.get("hub/oidc_login", params={"next": to})


def come_back(
    session: HubSession, subject: str = "subject-1", *, acr: str = MFA, to: str = "/hub/home"
) -> str:
    """Log in at the portal; the address of the hub's callback to which it sends the browser."""
    page = at_the_portal(session, to=to)
    return answer_portal(session, page, subject, acr=acr).headers["Location"]


def user_of(session: HubSession) -> str | None:
    answer = session.get("hub/api/user")
    return answer.json()["name"] if answer.ok else None


def audit(hub: RunningHub) -> list[dict[str, str]]:
    return [json.loads(line) for line in (hub.folder / "signer" / "audit.log").read_text().splitlines()]


def test_through_the_portal(oidc_hub: RunningHub) -> None:
    """The button leads to the portal; from there one comes back as one's account, where one wanted to go."""
    session = oidc_hub.session()
    page = session.get("hub/login", params={"next": "/hub/token?x=1"})
    assert "Sign in with the portal" in page.text
    assert 'name="password"' not in page.text
    sent = session.get("hub/oidc_login", params={"next": "/hub/token?x=1"}, allow_redirects=False)
    asked = parse_qs(urlsplit(sent.headers["Location"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["acr_values"] == [MFA]
    assert asked["max_age"] == ["3600"]
    assert len(asked["nonce"][0]) == 43
    assert "state" in asked
    (cookie,) = [one for one in session.cookies if one.name == "hpchub-oidc"]
    assert cookie.path == "/hub/oidc_callback"
    assert cookie.has_nonstandard_attr("HttpOnly")
    assert cookie.get_nonstandard_attr("SameSite") == "Lax"
    portal = session.get(sent.headers["Location"])
    back = answer_portal(session, portal, "subject-1", acr=MFA).headers["Location"]
    done = session.get(back)
    assert (done.status_code, urlsplit(done.url).path, urlsplit(done.url).query) == (200, "/hub/token", "x=1")
    assert user_of(session) == "alice"
    assert "alice" in oidc_hub.bridge.sessions
    assert not [one for one in session.cookies if one.name == "hpchub-oidc"]
    granted = [one for one in audit(oidc_hub) if one["event"] == "login"][-1]
    assert (granted["outcome"], granted["user"], granted["factor"]) == ("granted", "alice", "oidc+acr")
    assert granted["source"] == "127.0.0.1"


def test_who_is_not_let_in(oidc_hub: RunningHub) -> None:
    """Without the second factor, the group, a verified address or an account nobody gets in."""
    for subject, acr, why in (
        ("subject-1", "", "acr_values"),
        ("subject-2", MFA, "in none of the groups"),
        ("subject-3", MFA, "in none of the groups"),
    ):
        session = oidc_hub.session()
        answer = session.get(come_back(session, subject, acr=acr))
        assert answer.status_code == 403
        assert "does not let you in" in answer.text
        assert why not in answer.text
        assert user_of(session) is None
        assert why in audit(oidc_hub)[-1]["reason"]


def test_who_cancels(oidc_hub: RunningHub) -> None:
    """Whoever cancels at the portal is told so, and is not logged in."""
    session = oidc_hub.session()
    back = answer_portal(session, at_the_portal(session), "", cancel=True).headers["Location"]
    assert "error=access_denied" in back
    answer = session.get(back)
    assert answer.status_code == 403
    assert "did not log you in" in answer.text
    assert user_of(session) is None


def test_state_binds_to_the_browser(oidc_hub: RunningHub) -> None:
    """Somebody else's way back, one with another state or issuer, and one used before: all refused."""
    mallory, victim = oidc_hub.session(), oidc_hub.session()
    stolen = come_back(mallory)
    assert victim.get(stolen).status_code == 403  # no login has begun in this browser
    at_the_portal(victim)
    refused = victim.get(stolen)
    assert (refused.status_code, user_of(victim)) == (403, None)
    assert "did not begin in this browser" in refused.text

    for name, value in (("state", "x"), ("state", None), ("iss", "https://elsewhere.example"), ("iss", None)):
        session = oidc_hub.session()
        url = urlsplit(come_back(session))
        query = {one: two for one, two in parse_qsl(url.query) if one != name}
        changed = url._replace(query=urlencode(query | ({name: value} if value else {})))
        assert session.get(changed.geturl()).status_code == 403
        # The login that had begun counts no more, so no second guess is possible.
        assert session.get(url.geturl()).status_code == 403
        assert user_of(session) is None

    assert mallory.get(stolen).ok
    assert user_of(mallory) == "alice"
    assert oidc_hub.session().get(stolen).status_code == 403


def test_a_code_for_another_login(oidc_hub: RunningHub) -> None:
    """A stolen code in the thief's own login fails: PKCE's verifier is another."""
    victim, thief = oidc_hub.session(), oidc_hub.session()
    code = dict(parse_qsl(urlsplit(come_back(victim)).query))["code"]
    own = urlsplit(come_back(thief))
    query = dict(parse_qsl(own.query)) | {"code": code}
    answer = thief.get(own._replace(query=urlencode(query)).geturl())
    assert (answer.status_code, user_of(thief)) == (403, None)


@pytest.mark.parametrize(
    "target",
    [
        "https://elsewhere.example/",
        "//elsewhere.example/",
        "///elsewhere.example/",
        "/\\elsewhere.example/",
        "javascript:alert(1)",
        "http://127.0.0.1.elsewhere.example/",
    ],
)
def test_no_open_redirect(oidc_hub: RunningHub, target: str) -> None:
    """Wherever a link's `next` leads to, the browser stays at the hub after the login."""
    session = oidc_hub.session()
    back = come_back(session, to=target)
    answer = session.get(f"{back}&next={target}", allow_redirects=False)
    to = answer.headers["Location"]
    assert answer.status_code == 302
    assert to.startswith("/")
    assert not to.startswith(("//", "/\\"))
    assert "code=" not in to


def test_passwords_are_not_taken(oidc_hub: RunningHub) -> None:
    """A form sent by hand to the login page, whatever is in it, lets nobody in."""
    session = oidc_hub.session()
    session.get("hub/login")
    for form in (
        {"username": "alice", "password": "x"},
        {"username": "alice", "begun": "{}", "id_token": "a.b.c"},
        {"username": "alice", "id_token": ""},
    ):
        answer = session.post("hub/login", data=form | {"_xsrf": session.xsrf_token()})
        assert answer.status_code == 403
    assert user_of(session) is None


def test_the_provider_goes_away_and_comes_back_with_another_key(
    portal_and_hub: tuple[RealProvider, RunningHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is away a page says so and blames nobody; with its new key people log in as before."""
    provider, hub = portal_and_hub
    monkeypatch.setattr(oidc_keys, "_AGAIN_S", 0.0)
    session = hub.session()
    back = come_back(session)
    provider.stop()
    away = session.get(back)
    assert away.status_code == 503
    assert "Nobody can be logged in just now" in away.text
    assert user_of(session) is None
    provider.new_key()
    provider.start()
    session = hub.session()
    assert session.get(come_back(session)).ok
    assert user_of(session) == "alice"


def test_nothing_of_it_is_written(oidc_hub: RunningHub) -> None:
    """No file of the hub, its proxy or the signer holds a token, a code or the client's secret."""
    session = oidc_hub.session()
    back = come_back(session)
    assert session.get(back).ok
    code = dict(parse_qsl(urlsplit(back).query))["code"]
    files = [path for path in oidc_hub.folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"hub.log", "hub.sqlite", "audit.log", "state.sqlite"}
    for path in files:
        content = path.read_bytes()
        # An id_token begins with a header in base64: {"alg":"RS256"
        for secret in (b"eyJhbGciOiJSUzI1Ni", code.encode(), CLIENT_SECRET.encode()):
            assert secret not in content, path
