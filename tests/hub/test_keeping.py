"""A site keeps its own authenticator, and the signer verifies for itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest
from hub.harness import PASSWORDS, RunningHub, a_hub
from jupyterhub.auth import Authenticator
from traitlets import TraitError

from hpchub.hub.authenticators import HpchubAuthenticator
from hpchub.hub.keeping import KeepsPasswordAuthenticator
from support.hub import HubSession
from support.ports import free_port
from support.provider import CLIENT_ID, CLIENT_SECRET, a_provider, answer_portal

PROOF = """
[proof]
kind = "oidc"
issuer = "{issuer}"
client_id = "{client}"
account_claim = "preferred_username"
"""

CONFIG = """
from oauthenticator.generic import GenericOAuthenticator
from hpchub.hub.keeping import KeepsOAuthenticator


class SiteAuthenticator(KeepsOAuthenticator, GenericOAuthenticator):
    pass


c.JupyterHub.authenticator_class = SiteAuthenticator
c.GenericOAuthenticator.client_id = "hpchub"
c.GenericOAuthenticator.client_secret = {secret!r}
c.GenericOAuthenticator.authorize_url = {issuer!r} + "/auth"
c.GenericOAuthenticator.token_url = {issuer!r} + "/token"
c.GenericOAuthenticator.userdata_url = {issuer!r} + "/me"
c.GenericOAuthenticator.scope = ["openid", "profile"]
c.GenericOAuthenticator.username_claim = "preferred_username"
c.GenericOAuthenticator.oauth_callback_url = {callback!r}
c.GenericOAuthenticator.manage_groups = True
c.GenericOAuthenticator.auth_state_groups_key = "oauth_user.groups"
c.GenericOAuthenticator.admin_groups = {{"staff"}}
c.GenericOAuthenticator.enable_auth_state = False
"""


@pytest.fixture(scope="module")
def oauth_hub(clusters_dir: Path) -> Iterator[RunningHub]:
    """A hub that keeps its GenericOAuthenticator."""
    port = free_port()
    callback = f"http://127.0.0.1:{port}/hub/oauth_callback"
    with a_provider(callback) as provider:
        proof = PROOF.format(issuer=provider.issuer, client=CLIENT_ID)
        more = CONFIG.format(issuer=provider.issuer, callback=callback, secret=CLIENT_SECRET)
        with a_hub(clusters_dir, proof=proof, more=more, port=port) as hub:
            yield hub


def user_of(session: HubSession) -> dict[str, Any] | None:
    answer = session.get("hub/api/user")
    return dict(answer.json()) if answer.ok else None


def test_an_oauthenticator_with_a_nonce(oauth_hub: RunningHub) -> None:
    """Its own rules for groups and admins hold; its way to the provider has a nonce; the session is open."""
    session = oauth_hub.session()
    sent = session.get("hub/oauth_login", params={"next": "/hub/token"}, allow_redirects=False)
    asked = parse_qs(urlsplit(sent.headers["Location"]).query)
    assert len(asked["nonce"][0]) == 43
    assert asked["code_challenge_method"] == ["S256"]
    back = answer_portal(session, session.get(sent.headers["Location"]), "subject-1").headers["Location"]
    done = session.get(back)
    assert (done.status_code, urlsplit(done.url).path) == (200, "/hub/token")
    found = user_of(session)
    assert found is not None
    assert (found["name"], found["admin"]) == ("alice", True)
    assert "alice" in oauth_hub.bridge.sessions
    session.get("hub/logout")
    assert "alice" not in oauth_hub.bridge.sessions


def test_an_oauthenticators_token_without_our_nonce(oauth_hub: RunningHub) -> None:
    """Where the nonce was taken out on the way, or is another's, OAuthenticator's yes lets nobody in."""
    for nonce in (None, "x" * 43):
        session = oauth_hub.session()
        sent = urlsplit(session.get("hub/oauth_login", allow_redirects=False).headers["Location"])
        query = {name: value for name, value in parse_qsl(sent.query) if name != "nonce"}
        changed = sent._replace(query=urlencode(query | ({"nonce": nonce} if nonce else {}))).geturl()
        back = answer_portal(session, session.get(changed), "subject-1").headers["Location"]
        assert session.get(back).status_code == 403
        assert user_of(session) is None


class OneWord(Authenticator):  # type: ignore[misc]  # JupyterHub has no types
    """A site's own: it knows carol by another name, and bob not at all."""

    async def authenticate(self, handler: Any, data: Mapping[str, str]) -> str | None:
        return {"alice": "alice", "carol": "C.Person"}.get(data["username"])


class SitePasswords(KeepsPasswordAuthenticator, OneWord):
    """As a site's file would have it."""


def a_site(hub: RunningHub, **settings: Any) -> SitePasswords:
    site = SitePasswords(
        bridge_socket=str(hub.bridge.socket),
        signer_socket=str(hub.folder / "signer" / "signer.sock"),
        **settings,
    )
    site.allow_all = True
    return site


async def try_login(site: SitePasswords, name: str, password: str) -> Any:
    stream = SimpleNamespace(socket=None)  # a browser that has left already
    request = SimpleNamespace(connection=SimpleNamespace(stream=stream), headers={})
    handler = SimpleNamespace(request=request)
    return await site.get_authenticated_user(handler, {"username": name, "password": password})


async def test_the_map_of_names_is_about_the_sites_own(hub: RunningHub) -> None:
    """It says which account the kept authenticator means; the signer's word stands, whatever the map says."""
    site = a_site(hub, username_map={"c.person": "carol", "alice": "bob"})
    assert (await try_login(site, "carol", PASSWORDS["carol"]))["name"] == "carol"
    before = hub.bridge.sessions.get("bob")
    assert await try_login(site, "alice", PASSWORDS["alice"]) is None
    assert hub.bridge.sessions.get("bob") == before


def test_without_a_kept_one_there_is_nothing_to_map() -> None:
    """The hub does not start with a map that would make people somebody else than their account."""
    with pytest.raises(TraitError, match="as the account that the signer names"):
        HpchubAuthenticator(username_map={"alice": "bob"})
    assert HpchubAuthenticator(username_map={}).normalize_username("Alice") == "Alice"


async def test_one_that_takes_passwords(hub: RunningHub) -> None:
    """Both must say yes, and to the same account; a session opened for nothing is closed again."""
    site = a_site(hub)

    async def log_in(name: str, password: str) -> Any:
        return await try_login(site, name, password)

    assert (await log_in("alice", PASSWORDS["alice"]))["name"] == "alice"
    assert "alice" in hub.bridge.sessions
    assert await log_in("alice", "wrong") is None
    for name in ("bob", "carol"):
        assert await log_in(name, PASSWORDS[name]) is None
        assert name not in hub.bridge.sessions
