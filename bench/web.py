"""A hub's REST API, as a client sees it; over TCP, a host's own network, or a unix socket."""

from __future__ import annotations

import ctypes
import http.client
import http.cookiejar
import json
import os
import re
import socket
import threading
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CLONE_NEWNET = 0x40000000
_XSRF = re.compile(r'name="_xsrf"[^>]*value="([^"]*)"')
_STOP_LIMIT_S = 60.0


def socket_inside(holder: int) -> socket.socket:
    """A TCP socket in the network of the process `holder`; it stays there wherever it is used."""
    made: list[socket.socket | OSError] = []

    def make() -> None:  # a namespace belongs to a thread: this one ends with it
        libc = ctypes.CDLL(None, use_errno=True)
        with Path(f"/proc/{holder}/ns/net").open("rb") as network:
            if libc.setns(network.fileno(), _CLONE_NEWNET) != 0:
                made.append(OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno())))
                return
        made.append(socket.socket())

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an HTTP server is: `unix`, or host and port in the network of `holder` (0: our own)."""

    host: str = "127.0.0.1"
    port: int = 0
    holder: int = 0
    unix: str = ""


class Connection(http.client.HTTPConnection):
    """One HTTP connection to a place."""

    def __init__(self, place: Place, timeout_s: float = 120.0) -> None:
        super().__init__("localhost" if place.unix else place.host, place.port or None, timeout=timeout_s)
        self._place = place

    def connect(self) -> None:
        """See the base class."""
        place = self._place
        if place.unix:
            self.sock = socket.socket(socket.AF_UNIX)
        else:
            self.sock = socket_inside(place.holder) if place.holder else socket.socket()
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(self.timeout)
        self.sock.connect(place.unix or (place.host, place.port))


@dataclass(slots=True)
class Hub:
    """A JupyterHub behind its proxy."""

    place: Place
    token: str = field(repr=False)

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and decoded JSON (None where there is none) of one request, on a connection of its own."""
        connection = Connection(self.place)
        try:
            headers = {"Authorization": f"token {self.token}", "Content-Type": "application/json"}
            text = None if body is None else json.dumps(body)
            connection.request(method, f"/hub/api{path}", body=text, headers=headers)
            answer = connection.getresponse()
            content = answer.read()
            return answer.status, json.loads(content) if content else None
        finally:
            connection.close()

    def is_up(self) -> bool:
        """Whether the API answers."""
        try:
            return self.call("GET", "/")[0] == 200
        except (OSError, http.client.HTTPException, ValueError):
            return False

    def server(self, user: str, name: str = "") -> dict[str, Any]:
        """JupyterHub's model of a server; empty where there is none."""
        _, model = self.call("GET", f"/users/{urllib.parse.quote(user)}")
        server: dict[str, Any] = model.get("servers", {}).get(name, {})
        return server

    def start(self, user: str, options: object, name: str = "") -> float:
        """Seconds from POST until the server is ready.

        JupyterHub answers the POST itself once the server is ready, so nobody polls and disturbs. Where
        that takes longer than its `slow_spawn_timeout` (10 s), we ask every 25 ms.

        Raises:
            RuntimeError: It did not start; the message has the hub's answer.
        """
        place = f"/users/{urllib.parse.quote(user)}/servers/{name}"
        began = time.monotonic()
        status, answer = self.call("POST", place, options)
        while status == 202:
            model = self.server(user, name)
            if model.get("ready"):
                status = 201
            elif not model.get("pending"):
                break
            else:
                time.sleep(0.025)
        took = time.monotonic() - began
        if status != 201 or not self.server(user, name).get("ready"):
            raise RuntimeError(f"the server of {user} did not start: {status} {answer}")
        return took

    def stop(self, user: str, name: str = "") -> None:
        """End a server and wait until the hub knows it is gone."""
        status, answer = self.call("DELETE", f"/users/{urllib.parse.quote(user)}/servers/{name}")
        deadline = time.monotonic() + _STOP_LIMIT_S
        while status == 202 and self.server(user, name).get("pending"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server of {user} does not stop: {answer}")
            time.sleep(0.05)


def log_in(url: str, user: str, password: str, *, open_form: bool = False) -> None:
    """Log in as a browser would; ends at the hub's home page, or at the form that starts a server."""
    cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    browser = urllib.request.build_opener(urllib.request.ProxyHandler({}), cookies)
    login = f"{url}hub/login?next=%2Fhub%2Fhome"
    with browser.open(login, timeout=30) as page:
        found = _XSRF.search(page.read().decode())
    token = found.group(1) if found else ""
    form = urllib.parse.urlencode({"username": user, "password": password, "_xsrf": token}).encode()
    with browser.open(login, form, timeout=30) as page:
        if not page.geturl().endswith("/hub/home"):
            raise RuntimeError(f"{user} could not log in: {page.geturl()}")
    if open_form:
        with browser.open(f"{url}hub/spawn", timeout=30) as page:
            page.read()
