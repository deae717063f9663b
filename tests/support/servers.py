"""One server of one logged-in person: started by REST, spoken to through the proxy, stopped."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import requests
from websockets.sync.client import ClientConnection, connect

from support.demo import Demo
from support.hub import HubSession

# Far beyond what anything takes: whoever waits that long has found a hang.
_LIMIT_S = 60.0
_STEP_S = 0.1


def until(holds: Callable[[], bool], what: str, limit_s: float = _LIMIT_S) -> None:
    """Wait for something to hold. AssertionError where it does not within `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {limit_s:.0f} s: {what}"
        time.sleep(_STEP_S)


@dataclass(frozen=True, slots=True)
class Server:
    """A person's default server, or the one called `name`. `session` is the person's own."""

    demo: Demo
    session: HubSession
    user: str
    name: str = ""

    @property
    def api(self) -> str:
        """Where the hub's REST API has this server."""
        base = f"hub/api/users/{quote(self.user)}/server"
        return f"{base}s/{self.name}" if self.name else base

    @property
    def base(self) -> str:
        """Where the proxy has this server."""
        return f"user/{quote(self.user)}/" + (f"{self.name}/" if self.name else "")

    def ask(self, **options: object) -> requests.Response:
        """Ask the hub to start; what it answers."""
        return self.session.post(self.api, json={"user_options": options})

    def start(self, **options: object) -> Server:
        """Start, and wait until it is ready. AssertionError with the hub's words where it fails."""
        answer = self.ask(**options)
        assert answer.status_code in {201, 202}, f"start answered {answer.status_code}: {answer.text}"
        if answer.status_code == 202:
            events = list(self.events())
            assert events and events[-1].get("ready"), events
        assert self.model()["ready"]
        return self

    def refusal(self, **options: object) -> tuple[int, str]:
        """Ask for a start that must fail: the status and the words, from the answer or the progress."""
        answer = self.ask(**options)
        if answer.status_code != 202:
            assert answer.status_code >= 400, f"it started: {answer.status_code}"
            return answer.status_code, str(answer.json()["message"])
        events = list(self.events())
        assert events and events[-1].get("failed"), events
        return 202, str(events[-1]["message"])

    def events(self) -> Iterator[dict[str, Any]]:
        """The progress stream, until the hub ends it."""
        with self.session.get(f"{self.api}/progress", stream=True, timeout=_LIMIT_S) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                if line.startswith(b"data:"):
                    yield json.loads(line.removeprefix(b"data:"))

    def until_said(self, words: str) -> str:
        """The first progress message with these words in it."""
        seen = []
        for event in self.events():
            seen.append(event["message"])
            if words in event["message"]:
                return str(event["message"])
        raise AssertionError(f"no progress message has {words!r}: {seen}")

    def model(self) -> dict[str, Any]:
        """The hub's own view of it; empty where it has none."""
        path = f"{self.demo.url}hub/api/users/{quote(self.user)}"
        answer = requests.get(path, headers=self.demo.admin_headers, timeout=_LIMIT_S)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()["servers"].get(self.name) or {}
        return found

    @property
    def server_id(self) -> str:
        """The bridge's id of it."""
        return str(self.model()["state"]["server_id"])

    @property
    def folder(self) -> str:
        """Its folder on the cluster."""
        return f"/home/{self.user}/.hpchub/servers/{self.server_id}"

    def stop(self) -> None:
        """Stop, and wait until the hub says that it is gone."""
        answer = self.session.delete(self.api)
        assert answer.status_code in {202, 204, 400, 404}, (
            f"stop answered {answer.status_code}: {answer.text}"
        )
        until(lambda: not self.model(), f"{self.user}'s server {self.name!r} is gone")

    def open(self) -> requests.Response:
        """JupyterLab's page, by the hub's OAuth: the session has the server's cookie from then on."""
        return self.session.get(f"{self.base}lab")

    def page_in_its_place(self) -> str:
        """What the hub shows where the server was. (`lab` behind it could be the name of another server.)"""
        return self.session.get(f"hub/{self.base}").text

    @contextmanager
    def kernel(self) -> Iterator[Kernel]:
        """A kernel of its own, spoken to as JupyterLab does."""
        kernel_id = self.new_kernel()
        try:
            with self.connected(kernel_id) as kernel:
                yield kernel
        finally:
            self.session.delete(f"{self.base}api/kernels/{kernel_id}")

    def new_kernel(self) -> str:
        """Start a kernel that stays; its id."""
        self.open().raise_for_status()
        made = self.session.post(f"{self.base}api/kernels")
        assert made.status_code == 201, made.text
        return str(made.json()["id"])

    @contextmanager
    def connected(self, kernel_id: str) -> Iterator[Kernel]:
        """A WebSocket to a kernel that runs already."""
        path = f"{self.base}api/kernels/{kernel_id}"
        address = f"{self.demo.url}{path}/channels?_xsrf={quote(self.session.xsrf_token('/' + path))}"
        cookies = {"Cookie": self.session.cookie_header(path)}
        with connect(
            address.replace("http", "ws", 1), additional_headers=cookies, proxy=None, max_size=None
        ) as socket:
            yield Kernel(socket)

    def run(self, code: str) -> str:
        """What code prints in a fresh kernel."""
        with self.kernel() as kernel:
            return kernel.run(code)


ServerOf = Callable[..., Server]
"""From a user's name, and a server's where it is not the default one, to a server to start."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel's channels over one WebSocket."""

    socket: ClientConnection

    def run(self, code: str) -> str:
        """What code prints, an exception's name and text included."""
        asked = uuid.uuid4().hex
        content = {
            "code": code,
            "silent": False,
            "store_history": False,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
        }
        header = {
            "msg_id": asked,
            "msg_type": "execute_request",
            "username": "",
            "session": asked,
            "date": "",
            "version": "5.3",
        }
        message = {
            "header": header,
            "parent_header": {},
            "metadata": {},
            "channel": "shell",
            "content": content,
        }
        self.socket.send(json.dumps(message))
        printed, replied, idle = "", False, False
        # The reply and the output come on two channels, in either order.
        while not (replied and idle):
            got = json.loads(self.socket.recv(timeout=_LIMIT_S))
            if got["parent_header"].get("msg_id") != asked:
                continue
            kind, body = got["msg_type"], got["content"]
            if kind == "stream":
                printed += body["text"]
            elif kind == "error":
                printed += f"{body['ename']}: {body['evalue']}"
            replied = replied or kind == "execute_reply"
            idle = idle or (kind == "status" and body["execution_state"] == "idle")
        return printed.strip()
