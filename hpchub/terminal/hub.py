"""The hub as a person's own machine sees it: HTTPS and JSON, with the standard library."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from hpchub.core.secret import Secret
from hpchub.errors import HostUnreachable, InvalidRequest, NotAllowed, UnexpectedOutput

_TIMEOUT_S = 30.0
_MAX_ANSWER_BYTES = 4 * 1024**2
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Hub:
    """One hub. Holds no connection and no credential."""

    def __init__(self, url: str) -> None:
        """InvalidRequest where the URL is none, or what is sent there could be read on the way."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise InvalidRequest(f"{url!r} is no URL.") from error
        loopback = host in _LOOPBACK
        if not host or parts.scheme not in {"https", "http"} or parts.query or parts.username is not None:
            raise InvalidRequest(f"{url!r} is no hub's URL.", "Give one such as https://hub.example.org.")
        if parts.scheme == "http" and not loopback:
            raise InvalidRequest(f"{url} is not https: anybody on the way could read and change it.")
        self.host = host
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}".removesuffix("/hub")
        path = urlsplit(self.url).path
        self.name = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{host}{f'-{port}' if port else ''}{path}")
        self._opener = _opener(loopback)

    @property
    def device_page(self) -> str:
        """Where people confirm a login."""
        return f"{self.url}/hub/hpchub/device"

    def post(self, path: str, fields: Mapping[str, str]) -> dict[str, Any]:
        """A form, sent to one of our own addresses; `path` begins after `/hub/hpchub/`.

        An OAuth refusal comes back as what it is: an object with `error`.

        Raises:
            HostUnreachable: Nobody answers, or the hub cannot just now.
            NotAllowed: It refuses, in words for people.
            UnexpectedOutput: What answers is no hub of ours.
        """
        body = self._send(
            Request(f"{self.url}/hub/hpchub/{path}", data=urlencode(fields).encode(), method="POST")  # noqa: S310  the constructor let only http(s) through
        )
        if not isinstance(body, dict):
            raise UnexpectedOutput(self.url, "JSON, but no object")
        told = str(body.get("error_description", ""))
        if body.get("error") == "temporarily_unavailable":
            raise HostUnreachable(_plain(told))
        if told:
            raise NotAllowed(_plain(told))
        return body

    def api(self, method: str, path: str, token: Secret, body: Mapping[str, Any] | None = None) -> Any:
        """JupyterHub's REST API; `path` begins after `/hub/api/`.

        Raises:
            HostUnreachable, UnexpectedOutput: As `post`.
            NotAllowed: The hub refuses, in its own words.
        """
        request = Request(  # noqa: S310  as above
            f"{self.url}/hub/api/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {token.reveal()}", "Content-Type": "application/json"},
            method=method,
        )
        answer = self._send(request)
        if isinstance(answer, dict) and "status" in answer and "message" in answer:
            raise NotAllowed(_plain(str(answer["message"])))
        return answer

    def _send(self, request: Request) -> Any:
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as response:
                raw = response.read(_MAX_ANSWER_BYTES + 1)
        except HTTPError as error:  # an answer all the same
            raw = error.read(_MAX_ANSWER_BYTES + 1)
            if error.code in {502, 503, 504} and not raw.startswith(b"{"):
                raise HostUnreachable(f"{self.url} cannot answer just now (HTTP {error.code}).") from None
            if 300 <= error.code < 400:
                raise UnexpectedOutput(self.url, f"HTTP {error.code}: give the hub's own URL") from None
        except (URLError, HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
            raise HostUnreachable(f"{self.url} does not answer: {_plain(str(reason))}") from error
        if not raw:
            return {}
        try:
            return json.loads(raw if len(raw) <= _MAX_ANSWER_BYTES else b"")
        except ValueError:
            # Not shown: an answer may hold a token.
            raise UnexpectedOutput(self.url, "no JSON: is this a hub with hpchub?") from None


class _NoRedirects(HTTPRedirectHandler):
    """What is meant for the hub goes nowhere else."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        """None: the redirect is an error."""


def _opener(loopback: bool) -> OpenerDirector:
    return build_opener(_NoRedirects, *((ProxyHandler({}),) if loopback else ()))


def _plain(text: str) -> str:
    """A hub's words cannot draw on somebody's terminal."""
    return "".join(char if char.isprintable() else " " for char in text)[:500]
