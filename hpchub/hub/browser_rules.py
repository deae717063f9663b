"""What browsers are told about the hub's pages: what may run in them, who may frame them, how cookies travel.

JupyterHub's templates are full of scripts between the lines, so its pages cannot do with a policy that
knows files only. `ScriptNonces` gives every script of a template a number that is new for each answer, and
the policy lets run what has it: what somebody smuggles into a page has none.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment
from jinja2.ext import Extension
from jupyterhub.handlers import BaseHandler
from tornado.httputil import HTTPHeaders

_HSTS_S = 365 * 24 * 3600
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_SCRIPT = re.compile(r"<script(?=[\s>])(?![^>]*\snonce=)")
_FORM_TARGETS = "hpchub_form_targets"

# tornado makes the headers in the context that the answer's task begins with: each answer has its own.
_nonce: ContextVar[str] = ContextVar("hpchub_script_nonce", default="")


class ScriptNonces(Extension):
    """Gives each `<script>` of the templates the answer's nonce: JupyterHub's, ours and a site's own."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.globals["hpchub_script_nonce"] = _nonce.get

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """The template's text with the attribute in every script's tag that has none."""
        return _SCRIPT.sub('<script nonce="{{ hpchub_script_nonce() }}"', source)


def set_browser_rules(app: Any) -> None:
    """Set up headers and cookies of a JupyterHub that is about to begin. What the site has set itself stays.

    Args:
        app: JupyterHub, with its settings for tornado made and no template read.
    """
    settings = app.tornado_settings
    headers = HTTPHeaders(_HEADERS)
    cookies: dict[str, Any] = {"samesite": "Lax"}
    if has_tls(app):
        headers["Strict-Transport-Security"] = f"max-age={_HSTS_S}"
        cookies |= {"secure": True}
    elif not app.public_url:
        app.log.warning("browser_rules.no_tls: cookies are sent in clear too; set public_url= of configure()")
    headers.update(settings.get("headers", {}))
    settings["headers"] = headers
    settings["cookie_options"] = cookies | settings.get("cookie_options", {})
    # The pages' scripts have the token from the page itself.
    xsrf = cookies | {"httponly": True} | settings.get("xsrf_cookie_kwargs", {})
    settings["xsrf_cookie_kwargs"] = xsrf
    settings[_FORM_TARGETS] = form_targets(app.subdomain_host, app.services)
    for environment in (settings["jinja2_env"], settings["jinja2_env_sync"]):
        environment.add_extension(ScriptNonces)
    # JupyterHub 6.1.1 has a setting for one text for all answers, and handlers that narrow this property.
    BaseHandler.content_security_policy = property(_policy_of)


def has_tls(app: Any) -> bool:
    """Whether browsers speak TLS with the hub, as far as its settings tell."""
    return bool(app.ssl_cert) or any(
        urlsplit(url).scheme == "https" for url in (app.public_url, app.subdomain_host, app.bind_url)
    )


def form_targets(subdomain_host: str, services: Iterable[Mapping[str, Any]]) -> list[str]:
    """Where an answer to a form may lead beside the hub: people's own domains, and services elsewhere."""
    targets = []
    if subdomain_host:
        parts = urlsplit(subdomain_host)
        targets.append(f"{parts.scheme}://*.{parts.netloc}")
    for service in services:
        parts = urlsplit(service.get("oauth_redirect_uri") or "")
        if parts.netloc:
            targets.append(f"{parts.scheme}://{parts.netloc}")
    return targets


def content_security_policy(nonce: str, targets: Iterable[str], report_uri: str) -> str:
    """The policy of a page whose scripts carry `nonce`.

    `strict-dynamic` lets such a script load others, as require.js does. Styles stay open: templates and
    jQuery write them into elements. There is no `default-src`, because JupyterHub's API adds its own.
    """
    return "; ".join(
        (
            f"script-src 'nonce-{nonce}' 'strict-dynamic'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "frame-src 'none'",
            "media-src 'none'",
            "object-src 'none'",
            "worker-src 'none'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
            " ".join(("form-action 'self'", *targets)),
            f"report-uri {report_uri}",
        )
    )


def _policy_of(handler: BaseHandler) -> str:
    """A new policy for this answer. tornado asks again where an error takes its place."""
    nonce = secrets.token_urlsafe(16)
    _nonce.set(nonce)
    return content_security_policy(nonce, handler.settings[_FORM_TARGETS], handler.csp_report_uri)
