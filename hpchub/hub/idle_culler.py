"""Runs jupyterhub-idle-culler as JupyterHub's own service, with hpchub's policy. `configure` sets it up.

    python -m hpchub.hub.idle_culler --clusters FOLDER --bridge-socket SOCKET [--every-s 300]

JUPYTERHUB_API_URL and JUPYTERHUB_API_TOKEN come from JupyterHub.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import aiohttp
from jupyterhub_idle_culler import IdleCuller
from tornado.netutil import Resolver

from hpchub.bridge.client import BridgeClient
from hpchub.core.secret import Secret
from hpchub.errors import UnexpectedOutput
from hpchub.hub.idle import Arbiter
from hpchub.prctl import end_with_parent

_TOKEN_LIFETIME_S = 60
_TIMEOUT_S = 60


class HubApi:
    """JupyterHub's API as this service, over a unix socket or not."""

    def __init__(self, url: str, token: Secret) -> None:
        self._socket, self._url = split_url(url)
        self._token = token

    async def server_token(self, user: str, name: str) -> Secret:
        """A token for one minute that opens this one server to its own user."""
        body = {
            "note": "hpchub asks whether a server is idle",
            "expires_in": _TOKEN_LIFETIME_S,
            "scopes": [f"access:servers!server={user}/{name}"],
        }
        answer = await self._post(f"users/{quote(user, safe='')}/tokens", body)
        return Secret(answer["token"])

    async def report(self, user: str, name: str, at: datetime) -> None:
        """Tell the hub when a server was active last."""
        text = at.isoformat()
        body = {"last_activity": text, "servers": {name: {"last_activity": text}}}
        await self._post(f"users/{quote(user, safe='')}/activity", body)

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        connector = aiohttp.UnixConnector(self._socket) if self._socket else None
        async with (
            aiohttp.ClientSession(
                connector=connector, timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)
            ) as client,
            client.post(
                f"{self._url}/{path}", json=body, headers={"Authorization": f"token {self._token.reveal()}"}
            ) as answer,
        ):
            if answer.status >= 400:
                raise UnexpectedOutput(f"JupyterHub's {path}", f"HTTP status {answer.status}")
            raw = await answer.read()
            return dict(await answer.json()) if raw else {}


def split_url(url: str) -> tuple[str, str]:
    """The socket's path, empty where there is none, and a URL that a client may ask for over it."""
    parts = urlsplit(url)
    if parts.scheme != "http+unix":
        return "", url
    return unquote(parts.netloc), f"http://localhost{parts.path}"


class OneSocket(Resolver):
    """Leads every request of tornado's client, which the culler uses, to one unix socket."""

    def initialize(self, path: str) -> None:
        """Called by tornado with what `Resolver.configure` was given."""
        self._path = path

    async def resolve(
        self, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[tuple[int, Any]]:
        """The socket, whatever the host."""
        return [(socket.AF_UNIX, self._path)]


def main(argv: Sequence[str] | None = None) -> None:
    """Look for idle servers every now and then, until the process is ended."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--clusters", type=Path, required=True)
    parser.add_argument("--bridge-socket", type=Path, required=True)
    parser.add_argument("--every-s", type=int, default=300)
    options = parser.parse_args(argv)
    end_with_parent()  # a hub that is killed starts another one
    api_url = os.environ["JUPYTERHUB_API_URL"]
    path, url = split_url(api_url)
    if path:
        Resolver.configure(OneSocket, path=path)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    hub = HubApi(api_url, Secret(os.environ["JUPYTERHUB_API_TOKEN"]))
    arbiter = Arbiter(options.clusters, BridgeClient(options.bridge_socket), hub)
    # No configuration file of somebody else's: it would be looked for in the hub's working folder.
    culler = IdleCuller(config_file="", url=url, cull_every=options.every_s, cull_arbiter_hook=arbiter.judge)
    culler.initialize([])
    culler.start()


if __name__ == "__main__":
    main()
