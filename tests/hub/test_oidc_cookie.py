"""The cookie that holds a login until the browser comes back: for one page, or for one host."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from jupyterhub.handlers import BaseHandler
from tornado import web

from hpchub.hub.oidc_cookie import keep_begun, take_begun
from hpchub.hub.oidc_flow import begin

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAvKHx6Syrr3FjfG3ByX69yfD/EnBSJIhCsKkFD+6jJ"


class Browser:
    """What the two functions use of a handler, and the cookies that a browser would keep."""

    log = logging.getLogger(__name__)
    _set_cookie = BaseHandler._set_cookie

    def __init__(self, *, prefix: bool, protocol: str) -> None:
        self.settings = {"cookie_host_prefix_enabled": prefix}
        self.hub = SimpleNamespace(base_url="/site/hub/")
        self.request = SimpleNamespace(protocol=protocol, headers={})
        self.kept: dict[str, tuple[str, dict[str, Any]]] = {}

    def set_secure_cookie(self, name: str, value: str, **attributes: Any) -> None:
        self.kept[name] = (value, attributes)

    def get_secure_cookie(self, name: str, max_age_days: int) -> bytes | None:
        assert max_age_days == 1
        return self.kept[name][0].encode() if name in self.kept else None

    def clear_cookie(self, name: str, *, path: str) -> None:
        if name in self.kept and self.kept[name][1]["path"] == path:
            del self.kept[name]


@pytest.mark.parametrize(
    ("prefix", "protocol", "name", "path", "secure"),
    [
        (False, "http", "hpchub-oidc", "/site/hub/oidc_callback", False),
        (False, "https", "hpchub-oidc", "/site/hub/oidc_callback", True),
        (True, "https", "__Host-hpchub-oidc", "/", True),
    ],
)
def test_where_it_is_kept(prefix: bool, protocol: str, name: str, path: str, secure: bool) -> None:
    """No script reads it, it counts once, and with JupyterHub's own setting no subdomain can forge it."""
    browser, begun = Browser(prefix=prefix, protocol=protocol), begin("k", KEY, "")
    keep_begun(browser, begun, "oidc_callback")
    assert {"secure": False} | browser.kept[name][1] == {
        "expires_days": None,
        "max_age": 300,
        "path": path,
        "httponly": True,
        "samesite": "Lax",
        "secure": secure,
    }
    assert take_begun(browser, "oidc_callback") == begun
    with pytest.raises(web.HTTPError) as caught:
        take_begun(browser, "oidc_callback")
    assert caught.value.status_code == 403
