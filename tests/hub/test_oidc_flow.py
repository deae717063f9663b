"""One login as the hub sees it: what it asks for, what it takes back, and what it gets for a code."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpchub.core.login_nonce import login_nonce
from hpchub.core.secret import Secret
from hpchub.errors import ConfigError, NotAllowed, RemoteError, UnexpectedOutput
from hpchub.hub import oidc_flow
from hpchub.hub.oidc_flow import Client, authorization_url, begin, code_of, fetch_id_token, parse_begun
from hpchub.signer.answers import OidcRequest
from support.forge import Forge, a_forge

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAvKHx6Syrr3FjfG3ByX69yfD/EnBSJIhCsKkFD+6jJ"
CALLBACK = "https://hub.example.org/hub/oidc_callback"
CODE = "canary-code-5"
REQUEST = OidcRequest(
    issuer="https://login.example.org",
    client_id="hub:1",
    scope="openid profile",
    acr_values="",
    max_age_s=0,
    authorization_endpoint="https://login.example.org/auth?realm=a",
    token_endpoint="https://login.example.org/token",
    auth_methods=("client_secret_basic",),
    names_itself=True,
)
BEGUN = begin("k" * 32, KEY, "/hub/home")


def test_what_is_asked_for() -> None:
    """State, nonce and challenge are of this login, and the verifier is not among them."""
    parts = urlsplit(authorization_url(REQUEST, BEGUN, CALLBACK))
    asked = {name: value[0] for name, value in parse_qs(parts.query).items()}
    digest = base64.urlsafe_b64encode(hashlib.sha256(BEGUN.verifier.encode()).digest()).decode().rstrip("=")
    assert asked == {
        "realm": "a",
        "response_type": "code",
        "client_id": "hub:1",
        "redirect_uri": CALLBACK,
        "scope": "openid profile",
        "state": BEGUN.state,
        "nonce": login_nonce(KEY, BEGUN.salt),
        "code_challenge": digest,
        "code_challenge_method": "S256",
    }
    strict = replace(REQUEST, acr_values="a b", max_age_s=60, authorization_endpoint="https://l.example/auth")
    assert "?response_type=code&" in authorization_url(strict, BEGUN, CALLBACK)
    assert authorization_url(strict, BEGUN, CALLBACK).endswith("&acr_values=a+b&max_age=60")
    again = begin("k" * 32, KEY, "")
    assert len({again.state, BEGUN.state, again.verifier, BEGUN.verifier, again.salt, BEGUN.salt}) == 6


def test_a_login_comes_back_as_it_was() -> None:
    """Through the cookie and back; whatever else a cookie holds is no login, and nothing secret is shown."""
    assert parse_begun(BEGUN.to_text()) == BEGUN
    assert BEGUN.verifier not in repr(BEGUN)
    fields = json.loads(BEGUN.to_text())
    for text in ("", "[]", "7", "{}", json.dumps(fields | {"state": 1}), json.dumps(fields | {"more": "x"})):
        with pytest.raises(ValueError, match=r"login|text|JSON|Expecting"):
            parse_begun(text)


def test_which_returns_count() -> None:
    """The state of this login, the provider's own name, a code and no error."""
    right = {"state": BEGUN.state, "code": CODE, "iss": REQUEST.issuer}
    assert code_of(REQUEST, BEGUN, right) == Secret(CODE)
    unnamed = {name: right[name] for name in ("state", "code")}
    assert code_of(replace(REQUEST, names_itself=False), BEGUN, unnamed) == Secret(CODE)
    for wrong in (
        unnamed,
        right | {"state": ""},
        right | {"state": "é"},
        right | {"iss": "https://login.example.org/"},
        right | {"code": ""},
        right | {"code": "x" * 5000},
        right | {"error": "access_denied"},
        {},
    ):
        with pytest.raises(NotAllowed):
            code_of(REQUEST, BEGUN, wrong)


@given(st.text())
def test_no_guess_is_the_state(guess: str) -> None:
    """Any other state is refused, and none makes an error of another kind."""
    if guess != BEGUN.state:
        with pytest.raises(NotAllowed):
            code_of(REQUEST, BEGUN, {"state": guess, "code": CODE, "iss": REQUEST.issuer})


@pytest.fixture
async def forge() -> AsyncIterator[Forge]:
    async with a_forge() as found:
        yield found


def client(folder: Path, secret: str | None) -> Client:
    if secret is None:
        return Client(callback_url=CALLBACK)
    file = folder / "secret"
    file.touch(0o600)
    file.write_text(secret)
    return Client(callback_url=CALLBACK, secret_file=file)


def request_at(forge: Forge, *methods: str) -> OidcRequest:
    return replace(REQUEST, token_endpoint=f"{forge.issuer}/token", auth_methods=methods)


async def test_how_the_hub_proves_itself(forge: Forge, tmp_path: Path) -> None:
    """By HTTP's Basic where the provider takes it, in the form where not; a public client does not."""
    forge.exchanged = json.dumps({"id_token": "a.b.c"}).encode()
    hidden = client(tmp_path, "s e+c:r%t\n")
    basic = request_at(forge, "client_secret_basic", "client_secret_post")
    assert await fetch_id_token(basic, BEGUN, hidden, Secret(CODE)) == Secret("a.b.c")
    await fetch_id_token(request_at(forge, "client_secret_post"), BEGUN, hidden, Secret(CODE))
    await fetch_id_token(request_at(forge, "none"), BEGUN, client(tmp_path, None), Secret(CODE))
    by_header, by_form, public = forge.sent
    pair = base64.b64decode(by_header["Authorization"].removeprefix("Basic ")).decode()
    assert pair == "hub%3A1:s+e%2Bc%3Ar%25t"
    assert "client_secret" not in by_header
    assert (by_form["client_id"], by_form["client_secret"]) == ("hub:1", "s e+c:r%t")
    assert public["client_id"] == "hub:1"
    for sent in forge.sent:
        assert (sent["code"], sent["code_verifier"]) == (CODE, BEGUN.verifier)
        assert (sent["grant_type"], sent["redirect_uri"]) == ("authorization_code", CALLBACK)
    assert "Authorization" not in by_form
    assert not {"Authorization", "client_secret"} & set(public)


@pytest.mark.slow
async def test_answers_that_are_none(forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused code is a refusal; all else is an error that repeats neither code nor token nor secret."""
    monkeypatch.setattr(oidc_flow, "_TIMEOUT_S", 0.3)
    request, who = request_at(forge, "client_secret_basic"), client(tmp_path, "canary-secret-6")
    token = b'"id_token": "canary-token-7"'
    for status, body, error in (
        (400, b'{"error": "invalid_grant"}', NotAllowed),
        (401, b'{"error": "invalid_client", ' + token + b"}", UnexpectedOutput),
        (500, b"{" + token + b"}", UnexpectedOutput),
        (200, b"{}", UnexpectedOutput),
        (200, b'{"id_token": ["canary-token-7"]}', UnexpectedOutput),
        (200, b"canary-token-7", UnexpectedOutput),
        (200, b"[" * 100_000, UnexpectedOutput),
        (200, b'{"x": "' + b"canary-token-7" * 30_000 + b'"}', UnexpectedOutput),
    ):
        forge.status, forge.exchanged = status, body
        with pytest.raises(error) as caught:
            await fetch_id_token(request, BEGUN, who, Secret(CODE))
        assert "canary" not in f"{caught.value} {caught.value.__cause__}"
    forge.redirect = "/elsewhere"
    with pytest.raises(UnexpectedOutput):
        await fetch_id_token(request, BEGUN, who, Secret(CODE))
    assert "/elsewhere" not in forge.asked
    forge.redirect, forge.delay_s = "", 2.0
    with pytest.raises(RemoteError, match="TimeoutError"):
        await fetch_id_token(request, BEGUN, who, Secret(CODE))


def test_the_clients_secret(tmp_path: Path) -> None:
    """One line in a file that nobody else can read."""
    for wrong in ("", "\n", "a\nb\n", "a\0"):
        with pytest.raises(ConfigError, match="nothing else"):
            client(tmp_path, wrong).secret()
    loose = client(tmp_path, "x")
    assert loose.secret() == Secret("x")
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(ConfigError, match="0644"):
        loose.secret()
