"""`/hub/hpchub/krl`: OpenSSH's revocation list, for login nodes that fetch it over HTTPS."""

from __future__ import annotations

from typing import Any

from jupyterhub.handlers import BaseHandler
from tornado import web

from hpchub.errors import HpchubError


class KrlHandler(BaseHandler):
    """Asks for no login: login nodes have none, and the list says only what is worth nothing any more.

    It never answers 200 with anything but a whole list, so `curl --fail` keeps the old one.
    """

    async def get(self) -> None:
        """The list, as the signer has it now; 503 where it cannot be asked."""
        authenticator: Any = self.authenticator
        try:
            content = await authenticator.signer().krl()
        except HpchubError as error:
            self.log.error("krl.unavailable error=%s", error.message)
            raise web.HTTPError(503, "The revocation list cannot be had just now.") from error
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("Cache-Control", "no-store")
        self.finish(content)
