"""The page on which people set up their second factors, and the login page's field for a code.

Whoever gets to the page has proven the password, and a second factor if they had one: there need be no login
at the hub and no session on the bridge. What lets them in is the signer's ticket, in a cookie for this page
alone. What else the page does is in `factor_changes`.
"""

from __future__ import annotations

from typing import Any

import segno
from jupyterhub.handlers import BaseHandler
from jupyterhub.handlers.login import LoginHandler
from jupyterhub.utils import url_path_join

from hpchub.core.secret import Secret
from hpchub.errors import HpchubError, InvalidRequest, NotAllowed, UserError
from hpchub.signer.answers import OfferedFactor

_COOKIE = "hpchub-second-factor"
_PATH = "second-factor"
_LOGIN_PATH = "login"
_COOKIE_S = 600
_PLAIN_REFUSAL = "Invalid username or password"
_REFUSAL = "Invalid username, password or code"
_REFUSAL_WITH_KEYS = "Invalid username, password, code or security key"
_APP, _KEY = "totp", "webauthn"


class HpchubLoginHandler(LoginHandler):
    """JupyterHub's login page, with a field for a code where the signer may want one."""

    async def prepare(self) -> None:
        """Ask the signer, so that its settings are the only place where a site says so."""
        await super().prepare()
        await self.authenticator.learn_factor_kinds()

    def _render(self, login_error: str | None = None, **kwargs: Any) -> Any:
        if login_error == _PLAIN_REFUSAL and self.authenticator.request_otp:
            has_keys = _KEY in self.authenticator.factor_kinds
            login_error = _REFUSAL_WITH_KEYS if has_keys else _REFUSAL
        return super()._render(login_error=login_error, **kwargs)


class FactorHandler(BaseHandler):
    """What all addresses of the page share: the ticket, and what to do without one."""

    def set_default_headers(self) -> None:
        """No copy of the page stays in the browser or on the way."""
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "no-referrer")

    async def show_page(self, refusal: str = "") -> None:
        """The page; `refusal` is what was wrong with what came last."""
        ticket = self.ticket()
        if ticket is None:
            self.back_to_login()
            return
        signer = self.authenticator.signer()
        try:
            held = await signer.held_factors(ticket)
            offer = await signer.offer(ticket) if _APP in held.kinds else None
        except UserError:
            self.back_to_login()
            return
        except HpchubError as error:
            await self.show_failure(error)
            return
        if refusal:
            self.set_status(422)
        page = await self.render_template(
            "hpchub_second_factor.html",
            held=held,
            has_any=held.has_app or bool(held.keys),
            seed=offer.seed.reveal() if offer else "",
            picture=_picture(offer) if offer else "",
            refusal=refusal,
            action=_page_url(self),
            xsrf=self.xsrf_token.decode("ascii"),
        )
        self.finish(page)

    async def show_codes(self, codes: tuple[Secret, ...], what: str) -> None:
        """The recovery codes, once. `what` has begun to count: an `app`, or a `key`; or nothing new, ``."""
        page = await self.render_template(
            "hpchub_recovery_codes.html",
            codes=[code.reveal() for code in codes],
            what=what,
            page_url=_page_url(self),
            login_url=self.settings["login_url"],
        )
        self.finish(page)

    async def show_failure(self, error: HpchubError) -> None:
        """That the signer cannot be asked."""
        self.log.error("second_factor.unavailable error=%s message=%s", type(error).__name__, error.message)
        self.set_status(503)
        message = "Second factors cannot be set up just now. Try again in a minute, or tell the site's staff."
        page = await self.render_template(
            "error.html", status_code=503, status_message="Service Unavailable", message=message
        )
        self.finish(page)

    def ticket(self) -> Secret | None:
        """What lets in whoever opens the page."""
        held = self.get_secure_cookie(_COOKIE, max_age_days=1)
        return Secret(held.decode("ascii", "replace")) if held else None

    def forget_ticket(self) -> None:
        """The page opens no more in this browser."""
        self.clear_cookie(_COOKIE, path=_page_url(self))

    def back_to_login(self) -> None:
        """Without a ticket there is nothing to see."""
        self.forget_ticket()
        self.redirect(self.settings["login_url"])


class SecondFactorHandler(FactorHandler):
    """Shows what somebody has and can add: an app by its QR code, whose first code comes back here."""

    async def get(self) -> None:
        """The page."""
        await self.show_page()

    async def post(self) -> None:
        """An app's first code."""
        ticket = self.ticket()
        if ticket is None:
            self.back_to_login()
            return
        try:
            codes = await self.authenticator.signer().enrol(
                ticket, Secret(self.get_argument("code", "")), self.authenticator.source_of(self)
            )
        except InvalidRequest as error:
            await self.show_page(refusal=str(error))
            return
        except NotAllowed:
            self.back_to_login()
            return
        except HpchubError as error:
            await self.show_failure(error)
            return
        self.forget_ticket()  # the signer has ended it
        await self.show_codes(codes, "app")


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


def _picture(offer: OfferedFactor) -> str:
    """The QR code as SVG: dark on light whatever the page's colours, because cameras want it so."""
    code = segno.make_qr(offer.uri.reveal(), error="m")
    return str(
        code.svg_inline(
            scale=5, border=4, dark="#000", light="#fff", omitsize=True, svgclass=None, lineclass=None
        )
    )
