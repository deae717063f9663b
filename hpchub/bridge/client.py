"""Talks to the bridge over its unix socket. Used by JupyterHub's plugins and by whatever follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from hpchub.core.job import Association
from hpchub.core.secret import Secret
from hpchub.core.server import Phase
from hpchub.errors import HostUnreachable, HpchubError, UnexpectedOutput, from_wire

# Stopping waits for the job to be gone, which may take its scheduler's kill time.
_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerView:
    """A server as the bridge sees it. `socket` is empty until it is ready."""

    id: str
    user: str
    server_name: str
    cluster: str
    placement: str
    phase: Phase
    job_id: str
    node: str
    native_state: str
    socket: str
    error: HpchubError | None
    created_at: float


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the progress page. `at` is in Unix seconds."""

    at: float
    phase: Phase
    message: str
    percent: int


class BridgeClient:
    """One call each. Raises the bridge's own errors; HostUnreachable where nobody answers."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def health(self) -> None:
        """Returns where the bridge is well."""
        await self._call("GET", "health")

    async def new_key(self) -> tuple[str, str]:
        """The id and public key of a key that never leaves the bridge."""
        body = await self._call("POST", "keys")
        return body["key_id"], body["public_key"]

    async def open_session(self, user: str, key_id: str, grant: Secret) -> float:
        """Begin a session; its end in Unix seconds."""
        body = {"key_id": key_id, "grant": grant.reveal()}
        return float((await self._call("PUT", f"sessions/{quote(user)}", body))["expires_at"])

    async def session(self, user: str) -> float:
        """When the user's session ends, in Unix seconds. NotAllowed where there is none."""
        return float((await self._call("GET", f"sessions/{quote(user)}"))["expires_at"])

    async def close_session(self, user: str) -> None:
        """End a session. Running servers stay."""
        await self._call("DELETE", f"sessions/{quote(user)}")

    async def associations(self, user: str, cluster: str) -> list[Association]:
        """What the user may charge on a cluster. AccountProblem where there is nothing."""
        body = await self._call("GET", f"users/{quote(user)}/associations?cluster={quote(cluster)}")
        return [Association(**row) for row in body["associations"]]

    async def start(
        self,
        *,
        user: str,
        server_name: str,
        options: Mapping[str, Any],
        environ: Mapping[str, str],
        base_url: str,
    ) -> ServerView:
        """Start a server. Options are checked first: InvalidRequest names each refused field."""
        body = {
            "user": user,
            "server_name": server_name,
            "options": dict(options),
            "environ": dict(environ),
            "base_url": base_url,
        }
        return _server(await self._call("POST", "servers", body))

    async def server(self, server_id: str) -> ServerView:
        """A server, running or ended. InvalidRequest where there never was one."""
        return _server(await self._call("GET", f"servers/{quote(server_id)}"))

    async def events(self, server_id: str, after: int, wait_s: float) -> tuple[ServerView, list[Event], int]:
        """Events beyond the first `after`, and the number to ask from next time."""
        path = f"servers/{quote(server_id)}/events?after={after}&wait_s={wait_s}"
        body = await self._call("GET", path)
        events = [Event(**{**event, "phase": Phase(event["phase"])}) for event in body["events"]]
        return _server(body["server"]), events, int(body["next"])

    async def stop(self, server_id: str) -> ServerView:
        """End a server; returns once its job or process is gone."""
        return _server(await self._call("DELETE", f"servers/{quote(server_id)}"))

    async def servers(self, user: str) -> list[ServerView]:
        """The user's servers that have not ended."""
        body = await self._call("GET", f"servers?user={quote(user)}")
        return [_server(row) for row in body["servers"]]

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        connector = aiohttp.UnixConnector(path=str(self._socket))
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as client,
                client.request(method, f"http://bridge/v1/{path}", json=body) as answer,
            ):
                content = await answer.json()
        except aiohttp.ContentTypeError as error:
            raise UnexpectedOutput("the bridge", str(error)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise HostUnreachable(
                "hpchub's bridge does not answer.", "Wait a minute and try again, or tell the site's staff."
            ) from error
        if not isinstance(content, dict):
            raise UnexpectedOutput("the bridge", repr(content))
        if answer.status >= 400:
            raise from_wire(content)
        return content


def _server(body: Mapping[str, Any]) -> ServerView:
    error = body["error"]
    return ServerView(
        **{
            **body,
            "phase": Phase(body["phase"]),
            "error": None if error is None else from_wire(error),
        }
    )
