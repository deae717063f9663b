"""Setting up a second factor through the real hub, proxy and signer, and logging in with it."""

from __future__ import annotations

import base64
import html
import json
import re
import time
from pathlib import Path

import pytest
import requests
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from hub.harness import NEEDS_FACTOR, NEEDS_FACTOR_PASSWORD, PASSWORDS, RunningHub

from hpchub.signer.factor_rows import forget_second_factor
from hpchub.signer.state import State
from support.hub import HubSession

_SEED = re.compile(r'id="hpchub-seed"[^>]*>([A-Z2-7 ]+)<')
_XSRF = re.compile(r'name="_xsrf" value="([^"]*)"')
_RECOVERY = re.compile(r"<code>([A-Z2-7-]{19})</code>")


def app_code(seed: str, away_s: float = 0) -> str:
    key = base64.b32decode(seed.replace(" ", ""))
    return TOTP(key, 6, SHA1(), 30).generate(time.time() + away_s).decode()  # noqa: S303  as an app does


def is_logged_in(session: HubSession) -> bool:
    return not session.get("hub/home").url.split("?")[0].endswith("/hub/login")


def seed_on(page: requests.Response) -> str:
    found = _SEED.search(page.text)
    assert found, page.text[:3000]
    return found[1]


def send_code(session: HubSession, page: requests.Response, code: str) -> requests.Response:
    token = _XSRF.search(page.text)
    assert token
    return session.post("hub/second-factor", data={"_xsrf": html.unescape(token[1]), "code": code})


def audit(hub: RunningHub) -> list[dict[str, str]]:
    return [json.loads(line) for line in (hub.folder / "signer" / "audit.log").read_text().splitlines()]


@pytest.fixture
def enrolling(hub: RunningHub) -> tuple[HubSession, requests.Response]:
    """Somebody who needs a second factor and has none, after the login form."""
    state = State(hub.folder / "signer" / "state")
    forget_second_factor(state, NEEDS_FACTOR)
    state.close()
    session = hub.session()
    return session, session.submit_login(NEEDS_FACTOR, NEEDS_FACTOR_PASSWORD, code="")


def test_from_password_to_second_factor(
    hub: RunningHub, enrolling: tuple[HubSession, requests.Response]
) -> None:
    """The password leads to the page and nowhere else; a first code makes it count; then both log in."""
    session, page = enrolling
    assert page.url.endswith("/hub/second-factor")
    assert "no-store" in page.headers["Cache-Control"]
    assert "<svg" in page.text
    assert not is_logged_in(session)
    assert session.get("hub/api/user").status_code == 403
    assert NEEDS_FACTOR not in hub.bridge.sessions
    seed = seed_on(page)
    wrong = send_code(session, page, "12345")
    assert (wrong.status_code, seed_on(wrong)) == (422, seed)
    assert "not the code" in wrong.text
    first = app_code(seed)
    done = send_code(session, wrong, first)
    codes = _RECOVERY.findall(done.text)
    assert len(set(codes)) == 10
    assert not is_logged_in(session)
    assert session.get("hub/second-factor").url.split("?")[0].endswith("/hub/login")

    refused = hub.session()
    for code in (first, "", "12345678"):
        assert refused.submit_login(NEEDS_FACTOR, NEEDS_FACTOR_PASSWORD, code=code).status_code == 403
    for code in (app_code(seed, 30), codes[0].lower()):
        session = hub.session()
        session.submit_login(NEEDS_FACTOR, NEEDS_FACTOR_PASSWORD, to="/hub/home", code=code)
        assert is_logged_in(session)
    found = [one for one in audit(hub) if one["user"] == NEEDS_FACTOR and one["event"] != "certificate"]
    assert [(one["event"], one["outcome"], one["factor"]) for one in found[-8:]] == [
        ("login", "refused", ""),
        ("enrolment", "refused", "totp"),
        ("enrolment", "granted", "totp"),
        ("login", "refused", ""),
        ("login", "refused", ""),
        ("login", "refused", ""),
        ("login", "granted", "password+totp"),
        ("login", "granted", "password+recovery"),
    ]
    _nowhere_in_clear(hub.folder, [seed, seed.replace(" ", ""), *codes, NEEDS_FACTOR_PASSWORD])


def _nowhere_in_clear(folder: Path, secrets: list[str]) -> None:
    """No file of the hub, its proxy or the signer holds one of them, whatever the log level."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"hub.log", "hub.sqlite", "audit.log", "state.sqlite"}
    for path in files:
        content = path.read_bytes()
        assert [secret for secret in secrets if secret.encode() in content] == [], path


def test_the_page_is_for_the_ticket_alone(
    hub: RunningHub, enrolling: tuple[HubSession, requests.Response]
) -> None:
    """Without the cookie, with a forged one, or without the XSRF token nobody gets to see or do anything."""
    session, page = enrolling
    (cookie,) = [one for one in session.cookies if one.name == "hpchub-second-factor"]
    assert cookie.path == "/hub/second-factor"
    assert {name.lower() for name in cookie._rest} >= {"httponly", "samesite"}
    assert hub.session().get("hub/second-factor").url.split("?")[0].endswith("/hub/login")
    forged = hub.session()
    forged.cookies.set("hpchub-second-factor", cookie.value[:-3] + "000", path="/hub/second-factor")
    assert forged.get("hub/second-factor").url.split("?")[0].endswith("/hub/login")
    other = hub.session()
    other.cookies.set("hpchub-second-factor", cookie.value, path="/hub/second-factor")
    answer = other.post("hub/second-factor", data={"code": app_code(seed_on(page))})
    assert answer.status_code == 403


def test_one_field_for_everybody(hub: RunningHub) -> None:
    """The field is there for all and may stay empty; who has no second factor is not disturbed by it."""
    page = hub.session().get("hub/login")
    assert 'autocomplete="one-time-code"' in page.text
    for code in (None, "", "123456"):
        session = hub.session()
        session.submit_login("alice", PASSWORDS["alice"], to="/hub/home", code=code)
        assert is_logged_in(session)
    texts = set()
    for name in ("alice", NEEDS_FACTOR, "nobody-here"):
        answer = hub.session().submit_login(name, "wrong", code="123456")
        assert answer.status_code == 403
        texts.add(re.sub(r'(?:value|nonce)="[^"]*"|token: "[^"]*"|xsrf_token[^,]*,', "", answer.text))
    assert len(texts) == 1
