"""The hub as a laptop sees it: which URLs will do, and what becomes of odd answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from hpchub.core.secret import Secret
from hpchub.errors import HostUnreachable, InvalidRequest, NotAllowed, UnexpectedOutput
from hpchub.terminal.hub import Hub
from hpchub.terminal.login import collect

Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture
def serve() -> Iterator[Callable[[list[Answer]], tuple[str, list[str]]]]:
    """A web server that gives these answers in turn, and what it was asked."""
    servers: list[HTTPServer] = []

    def begin(answers: list[Answer]) -> tuple[str, list[str]]:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                asked.append(self.path)
                status, headers, body = answers.pop(0)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: object) -> None:
                """Nothing."""

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}", asked

    yield begin
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hub.example.org",
        "ftp://hub",
        "http://hub.example.org",
        "https://",
        "https://u:p@hub",
        "https://h:x",
    ],
)
def test_urls_that_will_not_do(url: str) -> None:
    """No scheme, no host, a password in it; and plain http to anywhere but this machine."""
    with pytest.raises(InvalidRequest):
        Hub(url)


def test_one_hub_has_one_name() -> None:
    """With or without the slash and /hub that people copy; the port and the path belong to it."""
    for url in ("https://hub.example.org", "https://hub.example.org/", "https://hub.example.org/hub/"):
        hub = Hub(url)
        assert (hub.url, hub.name) == ("https://hub.example.org", "hub.example.org")
    assert Hub("https://h.example.org:8443/jupyter").name == "h.example.org-8443-jupyter"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), UnexpectedOutput),
        ((200, {}, b"<html>a portal"), UnexpectedOutput),
        ((200, {}, b"[]"), UnexpectedOutput),
        ((503, {}, b"<html>"), HostUnreachable),
        ((503, {}, b'{"error": "temporarily_unavailable", "error_description": "x"}'), HostUnreachable),
        ((403, {}, b'{"error": "invalid_request", "error_description": "no\\u001b[2J"}'), NotAllowed),
    ],
)
def test_odd_answers(
    serve: Callable[[list[Answer]], tuple[str, list[str]]], answer: Answer, error: type[Exception]
) -> None:
    """A redirect is not followed, a portal's page is no hub, and words cannot draw on the terminal."""
    url, asked = serve([answer])
    with pytest.raises(error) as caught:
        Hub(url).post("x", {"secret": "canary"})
    assert len(asked) == 1
    assert "\x1b" not in str(caught.value)
    assert "canary" not in str(caught.value)


def test_nobody_answers() -> None:
    """A hub that is down is named."""
    with pytest.raises(HostUnreachable, match="127"):
        Hub("http://127.0.0.1:1").api("POST", "users", Secret("x"), {})


def test_a_poll_waits_as_it_is_told(serve: Callable[[list[Answer]], tuple[str, list[str]]]) -> None:
    """RFC 8628, section 3.5: five seconds more after slow_down; a proxy that restarts ends nothing."""
    pending = (400, {}, b'{"error": "authorization_pending"}')
    slow = (400, {}, b'{"error": "slow_down"}')
    url, _ = serve([pending, (502, {}, b"<html>"), slow, pending, (200, {}, b'{"certificate": "x"}')])
    waited: list[float] = []
    assert collect(Hub(url), "d", 1, 60, waited.append) == {"certificate": "x"}
    assert waited == [1, 1, 1, 6, 6]


@pytest.mark.parametrize(
    ("told", "words"),
    [("access_denied", "denied"), ("expired_token", "in time"), ("invalid_grant", "does not know")],
)
def test_a_poll_that_is_over(
    serve: Callable[[list[Answer]], tuple[str, list[str]]], told: str, words: str
) -> None:
    """Each end in words of its own."""
    url, _ = serve([(400, {}, f'{{"error": "{told}"}}'.encode())])
    with pytest.raises(NotAllowed, match=words):
        collect(Hub(url), "d", 1, 60, lambda _s: None)
