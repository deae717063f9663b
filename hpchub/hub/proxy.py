"""JupyterHub's own proxy, looked after: one that restarts has its routes back within seconds.

JupyterHub 6.1.1 compares its routes with the proxy's once in five minutes; until then a proxy that was
restarted knows nobody. It also stops a server whose route cannot be added within 30 seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from aiohttp import ClientError, ClientResponseError, ClientTimeout
from jupyterhub.httpclient import fetch
from jupyterhub.proxy import ConfigurableHTTPProxy
from jupyterhub.utils import url_path_join
from tornado.ioloop import PeriodicCallback
from traitlets import Float, Integer

from hpchub.hub.spawner import HpchubSpawner

_ANSWER_LIMIT_S = 5


class HpchubProxy(ConfigurableHTTPProxy):
    """configurable-http-proxy, whether the hub starts it or something else does."""

    check_running_interval = Integer(
        1, config=True, help="Seconds between looks at whether a proxy that the hub started still runs."
    )
    look_interval = Float(
        1.0, config=True, help="Seconds between looks at whether the proxy still has its routes."
    )

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._looking: PeriodicCallback | None = None
        self._is_away = False
        # What the proxy had when it was last asked, or was given since.
        self._given: set[str] = set()

    async def start(self) -> None:
        """Start the proxy as a process of the hub's."""
        url = urlsplit(self.api_url)
        if url.scheme == "http+unix":
            # One that was killed leaves its socket behind, and the next would listen nowhere.
            Path(unquote(url.netloc)).unlink(missing_ok=True)  # noqa: ASYNC240  it does not wait
        await super().start()

    async def add_route(self, routespec: str, target: str, data: Mapping[str, object] | None) -> None:
        """Add a route now, or as soon as the proxy is back: its absence is no server's death."""
        try:
            await super().add_route(routespec, target, data)
        except (ClientError, TimeoutError) as error:
            self.log.warning("proxy.owes_route route=%s error=%s", routespec, error)
        else:
            self._given.add(routespec)

    async def add_user(self, user: Any, server_name: str = "") -> None:
        """Add a server, unless it has no socket.

        Until a start has told the socket, and for a moment when it is interrupted, JupyterHub 6.1.1 has a
        random port of its own host for it, where anybody may listen for the person's requests.
        """
        spawner = user.spawners[server_name]
        if isinstance(spawner, HpchubSpawner) and spawner.server.proto != "http+unix":
            self.log.warning("proxy.no_socket route=%s", spawner.proxy_spec)
            return
        await super().add_user(user, server_name)

    async def delete_route(self, routespec: str) -> None:
        """Remove a route."""
        await super().delete_route(routespec)
        self._given.discard(routespec)

    async def get_all_routes(self) -> dict[str, Any]:
        """The proxy's whole table."""
        routes: dict[str, Any] = await super().get_all_routes()
        self._given = set(routes)
        return routes

    async def check_routes(
        self, user_dict: Any, service_dict: Any, routes: Mapping[str, Any] | None = None
    ) -> None:
        """Compare and mend the proxy's routes. The hub's first call, when it starts, begins the looks."""
        await super().check_routes(user_dict, service_dict, routes)
        if self._looking is None:
            self._looking = PeriodicCallback(self.look, 1e3 * self.look_interval)
            self._looking.start()

    async def look(self) -> None:
        """Ask the proxy for one route that it must have; where it, or any other, is missing, mend all."""
        wanted = {
            spawner.proxy_spec
            for user in self.app.users.values()
            for spawner in user.spawners.values()
            if spawner.ready
        }
        given = sorted(wanted & self._given)[:1]
        try:
            is_whole = await self._has(self._routespec_to_chp_path(given[0]) if given else "")
        except (ClientError, TimeoutError) as error:
            if not self._is_away:
                self.log.warning("proxy.away error=%s", error)
            self._is_away = True
            return
        self._is_away = False
        if not is_whole or not wanted <= self._given:
            self.log.warning("proxy.restoring routes=%d", len(wanted))
            await self.check_routes(self.app.users, self.app._service_map)

    async def _has(self, path: str) -> bool:
        """Whether the proxy has a route; for no path, whether it has any at all."""
        try:
            async with asyncio.timeout(_ANSWER_LIMIT_S):
                answer = await fetch(
                    url_path_join(self.api_url, "api/routes", path),
                    headers={"Authorization": f"token {self.auth_token}"},
                    timeout=ClientTimeout(total=_ANSWER_LIMIT_S),
                )
                return bool(await answer.json())
        except ClientResponseError as error:
            if error.status == 404:
                return False
            raise
