"""What browsers, security keys and people say to the signer about second factors, carried by the hub.

The hub decides nothing here: challenges, answers and tickets are the signer's to make and to check.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from jupyterhub.handlers import BaseHandler
from jupyterhub.utils import url_path_join
from tornado import web

from hpchub.bridge.client import BridgeClient
from hpchub.core.secret import Secret
from hpchub.errors import HpchubError, InvalidRequest, NotAllowed, UserError
from hpchub.hub.second_factor import FactorHandler, lead_to_enrolment

_ATTEMPT = "hpchub-login-attempt"
_ATTEMPT_S = 300  # as long as the bridge keeps a key that nobody has claimed


class ChallengeHandler(BaseHandler):
    """`/hub/second-factor/challenge`: what to ask somebody's security keys. Anybody may ask for anybody.

    At a login the bridge's key for it is made now, because the challenge is bound to it; the login finds it
    again in a cookie.
    """

    async def post(self) -> None:
        """JSON for the browser. JupyterHub asks for its XSRF token."""
        authenticator: Any = self.authenticator
        username, is_login = self.get_argument("username", ""), self.get_argument("for", "") == "login"
        try:
            key_id, public_key = "", ""
            if is_login:
                bridge = BridgeClient(Path(authenticator.bridge_socket))
                key_id, public_key = await bridge.new_key(authenticator.source_of(self))
            options = await authenticator.signer().challenge(username, public_key)
        except HpchubError as error:
            _log_and_raise(self, error)
        if is_login:
            # JupyterHub's own way: it knows whether browsers speak TLS. Signed, and hidden from scripts.
            self._set_cookie(
                _ATTEMPT,
                json.dumps([key_id, public_key]),
                expires_days=None,
                max_age=_ATTEMPT_S,
                path=self.hub.base_url,
                samesite="Strict",
            )
        _answer(self, options)


class KeyOfferHandler(FactorHandler):
    """`/hub/second-factor/key-offer`: what the browser makes a new security key with."""

    async def post(self) -> None:
        """JSON for the browser, for whoever has a ticket."""
        ticket = self.ticket()
        if ticket is None:
            raise web.HTTPError(403)
        try:
            options = await self.authenticator.signer().offer_key(ticket)
        except HpchubError as error:
            _log_and_raise(self, error)
        _answer(self, options)


class ChangeHandler(FactorHandler):
    """`/hub/second-factor/change`: the way to the page for those who have a second factor, or want one.

    Asks for the whole proof again, whoever is logged in: a stolen session changes nobody's second factor.
    """

    async def prepare(self) -> None:
        """Which kinds there are."""
        await super().prepare()
        await self.authenticator.learn_factor_kinds()
        if not self.authenticator.factor_kinds:
            raise web.HTTPError(404, "Second factors are not asked for here.")

    async def get(self) -> None:
        """A form like the login page's."""
        await self._show_form()

    async def post(self) -> None:
        """On to the page, with a ticket."""
        answer = self.get_argument("security_key", "") or self.get_argument("otp", "")
        try:
            ticket = await self.authenticator.signer().ticket(
                self.get_argument("username", ""),
                Secret(self.get_argument("password", "", strip=False)),
                Secret(answer),
                self.authenticator.source_of(self),
            )
        except UserError:
            await self._show_form(refused=True)
            return
        except HpchubError as error:
            await self.show_failure(error)
            return
        lead_to_enrolment(self, ticket.reveal())

    async def _show_form(self, *, refused: bool = False) -> None:
        if refused:
            self.set_status(403)
        user = self.current_user
        page = await self.render_template(
            "hpchub_change_factors.html",
            username=self.get_argument("username", user.name if user else ""),
            refused=refused,
            kinds=self.authenticator.factor_kinds,
            xsrf=self.xsrf_token.decode("ascii"),
        )
        self.finish(page)


class FactorActionHandler(FactorHandler):
    """The buttons of the page."""

    async def post(self, action: str) -> None:
        """Do it, and show the page again, or the recovery codes."""
        ticket = self.ticket()
        if ticket is None:
            self.back_to_login()
            return
        try:
            codes = await self._act(action, ticket)
        except InvalidRequest as error:
            await self.show_page(refusal=str(error))
        except NotAllowed:
            self.back_to_login()
        except HpchubError as error:
            await self.show_failure(error)
        else:
            if codes:
                await self.show_codes(codes, "key" if action == "keys" else "")
            elif action == "done":
                self.back_to_login()
            else:
                self.redirect(url_path_join(self.hub.base_url, "second-factor"))

    async def _act(self, action: str, ticket: Secret) -> tuple[Secret, ...]:
        """What is to be shown once."""
        signer, source = self.authenticator.signer(), self.authenticator.source_of(self)
        if action == "keys":
            made = Secret(self.get_argument("security_key", ""))
            codes: tuple[Secret, ...] = await signer.add_key(
                ticket, self.get_argument("name", ""), made, source
            )
            return codes
        if action == "recovery-codes":
            renewed: tuple[Secret, ...] = await signer.renew_recovery_codes(ticket, source)
            return renewed
        if action == "removals":
            await signer.remove_factor(ticket, self.get_argument("what", ""), source)
        return ()


def attempt_key(handler: BaseHandler) -> tuple[str, str]:
    """The id and the public key that a login's challenge was bound to. NotAllowed where there is none."""
    held = handler.get_secure_cookie(_ATTEMPT, max_age_days=1)
    handler.clear_cookie(_ATTEMPT, path=handler.hub.base_url)
    if not held:
        raise NotAllowed("The login took too long.", "Try again.")
    key_id, public_key = json.loads(held)
    return str(key_id), str(public_key)


def factor_change_handlers() -> list[tuple[str, type[BaseHandler]]]:
    """For an authenticator's `get_handlers`."""
    return [
        ("/second-factor/challenge", ChallengeHandler),
        ("/second-factor/key-offer", KeyOfferHandler),
        ("/second-factor/change", ChangeHandler),
        ("/second-factor/(keys|recovery-codes|removals|done)", FactorActionHandler),
    ]


def _answer(handler: BaseHandler, options: str) -> None:
    handler.set_header("Content-Type", "application/json")
    handler.set_header("Cache-Control", "no-store")
    handler.finish(options)


def _log_and_raise(handler: BaseHandler, error: HpchubError) -> NoReturn:
    handler.log.warning("second_factor.not_asked error=%s message=%s", type(error).__name__, error.message)
    raise web.HTTPError(error.status) from error
