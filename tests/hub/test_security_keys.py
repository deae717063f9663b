"""Security keys on the hub's pages: in a real browser with its own virtual authenticator, and without one."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from browser.person import Person, chromium
from hub.harness import NEEDS_FACTOR, NEEDS_FACTOR_PASSWORD, RunningHub
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.common.virtual_authenticator import VirtualAuthenticatorOptions

from hpchub.signer.factor_rows import forget_second_factor
from hpchub.signer.guard import Guard
from hpchub.signer.guessing import GuessLimits
from hpchub.signer.state import State
from support.authenticator import SoftKey
from support.hub import HubSession

from .test_second_factor import audit, is_logged_in

_SCREENSHOTS = Path(__file__).parents[1] / "screenshots" / "security-keys"


@dataclass
class Site:
    """What `Person` wants to know of the hub that it is at."""

    url: str
    users: dict[str, str] = field(default_factory=lambda: {NEEDS_FACTOR: NEEDS_FACTOR_PASSWORD})


@pytest.fixture
def hub_of_newcomer(hub: RunningHub) -> Iterator[RunningHub]:
    """A hub where the person who needs a second factor has none, and has never failed."""
    with closing(State(hub.folder / "signer" / "state")) as state:
        forget_second_factor(state, NEEDS_FACTOR)
        yield hub
        Guard(state, GuessLimits()).lift(NEEDS_FACTOR)
    hub.bridge.sessions.pop(NEEDS_FACTOR, None)


def port_of(hub: RunningHub) -> int:
    return urlsplit(hub.url).port or 0


@contextmanager
def another_port(port: int) -> Iterator[int]:
    """A port that leads to the hub: the same pages, at an address that is not theirs. Browsers end first."""

    def carry(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):  # one of the two has left, and that is the end of it
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    class Carrier(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as hub:
                back = threading.Thread(target=carry, args=(hub, self.request))
                back.start()
                carry(self.request, hub)
                back.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Carrier) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield int(server.server_address[1])
        server.shutdown()


def answer_of(hub: RunningHub, key: SoftKey, session: HubSession, username: str) -> str:
    session.get("hub/login")
    asked = session.post("hub/second-factor/challenge", data={"username": username, "for": "login"})
    assert asked.status_code == 200, asked.text
    assert "no-store" in asked.headers["Cache-Control"]
    return key.press(asked.text)


def submit(session: HubSession, answer: str) -> int:
    page = session.get("hub/login")
    assert page.ok
    form = {"username": NEEDS_FACTOR, "password": NEEDS_FACTOR_PASSWORD, "security_key": answer}
    token = session.xsrf_token("/hub/login")
    return session.post("hub/login", data=form | {"_xsrf": token}).status_code


def test_the_hub_only_carries(hub_of_newcomer: RunningHub) -> None:
    """Enrolment and login as a browser's script sends them; an answer works once, and for its own attempt."""
    hub = hub_of_newcomer
    key = SoftKey(origin=f"http://localhost:{port_of(hub)}", rp_id="localhost")
    newcomer = hub.session()
    page = newcomer.submit_login(NEEDS_FACTOR, NEEDS_FACTOR_PASSWORD, code="")
    assert page.url.endswith("/hub/second-factor")
    offer = newcomer.post("hub/second-factor/key-offer")
    form = {"name": "<b>mine</b>", "security_key": key.register(offer.text)}
    done = newcomer.post("hub/second-factor/keys", data=form)
    assert "recovery codes" in done.text
    listed = newcomer.get("hub/second-factor").text
    assert "&lt;b&gt;mine&lt;/b&gt;" in listed
    assert "<b>mine" not in listed
    assert not is_logged_in(newcomer)

    first = hub.session()
    answer = answer_of(hub, key, first, NEEDS_FACTOR)
    cookies = [(one.name, one.value, one.path) for one in first.cookies]
    assert submit(first, answer) == 200
    assert is_logged_in(first)
    thief = hub.session()
    for name, value, path in cookies:
        thief.cookies.set(name, value, path=path)
    assert submit(thief, answer) == 403
    other = hub.session()
    theirs = answer_of(hub, key, other, NEEDS_FACTOR)
    assert submit(hub.session(), theirs) == 403
    assert not is_logged_in(thief)
    refused = [one["reason"] for one in audit(hub) if one["user"] == NEEDS_FACTOR and one["reason"]]
    assert refused[-1] == "a challenge that was answered before"


def test_nobody_gets_past_the_ticket(hub_of_newcomer: RunningHub) -> None:
    """Without a ticket, or without the XSRF token, the page's addresses do nothing for anybody."""
    hub = hub_of_newcomer
    stranger = hub.session()
    stranger.get("hub/login")
    assert stranger.post("hub/second-factor/key-offer").status_code == 403
    for action in ("keys", "removals", "recovery-codes", "done"):
        answer = stranger.post(f"hub/second-factor/{action}", data={"what": "totp"})
        assert answer.url.split("?")[0].endswith("/hub/login")
    for action in ("challenge", "key-offer", "keys", "removals", "recovery-codes", "change"):
        bare = hub.session()
        assert bare.post(f"hub/second-factor/{action}", data={"username": "alice"}).status_code == 403
    wrong = {"username": NEEDS_FACTOR, "password": "wrong"}
    assert stranger.get("hub/second-factor/change").status_code == 200
    assert stranger.post("hub/second-factor/change", data=wrong).status_code == 403
    script = stranger.get("hub/hpchub/static/hpchub_webauthn.js")
    assert (script.status_code, script.headers["X-Content-Type-Options"]) == (200, "nosniff")
    assert stranger.get("hub/hpchub/static/..%2fpage.html").status_code == 404


@pytest.mark.browser
def test_in_a_real_browser(hub_of_newcomer: RunningHub) -> None:
    """Chromium's own authenticator: enrolled and used by the keyboard alone, told what went wrong, and worth
    nothing on another page's address.
    """
    hub = hub_of_newcomer
    options = VirtualAuthenticatorOptions()
    options.protocol = VirtualAuthenticatorOptions.Protocol.CTAP2
    options.transport = VirtualAuthenticatorOptions.Transport.USB
    options.has_user_verification = options.is_user_verified = True
    with another_port(port_of(hub)) as elsewhere, chromium() as driver:
        driver.add_virtual_authenticator(options)
        person = Person(
            cast(Any, Site(f"http://localhost:{port_of(hub)}/")), driver, NEEDS_FACTOR, _SCREENSHOTS
        )
        _enrol(person)
        _press(person, "hub/second-factor/change")
        person.wait("the list", lambda: person.all("#hpchub-factors"))
        person.fits("second factors")
        person.find("#hpchub-factors")
        driver.find_element(By.CSS_SELECTOR, "form[action$='/done'] button").click()
        person.wait("the login page", lambda: person.path == "/hub/login")

        person.demo = cast(Any, Site(f"http://localhost:{elsewhere}/"))
        _press(person, "hub/login")
        person.wait("the refusal", lambda: "security key" in person.text(".login_error"))
        person.demo = cast(Any, Site(f"http://localhost:{port_of(hub)}/"))
        person.open("hub/login")
        person.fits("login with keys")
        _press(person, "hub/home")
        person.wait("the home page", lambda: person.path == "/hub/home")
    told = [one for one in audit(hub) if one["user"] == NEEDS_FACTOR and one["event"] == "login"]
    assert [(one["outcome"], one["factor"]) for one in told[-2:]] == [
        ("refused", ""),
        ("granted", "password+webauthn"),
    ]
    assert "Invalid origin" in told[-2]["reason"]


def _enrol(person: Person) -> None:
    person.login()
    person.find("#hpchub-add-key")
    person.fits("set up")
    button = person.find("[data-security-key=create]")
    button.click()
    person.wait(
        "what is missing", lambda: "Name for this key first" in person.text("[data-security-key-said]")
    )
    assert person.focused.get_attribute("name") == "name"
    person.keys("blue", Keys.TAB)
    assert person.focused == button
    person.keys(Keys.ENTER)
    person.wait("recovery codes", lambda: len(person.all("#hpchub-recovery-codes li")) == 10)
    person.fits("recovery codes")
    person.find("a[role=button].btn-jupyter").click()
    person.wait("the list", lambda: "blue" in person.text("#hpchub-factors"))


def _press(person: Person, to: str) -> None:
    """Give name, password and key; the key's button follows in the order of Tab."""
    person.open(to)
    person.find("input[name=username]").send_keys(person.user)
    person.find("input[name=password]").send_keys(NEEDS_FACTOR_PASSWORD)
    button = person.find("#hpchub-security-key")
    for _ in range(4):
        if person.tab() == button:
            break
    assert person.focused == button
    person.keys(Keys.ENTER)
