"""Keeps a login that has begun in the browser's own cookie, until the browser comes back."""

from __future__ import annotations

from jupyterhub.handlers import BaseHandler
from jupyterhub.utils import url_path_join
from tornado import web

from hpchub.hub.oidc_flow import Begun, parse_begun

_NAME = "hpchub-oidc"
_LASTS_S = 300  # as long as the bridge keeps a key without a login


def keep_begun(handler: BaseHandler, begun: Begun, callback: str) -> None:
    """Signed, for no script to read, and for the callback's page alone."""
    name, path = _place(handler, callback)
    # JupyterHub's own way: it knows whether browsers speak TLS. Signed, and hidden from scripts.
    handler._set_cookie(
        name,
        begun.to_text(),
        expires_days=None,
        max_age=_LASTS_S,
        path=path,
        samesite="Lax",  # the way back begins on the provider's page
    )


def take_begun(handler: BaseHandler, callback: str) -> Begun:
    """The login that this browser has begun, which counts once.

    Raises:
        web.HTTPError: 403 where there is none.
    """
    name, path = _place(handler, callback)
    held = handler.get_secure_cookie(name, max_age_days=1)
    handler.clear_cookie(name, path=path)
    try:
        return parse_begun((held or b"").decode("utf-8"))
    except ValueError as error:
        why = "That login did not begin in this browser, or took too long. Log in again."
        raise web.HTTPError(403, why) from error


def _place(handler: BaseHandler, callback: str) -> tuple[str, str]:
    """Name and path. With `__Host-` no page of a user's subdomain can put a login of its own there."""
    if handler.settings.get("cookie_host_prefix_enabled"):
        return f"__Host-{_NAME}", "/"
    return _NAME, str(url_path_join(handler.hub.base_url, callback))
