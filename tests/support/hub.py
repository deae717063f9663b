"""A person at the hub without a browser: logged in by the real form, XSRF token and all."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.cookies import get_cookie_header

_XSRF_FIELD = re.compile(r'name="_xsrf"[^>]*value="([^"]*)"')
_TIMEOUT_S = 30.0


class HubSession(requests.Session):
    """Requests to the hub at `url`; every path is relative to it.

    `request` sends the XSRF token that the hub, or the server asked, gave, so that
    `post("hub/api/...")` is what the hub's own pages send.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        # A proxy setting of the machine must not get between the tests and the loopback address.
        self.trust_env = False
        self.url = url.rstrip("/") + "/"

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request; `url` may be a path below the hub's own."""
        kwargs.setdefault("timeout", _TIMEOUT_S)
        target = urljoin(self.url, str(url).lstrip("/"))
        token = self.xsrf_token(urlsplit(target).path)
        if token:
            kwargs["headers"] = {"X-XSRFToken": token} | dict(kwargs.get("headers") or {})
        return super().request(method, target, *args, **kwargs)

    def xsrf_token(self, path: str = "/hub/") -> str:
        """The token for pages at `path`, from the cookie that is nearest; empty before the first page."""
        tokens = {cookie.path: cookie.value or "" for cookie in self.cookies if cookie.name == "_xsrf"}
        fitting = [above for above in tokens if path.startswith(above)]
        return tokens[max(fitting, key=len)] if fitting else ""

    def cookie_header(self, path: str) -> str:
        """The `Cookie` header that a request to `path` would carry."""
        prepared = requests.Request("GET", urljoin(self.url, path)).prepare()
        return get_cookie_header(self.cookies, prepared) or ""  # type: ignore[no-untyped-call]

    def submit_login(
        self, username: str, password: str, *, to: str = "", code: str | None = None
    ) -> requests.Response:
        """Open the login page, send its form, and follow where it leads; `to` is a path to end at."""
        params = {"next": to} if to else {}
        page = self.get("hub/login", params=params)
        page.raise_for_status()
        token = _XSRF_FIELD.search(page.text)
        if token is None:
            raise AssertionError(f"the login page has no _xsrf field:\n{page.text[:2000]}")
        form = {"username": username, "password": password, "_xsrf": token.group(1)}
        return self.post(
            "hub/login",
            params=params,
            data=form if code is None else form | {"otp": code},
            headers={"Referer": urljoin(self.url, "hub/login")},
        )

    def login(self, username: str, password: str) -> HubSession:
        """Log in, and start nothing: a hub without a form would start a server at once.

        Raises:
            AssertionError: The hub refused; the message has its page.
        """
        answer = self.submit_login(username, password, to="/hub/home")
        if not answer.ok or not any(cookie.name == "jupyterhub-session-id" for cookie in self.cookies):
            raise AssertionError(f"login of {username} answered {answer.status_code}:\n{answer.text[:2000]}")
        return self
