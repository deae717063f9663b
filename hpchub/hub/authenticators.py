"""Logs people in with the site's own credentials, checked by the signer and never by the hub."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyterhub.auth import Authenticator
from jupyterhub.handlers import BaseHandler
from jupyterhub.handlers.login import LogoutHandler
from jupyterhub.user import User
from tornado import web
from traitlets import Bool, List, TraitError, Unicode, default, validate

from hpchub.bridge.client import BridgeClient
from hpchub.core.secret import Secret
from hpchub.core.slugs import is_safe_account_name
from hpchub.errors import EnrolmentRequired, HpchubError, NotAllowed, UserError
from hpchub.hub.addresses import client_address, peer_address
from hpchub.hub.browser_rules import set_browser_rules
from hpchub.hub.deletion import end_everything
from hpchub.hub.factor_changes import attempt_key, factor_change_handlers
from hpchub.hub.krl import KrlHandler
from hpchub.hub.pages import script_handlers
from hpchub.hub.second_factor import lead_to_enrolment, second_factor_handlers
from hpchub.hub.servers import SERVERS_HANDLERS
from hpchub.hub.spnego import accept_ticket, spnego_handlers
from hpchub.hub.terminal_keys import terminal_key_handlers
from hpchub.hub.terminals import terminal_handlers
from hpchub.hub.unhurried import answer_unhurried
from hpchub.local_api.tls import load_peer
from hpchub.signer.client import SignerClient


class HpchubAuthenticator(Authenticator):
    """A password goes to the signer; what comes back lets the bridge act for the person.

    The hub keeps neither: no password, no certificate, no `auth_state`. Who may use the hub is
    JupyterHub's own setting (`allowed_users`, `allow_all`, ...); nobody may until it says so.
    """

    bridge_socket = Unicode(help="The unix socket of `hpchub bridge`.").tag(config=True)
    signer_socket = Unicode(help="The unix socket of `hpchub signer`.").tag(config=True)
    signer_tls = Unicode(
        help="For a signer on another host: the file with its address, and the certificates for it."
    ).tag(config=True)

    spnego = Bool(
        help="""Whether the login page has a button for those whose browser has a Kerberos ticket.

        The signer's settings must have `[proof.spnego]`.
        """
    ).tag(config=True)

    trusted_proxies = List(
        Unicode(),
        help="""Addresses and networks of the proxies in front of the hub's own, such as "127.0.0.1".

        Their word on where a request came from (X-Forwarded-For) is believed, and nobody else's. Name the
        web server that speaks TLS, if there is one: without it, everybody seems to come from there, and
        the failed logins of all are counted together.
        """,
    ).tag(config=True)

    # Whether there are other names than the signer's for `username_map` to be about.
    maps_usernames = False

    # What the signer said last.
    factor_kinds: tuple[str, ...] = ()

    @validate("trusted_proxies")
    def _valid_trusted_proxies(self, proposal: Any) -> list[str]:
        for text in proposal["value"]:
            try:
                network = ipaddress.ip_network(text)
            except ValueError as error:
                raise TraitError(f"trusted_proxies: {error}") from error
            if not network.prefixlen:
                raise TraitError(f"trusted_proxies: {text} is every address there is")
        return list(proposal["value"])

    @validate("username_map")
    def _valid_username_map(self, proposal: Any) -> dict[str, str]:
        """Whoever was logged in under another name than the account's would have no session, or another's."""
        if proposal["value"] and not self.maps_usernames:
            raise TraitError(
                "username_map: a user is called as the account that the signer names. Rename the users "
                "that JupyterHub knows by other names, on its admin page."
            )
        return dict(proposal["value"])

    @default("otp_prompt")
    def _default_otp_prompt(self) -> str:
        return "Code:"

    @default("auth_refresh_age")
    def _default_auth_refresh_age(self) -> int:
        # One question over a unix socket: an ended session is noticed within a minute.
        return 60

    async def authenticate(self, handler: BaseHandler, data: Mapping[str, Any]) -> str | None:
        """The account's name, or None where the signer refuses.

        Raises:
            web.HTTPError: 503, because the signer or the bridge could not be asked.
        """
        ticket = data.get("ticket")
        if isinstance(ticket, Secret):  # from our own page: what a form sends is text
            return await accept_ticket(self, handler, ticket)
        username = data.get("username", "")
        bridge = BridgeClient(Path(self.bridge_socket))
        try:
            signer = self.signer()
            answer = data.get("security_key", "")
            source = self.source_of(handler)
            key_id, public_key = attempt_key(handler) if answer else await bridge.new_key(source)
            granted = await signer.grant(
                username,
                Secret(data.get("password", "")),
                public_key,
                source,
                Secret(answer or data.get("otp", "")),
            )
            await bridge.open_session(granted.username, key_id, granted.grant)
            handler.hpchub_session = granted.username
        except EnrolmentRequired as error:
            lead_to_enrolment(handler, error.ticket)
            raise web.Finish from error
        except UserError:
            return None
        except HpchubError as error:
            self.log.error("login.unavailable error=%s message=%s", type(error).__name__, error.message)
            raise web.HTTPError(
                503,
                "Nobody can be logged in just now: a part of the hub does not answer. Your password "
                "was not refused. Try again in a minute, or tell the site's staff.",
            ) from error
        return str(granted.username)

    def signer(self) -> SignerClient:
        """Who checks passwords and codes. ConfigError where the file of `signer_tls` will not do."""
        where = load_peer(Path(self.signer_tls)) if self.signer_tls else Path(self.signer_socket)
        return SignerClient(where)

    async def learn_factor_kinds(self) -> None:
        """Show on the login page what the signer may want; as before, if it is away."""
        try:
            self.factor_kinds = await self.signer().factor_kinds()
            self.request_otp = bool(self.factor_kinds)
        except HpchubError as error:
            self.log.warning("login.codes_unknown error=%s", error.message)

    def source_of(self, handler: BaseHandler) -> str:
        """The browser's address, by which failed logins are counted."""
        request = handler.request
        trusted = [ipaddress.ip_network(text) for text in self.trusted_proxies]
        return client_address(peer_address(request), request.headers.get("X-Forwarded-For", ""), trusted)

    async def get_authenticated_user(self, handler: BaseHandler, data: Mapping[str, str]) -> Any:
        """What `authenticate` found, if JupyterHub's own settings let that person in.

        Where they do not, the session that the right password had opened is closed again.
        """
        authenticated = None
        try:
            authenticated = await super().get_authenticated_user(handler, data)
        finally:
            opened = getattr(handler, "hpchub_session", "")
            if authenticated is None and opened:
                await self.end_session(opened)
        return authenticated

    def normalize_username(self, username: str) -> str:
        """The name as it is: account names know capitals, and whoever logs in acts as that account."""
        return username

    def validate_username(self, username: str) -> bool:
        """Whether JupyterHub may know a user of that name. The signer checks the same."""
        return is_safe_account_name(username) and bool(super().validate_username(username))

    async def refresh_user(self, user: User, handler: BaseHandler | None = None) -> bool:
        """False once the session on the cluster has ended, so that the person logs in again.

        True where the bridge cannot be asked: that is no reason to throw anybody out.
        """
        try:
            await BridgeClient(Path(self.bridge_socket)).session(user.name)
        except NotAllowed:
            return False
        except HpchubError as error:
            self.log.warning("login.refresh_unavailable user=%s error=%s", user.name, error.message)
        return True

    async def end_session(self, username: str) -> None:
        """Takes the bridge's leave to act for the person, and closes what is open. Servers run on."""
        try:
            await BridgeClient(Path(self.bridge_socket)).close_session(username)
        except HpchubError as error:
            self.log.error("logout.unavailable user=%s error=%s", username, error.message)

    async def delete_user(self, user: User) -> None:
        """JupyterHub calls this before it deletes a person: nothing of theirs may run on unknown.

        Raises:
            web.HTTPError: 503, because some server could not be ended. The person is not deleted then.
        """
        await end_everything(user, BridgeClient(Path(self.bridge_socket)), self.parent.proxy)
        super().delete_user(user)

    def get_handlers(self, app: Any) -> list[tuple[Any, ...]]:
        """Login and second factor, a logout that ends the session on the bridge too, what our pages ask.

        JupyterHub calls this while it begins, so it is also where what browsers are told is set up.
        """
        set_browser_rules(app)
        answer_unhurried()
        return [
            *second_factor_handlers(),
            *factor_change_handlers(),
            *spnego_handlers(self),
            *script_handlers(),
            ("/logout", HpchubLogoutHandler),
            ("/hpchub/krl", KrlHandler),
            *SERVERS_HANDLERS,
            *terminal_handlers(),
            *terminal_key_handlers(),
            *super().get_handlers(app),
        ]


class HpchubLogoutHandler(LogoutHandler):
    """JupyterHub's logout, and the bridge's."""

    async def handle_logout(self) -> None:
        """JupyterHub calls this with the person still known, after its own cookies are gone."""
        user = self.current_user
        if user is not None and isinstance(self.authenticator, HpchubAuthenticator):
            await self.authenticator.end_session(user.name)
