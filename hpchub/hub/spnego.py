"""Logs people in with the Kerberos ticket that their browser has. The hub carries it; the signer verifies.

The browser sends a ticket only where it is told that the page wants one (RFC 4559), so that happens on a page
of its own, behind a button: whoever has no ticket uses the form.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyterhub.handlers import BaseHandler
from tornado import web

from hpchub.bridge.client import BridgeClient
from hpchub.core.secret import Secret
from hpchub.errors import HpchubError, UserError
from hpchub.hub.second_factor import HpchubLoginHandler

if TYPE_CHECKING:
    from hpchub.hub.authenticators import HpchubAuthenticator

SPNEGO_PATH = "kerberos_login"

_SCHEME = "negotiate"
_NO_TICKET = (
    "Your browser sent no Kerberos ticket for this hub. Get one, and have your browser send it here, "
    "or log in with your password."
)
_UNAVAILABLE = (
    "Nobody can be logged in with a Kerberos ticket just now: a part of the hub does not answer. "
    "Your ticket was not refused. Try again in a minute, or tell the site's staff."
)


class SpnegoHandler(HpchubLoginHandler):
    """Where the login page's button leads to; the login page again, with a word, where it leads no further.

    It is a form with JupyterHub's XSRF token, and not a link: no other site can have people logged in, though
    their browsers would send a ticket without a question.
    """

    def set_default_headers(self) -> None:
        """Each answer is for one ticket."""
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")

    async def get(self) -> None:
        """To the login page: nobody logs in by following a link."""
        self.redirect(self.settings["login_url"])

    async def post(self) -> None:
        """To where the person wanted to go; 401 asks the browser for a ticket, 403 refuses what it sent."""
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != _SCHEME or not token.strip():
            self.set_header("WWW-Authenticate", "Negotiate")
            await self._show(401, _NO_TICKET)
            return
        user = await self.login_user({"ticket": Secret(token.strip())})
        if user is None:
            # Without WWW-Authenticate, so that no browser tries again.
            await self._show(403, getattr(self, "hpchub_refusal", "You may not use this hub."))
            return
        self._jupyterhub_user = user  # as JupyterHub's own login page does: its log names the person
        self.redirect(self.get_next_url(user))

    async def _show(self, status: int, why: str) -> None:
        self.set_status(status)
        self.finish(await self._render(login_error=why))


async def accept_ticket(
    authenticator: HpchubAuthenticator, handler: BaseHandler, token: Secret
) -> str | None:
    """Open a session on the bridge with what the signer makes of a ticket; the account, or None.

    Raises:
        web.HTTPError: 503, because the signer or the bridge could not be asked.
    """
    bridge = BridgeClient(Path(authenticator.bridge_socket))
    try:
        source = authenticator.source_of(handler)
        key_id, public_key = await bridge.new_key(source)
        granted = await authenticator.signer().grant_by_ticket(token, public_key, source)
        await bridge.open_session(granted.username, key_id, granted.grant)
    except UserError as error:
        handler.hpchub_refusal = str(error)
        return None
    except HpchubError as error:
        handler.log.error("login.unavailable error=%s message=%s", type(error).__name__, error.message)
        raise web.HTTPError(503, _UNAVAILABLE) from error
    handler.hpchub_session = granted.username
    return granted.username


def spnego_handlers(authenticator: HpchubAuthenticator) -> list[tuple[str, type[Any]]]:
    """The button's page; none where the site does not have it."""
    return [(f"/{SPNEGO_PATH}", SpnegoHandler)] if authenticator.spnego else []
