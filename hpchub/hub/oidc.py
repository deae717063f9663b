"""Logs people in at the site's own OpenID provider. The hub leads the way there; the signer verifies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyterhub.handlers import BaseHandler
from jupyterhub.utils import url_path_join
from tornado import web
from traitlets import Unicode

from hpchub.bridge.client import BridgeClient
from hpchub.core.secret import Secret
from hpchub.errors import HpchubError, UserError
from hpchub.hub.authenticators import HpchubAuthenticator
from hpchub.hub.oidc_cookie import keep_begun, take_begun
from hpchub.hub.oidc_flow import Begun, Client, authorization_url, begin, code_of, fetch_id_token
from hpchub.logs import printable

_LOGIN_PATH = "oidc_login"
_CALLBACK_PATH = "oidc_callback"
_MAX_NEXT = 1024
_RETURNED = ("state", "code", "iss", "error")
_UNAVAILABLE = (
    "Nobody can be logged in just now: the site's login or a part of the hub does not answer. "
    "Try again in a minute, or tell the site's staff."
)


class HpchubOidcAuthenticator(HpchubAuthenticator):
    """Sends people to the OpenID provider that the signer's settings name, and their answer to the signer.

    Which provider, which client, which scopes and whose account somebody is: all that stands in
    `signer.toml`. Here stands only what the hub needs to come back and to be known.
    """

    callback_url = Unicode(
        help="""This hub's address as browsers have it, and `/hub/oidc_callback` behind it.

        Register the same at the provider as the client's redirect URI.
        """
    ).tag(config=True)

    client_secret_file = Unicode(
        help="""A file of mode 0600 with the client's secret; leave it empty for a public client.

        The hub exchanges codes, so the file belongs to the hub's account, and not to the signer's.
        """
    ).tag(config=True)

    ca_file = Unicode(
        help="Certificates of those who may vouch for the provider; empty for the machine's own."
    ).tag(config=True)

    login_service = Unicode("the site's login", help="What the login page's button leads to.").tag(
        config=True
    )

    def client(self) -> Client:
        """Who the hub is to the provider."""
        return Client(
            callback_url=self.callback_url,
            secret_file=Path(self.client_secret_file) if self.client_secret_file else None,
            ca_file=Path(self.ca_file) if self.ca_file else None,
        )

    def login_url(self, base_url: str) -> str:
        """The button on the login page leads there."""
        return str(url_path_join(base_url, _LOGIN_PATH))

    async def authenticate(self, handler: BaseHandler, data: Mapping[str, Any]) -> str | None:
        """The account's name, or None where the signer refuses.

        Raises:
            web.HTTPError: 503, because the signer, the bridge or the provider could not be asked.
        """
        begun, id_token = data.get("begun"), data.get("id_token")
        if not isinstance(begun, Begun) or not isinstance(id_token, Secret):
            return None  # a form that somebody sent to the login page by hand
        return await accept_id_token(self, handler, begun, id_token)

    def get_handlers(self, app: Any) -> list[tuple[str, type[BaseHandler]]]:
        """The way to the provider and the way back.

        Raises:
            ValueError: `callback_url` does not lead to the hub's own handler.
        """
        if not self.callback_url.endswith(f"/{_CALLBACK_PATH}"):
            raise ValueError(f"HpchubOidcAuthenticator.callback_url must end with /hub/{_CALLBACK_PATH}")
        return [
            (f"/{_LOGIN_PATH}", OidcLoginHandler),
            (f"/{_CALLBACK_PATH}", OidcCallbackHandler),
            *super().get_handlers(app),
        ]


async def accept_id_token(
    authenticator: HpchubAuthenticator, handler: BaseHandler, begun: Begun, id_token: Secret
) -> str | None:
    """Open a session on the bridge with what the signer makes of an id_token; the account, or None.

    Raises:
        web.HTTPError: 503, because the signer, the bridge or the provider could not be asked.
    """
    try:
        granted = await authenticator.signer().grant_by_id_token(
            id_token, begun.salt, begun.public_key, authenticator.source_of(handler)
        )
        await BridgeClient(Path(authenticator.bridge_socket)).open_session(
            granted.username, begun.key_id, granted.grant
        )
    except UserError as error:
        handler.hpchub_refusal = str(error)
        return None
    except HpchubError as error:
        raise unavailable(authenticator, error) from error
    handler.hpchub_session = granted.username
    return granted.username


class OidcLoginHandler(BaseHandler):
    """Has the bridge make a key, and sends the browser to the provider."""

    async def get(self) -> None:
        """A redirect; 503 where a part of the hub, or the provider, does not answer."""
        authenticator: HpchubOidcAuthenticator = self.authenticator
        try:
            request = await authenticator.signer().oidc_request()
            bridge = BridgeClient(Path(authenticator.bridge_socket))
            key_id, public_key = await bridge.new_key(authenticator.source_of(self))
        except HpchubError as error:
            raise unavailable(self, error) from error
        next_url = self._validate_next_url(self.get_argument("next", ""))
        begun = begin(key_id, public_key, next_url if len(next_url) <= _MAX_NEXT else "")
        keep_begun(self, begun, _CALLBACK_PATH)
        self.set_header("Cache-Control", "no-store")
        self.redirect(authorization_url(request, begun, authenticator.callback_url))


class OidcCallbackHandler(BaseHandler):
    """Takes the browser back, exchanges its code, and logs the person in."""

    _next_url = ""

    def set_default_headers(self) -> None:
        """The address of this page has a code in it: it is told to nobody."""
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "no-referrer")

    async def get(self) -> None:
        """To where the person wanted to go; 403 where they are not let in."""
        authenticator: HpchubOidcAuthenticator = self.authenticator
        begun = take_begun(self, _CALLBACK_PATH)
        try:
            request = await authenticator.signer().oidc_request()
            returned = {name: self.get_query_argument(name, "") for name in _RETURNED}
            if returned["error"]:
                self.log.warning("login.provider_refused error=%s", printable(returned["error"][:100]))
            returned = {name: value for name, value in returned.items() if value}
            code = code_of(request, begun, returned)
            id_token = await fetch_id_token(request, begun, authenticator.client(), code)
        except UserError as error:
            raise web.HTTPError(403, str(error)) from error
        except HpchubError as error:
            raise unavailable(self, error) from error
        user = await self.login_user({"begun": begun, "id_token": id_token})
        if user is None:
            raise web.HTTPError(403, getattr(self, "hpchub_refusal", "You may not use this hub."))
        self._next_url = begun.next_url
        self.redirect(self.get_next_url(user))

    def get_next_url(self, user: Any = None, default: str | None = None) -> str:
        """What the browser asked for before it was sent away; JupyterHub's usual page where it did not."""
        return str(self._validate_next_url(self._next_url) or super().get_next_url(user, default))

    def append_query_parameters(self, url: str, exclude: Any = None) -> str:
        """Nothing: JupyterHub would hand the code on."""
        return url


def unavailable(logged: Any, error: HpchubError) -> web.HTTPError:
    """The page for somebody who cannot be logged in, whoever they are; the log says why."""
    logged.log.error("login.unavailable error=%s message=%s", type(error).__name__, error.message)
    return web.HTTPError(503, _UNAVAILABLE)
