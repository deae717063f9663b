"""The page on which people set up their second factor, and the login page's field for its code.

Whoever gets to the page has proven the password and nothing more: there is no login at the hub and no
session on the bridge yet. What lets them in is the signer's ticket, in a cookie for this page alone.
"""

from __future__ import annotations

from typing import Any

import segno
from jupyterhub.handlers import BaseHandler
from jupyterhub.handlers.login import LoginHandler
from jupyterhub.utils import url_path_join

from hpchub.core.secret import Secret
from hpchub.errors import HpchubError, InvalidRequest, NotAllowed, UserError

_COOKIE = "hpchub-second-factor"
_PATH = "second-factor"
_LOGIN_PATH = "login"
_COOKIE_S = 600
_PLAIN_REFUSAL = "Invalid username or password"
_REFUSAL = "Invalid username, password or code"


class HpchubLoginHandler(LoginHandler):
    """JupyterHub's login page, with a field for a code where the signer may want one."""

    async def prepare(self) -> None:
        """Ask the signer, so that its settings are the only place where a site says so."""
        await super().prepare()
        await self.authenticator.learn_whether_codes_are_asked()

    def _render(self, login_error: str | None = None, **kwargs: Any) -> Any:
        if login_error == _PLAIN_REFUSAL and self.authenticator.request_otp:
            login_error = _REFUSAL
        return super()._render(login_error=login_error, **kwargs)


class SecondFactorHandler(BaseHandler):
    """Shows a QR code, asks for a first code, and shows the recovery codes, once."""

    def set_default_headers(self) -> None:
        """No copy of the page stays in the browser or on the way."""
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "no-referrer")

    async def get(self) -> None:
        """The QR code."""
        await self._show_offer()

    async def post(self) -> None:
        """The first code."""
        ticket = self._ticket()
        if ticket is None:
            self._back_to_login()
            return
        signer = self.authenticator.signer()
        try:
            codes = await signer.enrol(
                ticket, Secret(self.get_argument("code", "")), self.authenticator.source_of(self)
            )
        except InvalidRequest as error:
            await self._show_offer(refusal=str(error))
            return
        except NotAllowed:
            self._back_to_login()
            return
        except HpchubError as error:
            await self._show_failure(error)
            return
        self.clear_cookie(_COOKIE, path=_page_url(self))
        page = await self.render_template(
            "hpchub_recovery_codes.html",
            codes=[code.reveal() for code in codes],
            login_url=self.settings["login_url"],
        )
        self.finish(page)

    async def _show_offer(self, refusal: str = "") -> None:
        ticket = self._ticket()
        if ticket is None:
            self._back_to_login()
            return
        try:
            offer = await self.authenticator.signer().offer(ticket)
        except UserError:
            self._back_to_login()
            return
        except HpchubError as error:
            await self._show_failure(error)
            return
        if refusal:
            self.set_status(422)
        page = await self.render_template(
            "hpchub_second_factor.html",
            username=offer.username,
            seed=offer.seed.reveal(),
            picture=_picture(offer.uri),
            refusal=refusal,
            xsrf=self.xsrf_token.decode("ascii"),
        )
        self.finish(page)

    async def _show_failure(self, error: HpchubError) -> None:
        self.log.error("second_factor.unavailable error=%s message=%s", type(error).__name__, error.message)
        self.set_status(503)
        message = "Second factors cannot be set up just now. Try again in a minute, or tell the site's staff."
        page = await self.render_template(
            "error.html", status_code=503, status_message="Service Unavailable", message=message
        )
        self.finish(page)

    def _ticket(self) -> Secret | None:
        held = self.get_secure_cookie(_COOKIE, max_age_days=1)
        return Secret(held.decode("ascii", "replace")) if held else None

    def _back_to_login(self) -> None:
        self.clear_cookie(_COOKIE, path=_page_url(self))
        self.redirect(self.settings["login_url"])


def lead_to_enrolment(handler: BaseHandler, ticket: str) -> None:
    """Answer a login with the way to the page, and its ticket in a cookie that no script can read."""
    # JupyterHub's own way: it knows whether browsers speak TLS, whatever the proxies say.
    handler._set_cookie(
        _COOKIE, ticket, expires_days=None, max_age=_COOKIE_S, path=_page_url(handler), samesite="Strict"
    )
    handler.redirect(_page_url(handler))


def second_factor_handlers() -> list[tuple[str, type[BaseHandler]]]:
    """The login page and the page of this module, in place of JupyterHub's."""
    return [(f"/{_LOGIN_PATH}", HpchubLoginHandler), (f"/{_PATH}", SecondFactorHandler)]


def _page_url(handler: BaseHandler) -> str:
    return str(url_path_join(handler.hub.base_url, _PATH))


def _picture(uri: Secret) -> str:
    """The QR code as SVG: dark on light whatever the page's colours, because cameras want it so."""
    code = segno.make_qr(uri.reveal(), error="m")
    return str(
        code.svg_inline(
            scale=5, border=4, dark="#000", light="#fff", omitsize=True, svgclass=None, lineclass=None
        )
    )
