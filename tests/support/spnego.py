"""Tickets of a real KDC, and what a real client makes of them: curl sends the token that a browser would."""

from __future__ import annotations

import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from support import require
from support.kdc import PASSWORD, Kdc

HOST = "hub.example.org"


def a_ticket(kdc: Kdc, ccache: Path, who: str = "alice", *, realm: str = "", life: str = "") -> Path:
    """A file with a ticket-granting ticket, by kinit; `life` as in `10s`."""
    require.programs("kinit")
    argv = [
        "kinit",
        "-c",
        f"FILE:{ccache}",
        *(["-l", life] if life else []),
        f"{who}@{realm}" if realm else who,
    ]
    _run(kdc, ccache, argv, PASSWORD + "\n")
    return ccache


def token_of(kdc: Kdc, ccache: Path, host: str = HOST) -> str:
    """What curl sends behind `Authorization: Negotiate` to a web server of that name."""
    require.programs("curl")
    heard: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.headers.get("Authorization", ""))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_ignored: object) -> None:
            """Print nothing."""

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            curl(kdc, ccache, "--resolve", f"{host}:{port}:127.0.0.1", f"http://{host}:{port}/")
        finally:
            server.shutdown()
            thread.join()
    scheme, _, token = heard[0].partition(" ")
    assert scheme == "Negotiate", heard
    return token


def curl(kdc: Kdc, ccache: Path, *arguments: str) -> str:
    """curl's output, with what is in a ticket file."""
    require.programs("curl")
    argv = ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "20"]
    return _run(kdc, ccache, [*argv, "--negotiate", "--user", ":", *arguments])


def _run(kdc: Kdc, ccache: Path, argv: list[str], typed: str = "") -> str:
    environ = os.environ | {
        "KRB5_CONFIG": str(kdc.krb5_conf),
        "KRB5CCNAME": f"FILE:{ccache}",
        "LANG": "C.UTF-8",
    }
    done = subprocess.run(argv, env=environ, input=typed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (argv[0], done.stderr)
    return done.stdout
