"""A person's servers on the hub's own pages: where they wait or run, why, and for how long."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from urllib.parse import urlencode

from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.handlers import BaseHandler
from jupyterhub.user import User
from jupyterhub.utils import url_path_join
from markupsafe import Markup
from tornado import web

from hpchub.bridge.client import BridgeClient
from hpchub.core.choices import OPTION_NAMES
from hpchub.core.slugs import successor_name
from hpchub.errors import HpchubError
from hpchub.hub.known import clusters_in
from hpchub.hub.pages import render
from hpchub.hub.servers_view import rows_of

# A page is shown without this part rather than late.
_PATIENCE_S = 2.0


async def servers_html(bridge: BridgeClient, clusters: Path, user: User, only: str | None = None) -> Markup:
    """The piece of a page that tells of a user's servers, or of the one named `only`."""
    rows, problem = [], ""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            views = await bridge.servers(user.name)
        options = {spawner.name: spawner.user_options or {} for spawner in user.all_spawners()}
        shown = [view for view in views if only is None or view.server_name == only]
        rows = rows_of(shown, clusters_in(clusters), options, time.time())
    except (HpchubError, TimeoutError):
        problem = "What your servers are doing cannot be asked just now. They are not affected."
    base_url = user.settings["hub"].base_url
    html = render("hpchub_servers.html", rows=rows, problem=problem, base_url=base_url)
    return Markup(html)  # noqa: S704  our own template, every value in it escaped


class ServersHandler(APIHandler):
    """`/hub/hpchub/servers`: the caller's own servers, as the piece of HTML that the pages show.

    The hub's cookie alone counts, and JupyterHub asks for its XSRF token too: a page of somebody's
    notebook server, which has the same origin, cannot read this.
    """

    _accept_token_auth = False

    @property
    def content_security_policy(self) -> str:
        """Nothing in it is to be loaded or run."""
        return "default-src 'none'"

    def get_content_type(self) -> str:
        """Not JSON, as JupyterHub's own API."""
        return "text/html"

    async def get(self) -> None:
        """With `user`, refused unless that is the caller; with `server`, only that one."""
        user = self.current_user
        if user is None:
            raise web.HTTPError(403)
        if self.get_argument("user", user.name) != user.name:
            raise web.HTTPError(404)
        self.set_header("Cache-Control", "no-store")
        self.finish(await user.spawner.servers_html(self.get_argument("server", None)))


class SuccessorHandler(BaseHandler):
    """`/hub/hpchub/successor/NAME`: to the form of a new server, filled in with NAME's options."""

    @web.authenticated
    async def get(self, name: str = "") -> None:
        """Nothing starts before the person presses the form's button."""
        user = self.current_user
        spawner = user.orm_user.orm_spawners.get(name)
        if spawner is None:
            raise web.HTTPError(404, f"You have no server {name!r}.")
        options = spawner.user_options or {}
        path = url_path_join(self.hub.base_url, "spawn", user.escaped_name, _free_name(user, name))
        query = urlencode({key: options[key] for key in OPTION_NAMES if options.get(key) not in (None, "")})
        self.redirect(f"{path}?{query}" if query else path)


def _free_name(user: User, name: str) -> str:
    return successor_name(name, {other.name for other in user.spawners.values() if other.active})


SERVERS_HANDLERS: list[tuple[str, type[BaseHandler]]] = [
    (r"/hpchub/servers", ServersHandler),
    (r"/hpchub/successor/?", SuccessorHandler),
    (r"/hpchub/successor/([a-z0-9-]{1,30})", SuccessorHandler),
]
