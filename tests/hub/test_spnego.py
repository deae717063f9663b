"""The login page's Kerberos button, through the real hub, proxy, signer, KDC and curl."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub.harness import RunningHub, a_hub

from support.kdc import PASSWORD, REALM, SERVICE, Kdc, a_kdc
from support.ports import free_port
from support.spnego import a_ticket, curl, token_of

PROOF = """
[proof]
kind = "kerberos"
realm = "{realm}"
service = "{service}"
keytab = "{kdc.keytab}"
krb5_conf = "{kdc.krb5_conf}"
[proof.spnego]
service = "HTTP/localhost"
keytab = "{kdc.http_keytab}"
[second_factor]
required = "some"
users = ["bob"]
"""

Person = Callable[..., "Browser"]


class Browser:
    """curl with a jar of cookies, and somebody's tickets."""

    def __init__(self, kdc: Kdc, hub: RunningHub, folder: Path, ccache: Path) -> None:
        self._kdc, self._hub, self._folder, self._ccache = kdc, hub, folder, ccache

    def get(self, path: str, *more: str) -> str:
        """A page."""
        jar = str(self._folder / "cookies")
        return curl(
            self._kdc, self._ccache, "--cookie", jar, "--cookie-jar", jar, *more, self._hub.url + path
        )

    def press(self, *more: str, to: str = "/hub/token?x=1", xsrf: str | None = None) -> str:
        """Open the login page and press the button: the answer's status, headers and page."""
        page = self.get(f"/hub/login?next={to}")
        token = page.split('name="_xsrf" value="')[1].split('"')[0] if xsrf is None else xsrf
        return self.get(f"/hub/kerberos_login?next={to}", "--include", "--data", f"_xsrf={token}", *more)

    def user(self) -> str:
        """Who is logged in; empty where nobody is."""
        return str(json.loads(self.get("/hub/api/user")).get("name", ""))


@pytest.fixture(scope="module")
def kdc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kdc]:
    with a_kdc(tmp_path_factory.mktemp("kdc")) as found:
        yield found


@pytest.fixture(scope="module")
def kerberos_hub(clusters_dir: Path, kdc: Kdc) -> Iterator[RunningHub]:
    """A hub whose site has Kerberos, with the button."""
    proof = PROOF.format(realm=REALM, service=SERVICE, kdc=kdc)
    more = "c.HpchubAuthenticator.spnego = True\nc.Authenticator.blocked_users = {'Henry'}\n"
    # With its name curl asks for a ticket for HTTP/localhost, as a browser would.
    with a_hub(clusters_dir, proof=proof, more=more, port=free_port(), host="localhost") as hub:
        yield hub


@pytest.fixture
def person(kdc: Kdc, kerberos_hub: RunningHub, tmp_path: Path) -> Person:
    """Somebody's browser; without a name one that has no ticket."""

    def make(who: str = "") -> Browser:
        ccache = a_ticket(kdc, tmp_path / "ccache", who) if who else tmp_path / "none"
        return Browser(kdc, kerberos_hub, tmp_path, ccache)

    return make


def test_with_a_ticket(person: Person, kerberos_hub: RunningHub) -> None:
    """The button leads to where the person wanted to go, logged in as the account of the ticket."""
    browser = person("alice")
    answer = browser.press()
    assert answer.startswith("HTTP/1.1 302")
    assert "ocation: /hub/token?x=1" in answer
    assert browser.user() == "alice"
    assert "alice" in kerberos_hub.bridge.sessions
    record = [one for one in _audit(kerberos_hub) if one["event"] == "login"][-1]
    assert (record["outcome"], record["user"], record["factor"]) == ("granted", "alice", "kerberos")
    assert record["source"] == "127.0.0.1"


def test_without_a_ticket(person: Person) -> None:
    """The browser is asked once, on that page alone, and shows the form."""
    browser = person()
    assert "www-authenticate" not in browser.get("/hub/login", "--include").lower()
    answer = browser.press()
    assert answer.count("HTTP/1.1 401") == 1
    assert "www-authenticate: negotiate" in answer.lower()
    assert "sent no Kerberos ticket" in answer
    assert 'name="password"' in answer
    assert browser.user() == ""


def test_the_form_stays(kerberos_hub: RunningHub) -> None:
    """Passwords are taken on the same page."""
    session = kerberos_hub.session().login("alice", PASSWORD)
    assert session.get("hub/api/user").json()["name"] == "alice"


@pytest.mark.parametrize(
    ("who", "why"),
    [
        ("bob", "Log in with the form"),
        ("alice/admin", "does not let you in"),
        ("Henry", "You may not use this hub"),
    ],
)
def test_who_is_not_let_in(person: Person, kerberos_hub: RunningHub, who: str, why: str) -> None:
    """A second factor wanted, an instance, or JupyterHub's own no: the form, without another question."""
    browser = person(who)
    answer = browser.press()
    assert "HTTP/1.1 403" in answer
    assert "www-authenticate" not in answer.lower()
    assert why in answer
    assert browser.user() == ""
    assert who not in kerberos_hub.bridge.sessions


def test_no_other_site_logs_anybody_in(person: Person, kerberos_hub: RunningHub, kdc: Kdc) -> None:
    """Without the login page's own XSRF token a ticket does nothing; nor does a link."""
    browser = person("alice")
    before = len(_audit(kerberos_hub))
    assert "HTTP/1.1 403" in browser.press(xsrf="x")
    assert "HTTP/1.1 403" in browser.press(xsrf="")
    assert "ocation: /hub/login" in browser.get("/hub/kerberos_login", "--include")
    assert browser.user() == ""
    assert len(_audit(kerberos_hub)) == before


@pytest.mark.parametrize(
    "to", ["https://elsewhere.example/", "//elsewhere.example/", "/\\elsewhere.example/"]
)
def test_no_open_redirect(person: Person, to: str) -> None:
    """Wherever `next` leads, the browser stays at the hub."""
    answer = person("alice").press(to=to)
    assert "HTTP/1.1 302" in answer
    (leads,) = re.findall(r"(?im)^location: (.*?)\r?$", answer)
    assert leads.startswith("/")
    assert not leads.startswith(("//", "/\\"))


def test_what_is_no_ticket(person: Person, kdc: Kdc, kerberos_hub: RunningHub, tmp_path: Path) -> None:
    """A replayed ticket, NTLM and nonsense get the same page; too long a header the proxy's no."""
    session = kerberos_hub.session()
    session.get("hub/login")
    sent = token_of(kdc, a_ticket(kdc, tmp_path / "ccache"), "localhost")

    def press(header: str) -> tuple[int, bool]:
        answer = session.post("hub/kerberos_login", headers={"Authorization": header}, allow_redirects=False)
        return answer.status_code, "does not let you in" in answer.text

    other = kerberos_hub.session()
    other.get("hub/login")
    headers = {"Authorization": f"Negotiate {sent}"}
    assert other.post("hub/kerberos_login", headers=headers, allow_redirects=False).status_code == 302
    for token in (sent, "TlRMTVNTUAABAAAA", "YA==", "not base64", "Y" * 12_000):
        assert press(f"Negotiate {token}") == (403, True)
    assert press("Negotiate " + "Y" * 20_000)[0] in {403, 431}  # as large as the proxy lets headers be
    for header in ("Negotiate", "Negotiate  ", "Basic YWxpY2U6eA==", "NTLM TlRMTVNTUAABAAAA"):
        assert press(header)[0] == 401
    for path in [path for path in kerberos_hub.folder.rglob("*") if path.is_file()]:
        assert sent[-200:].encode() not in path.read_bytes(), path


def _audit(hub: RunningHub) -> list[dict[str, str]]:
    return [json.loads(line) for line in (hub.folder / "signer" / "audit.log").read_text().splitlines()]
