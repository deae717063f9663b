"""What a person's own machine may do after `hpchub login`, by its key: log out, and manage API tokens.

The machine keeps no token. It signs a challenge of ours with the key in its ssh-agent, and the signer says
whose key that is. To manage tokens it then gets one that lives for minutes, for JupyterHub's own API.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from jupyterhub.handlers import BaseHandler
from jupyterhub.orm import APIToken

from hpchub.core.terminal import MANAGE_TOKENS
from hpchub.errors import HpchubError, NotAllowed
from hpchub.hub.terminals import ForProgramsHandler

_PATH = "hpchub/key"
_CHALLENGES = "hpchub_challenges"
_CHALLENGE_S = 60.0
_MOST = 2000
_TOKEN_S = 300
_SCOPES = ("tokens!user", "read:users:name!user")


class Challenges:
    """Texts to be signed, each once and soon. A flood keeps only the newest."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._open: dict[str, float] = {}

    def new(self) -> str:
        """One that nobody could have known before."""
        now = self._now()
        self._open = {text: until for text, until in self._open.items() if until > now}
        while len(self._open) >= _MOST:
            self._open.pop(next(iter(self._open)))
        text = secrets.token_urlsafe(32)
        self._open[text] = now + _CHALLENGE_S
        return text

    def use_up(self, text: str) -> None:
        """Return where it was ours, and is not used from now on. NotAllowed otherwise."""
        if self._open.pop(text, 0.0) <= self._now():
            raise NotAllowed("The challenge is not one of this hub's, or was used already.", "Try again.")


class ChallengeHandler(ForProgramsHandler):
    """A text to sign."""

    async def post(self) -> None:
        """Asks for nothing, and says nothing of anybody."""
        self.finish(json.dumps({"challenge": _challenges(self).new()}))


class KeyTokenHandler(ForProgramsHandler):
    """A token of JupyterHub's, for minutes, which may do nothing but manage its owner's tokens."""

    async def post(self) -> None:
        """`public_key`, `hub`, `challenge`, `signature`."""
        try:
            _challenges(self).use_up(self.get_body_argument("challenge"))
            username, _ = await self.authenticator.signer().terminal_holder(
                public_key=self.get_body_argument("public_key"),
                purpose=MANAGE_TOKENS,
                hub=own_host(self),
                challenge=self.get_body_argument("challenge"),
                signature=self.get_body_argument("signature"),
            )
            user = self.find_user(username)
            if user is None:
                raise NotAllowed(f"The hub knows no user {username}.", "Log in at the hub first.")
        except HpchubError as error:
            await self.refuse(error)
            return
        token = user.new_api_token(note="hpchub token, at work", expires_in=_TOKEN_S, scopes=list(_SCOPES))
        self.log.info("terminal.token user=%s", username)
        token_id = APIToken.find(self.db, token).api_id
        self.finish(json.dumps({"id": token_id, "token": token, "expires_in": _TOKEN_S}))


class KeyLogoutHandler(ForProgramsHandler):
    """Takes the certificate of a key back."""

    async def post(self) -> None:
        """`public_key`, `hub`, `challenge`, `signature`."""
        try:
            _challenges(self).use_up(self.get_body_argument("challenge"))
            await self.authenticator.signer().log_out_terminal(
                public_key=self.get_body_argument("public_key"),
                hub=own_host(self),
                challenge=self.get_body_argument("challenge"),
                signature=self.get_body_argument("signature"),
            )
        except HpchubError as error:
            await self.refuse(error)
            return
        self.finish(json.dumps({}))


def terminal_key_handlers() -> list[tuple[str, type[BaseHandler]]]:
    """For programs alone."""
    return [
        (f"/{_PATH}/challenge", ChallengeHandler),
        (f"/{_PATH}/token", KeyTokenHandler),
        (f"/{_PATH}/logout", KeyLogoutHandler),
    ]


def own_host(handler: BaseHandler) -> str:
    """Our host name, which must be the one that was signed.

    Raises:
        NotAllowed: The terminal knows us by another name.
    """
    public = handler.settings.get("public_url") or urlsplit(f"//{handler.request.host}")
    own, meant = public.hostname or "", handler.get_body_argument("hub")
    if own != meant:
        raise NotAllowed(f"This hub is {own}, not {meant}.", "Log in at its own address.")
    return own


def _challenges(handler: BaseHandler) -> Challenges:
    found: Challenges = handler.settings.setdefault(_CHALLENGES, Challenges())
    return found
