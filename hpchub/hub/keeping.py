"""For sites that keep an authenticator of their own: it decides who may use the hub, the signer who it is.

Put one of these classes in front of the site's, in a class of two bases:

    class SiteAuthenticator(KeepsOAuthenticator, GenericOAuthenticator): ...

The signer verifies for itself and names the account. Where the site's own authenticator names somebody
else, or nobody, there is no login.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyterhub.handlers import BaseHandler
from jupyterhub.utils import maybe_future

from hpchub.bridge.client import BridgeClient
from hpchub.core.login_nonce import login_nonce
from hpchub.core.secret import Secret
from hpchub.errors import HpchubError
from hpchub.hub.authenticators import HpchubAuthenticator
from hpchub.hub.oidc import accept_id_token, unavailable
from hpchub.hub.oidc_cookie import keep_begun, take_begun
from hpchub.hub.oidc_flow import begin

_LOGIN_PATH = "oauth_login"
_CALLBACK_PATH = "oauth_callback"


class KeepsPasswordAuthenticator(HpchubAuthenticator):
    """In front of one that is given a username and a password, such as LDAPAuthenticator.

    The signer is asked first, so that it counts every guess.
    """

    maps_usernames = True

    async def authenticate(self, handler: BaseHandler, data: Mapping[str, str]) -> Any:
        """What the site's authenticator says, where both name the same account."""
        account = await super().authenticate(handler, data)
        if account is None:
            return None
        kept = await super(HpchubAuthenticator, self).authenticate(handler, data)
        return _same(self, account, kept)


class KeepsOAuthenticator(HpchubAuthenticator):
    """In front of an OAuthenticator whose provider sends an id_token; scope `openid`, and PKCE as it has it.

    OAuthenticator sends no nonce, and without one the signer accepts no id_token: anybody's would do for any
    key. So the way to the provider gets one here, for a key that the bridge has made.
    """

    maps_usernames = True

    async def authenticate(
        self, handler: BaseHandler, data: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """What OAuthenticator says, where the signer accepts the provider's id_token for the same account.

        Raises:
            web.HTTPError: 403 where the login did not begin in this browser; 503 where somebody is away.
        """
        begun = take_begun(handler, _CALLBACK_PATH)
        kept = await super(HpchubAuthenticator, self).authenticate(handler, data, **kwargs)
        id_token = _id_token(kept)
        if id_token is None:
            self.log.error("login.no_id_token is the scope openid asked for?")
            return None
        account = await accept_id_token(self, handler, begun, id_token)
        return _same(self, account, kept) if account is not None else None

    def get_handlers(self, app: Any) -> list[tuple[str, type[BaseHandler]]]:
        """OAuthenticator's own, with a nonce added on the way to the provider."""
        handlers = super().get_handlers(app)
        login = next(handler for path, handler, *_ in handlers if path == f"/{_LOGIN_PATH}")
        nonced = type("NoncedLoginHandler", (_AddsNonce, login), {})
        return [(f"/{_LOGIN_PATH}", nonced), *handlers]


class _AddsNonce(BaseHandler):
    """In front of OAuthenticator's login handler."""

    _nonce = ""

    async def get(self) -> None:
        """As OAuthenticator's, for a new key of the bridge's."""
        authenticator: KeepsOAuthenticator = self.authenticator
        try:
            bridge = BridgeClient(Path(authenticator.bridge_socket))
            key_id, public_key = await bridge.new_key(authenticator.source_of(self))
        except HpchubError as error:
            raise unavailable(self, error) from error
        begun = begin(key_id, public_key, "")
        self._nonce = login_nonce(begun.public_key, begun.salt)
        keep_begun(self, begun, _CALLBACK_PATH)
        await maybe_future(super().get())

    def authorize_redirect(self, *, extra_params: dict[str, Any], **kwargs: Any) -> Any:
        """OAuthenticator has tornado's OAuth2Mixin build the address there."""
        return super().authorize_redirect(extra_params=extra_params | {"nonce": self._nonce}, **kwargs)


def _id_token(kept: Any) -> Secret | None:
    """As OAuthenticator 17 leaves it in what it returns."""
    auth_state = kept.get("auth_state") if isinstance(kept, dict) else None
    token = auth_state.get("id_token") if isinstance(auth_state, dict) else None
    return Secret(token) if isinstance(token, str) else None


def _same(authenticator: HpchubAuthenticator, account: str, kept: Any) -> Any:
    """What the kept authenticator said, if `username_map` makes that the signer's account; else None."""
    name = kept.get("name") if isinstance(kept, dict) else kept
    mapped = authenticator.username_map
    # JupyterHub looks names up without capitals, so that is how sites have written them.
    if name is None or mapped.get(name, mapped.get(name.lower(), name)) != account:
        authenticator.log.error("login.two_accounts signer=%s kept=%r", account, name)
        return None
    return kept | {"name": account} if isinstance(kept, dict) else account
