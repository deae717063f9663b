"""Talks to the bridge over its unix socket. Used by JupyterHub's plugins and by whatever follows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hpchub.core.job import Association
from hpchub.core.secret import Secret
from hpchub.core.server import ConnectionView, Event, ServerView
from hpchub.local_api.client import call

# Stopping waits for the job to be gone, which may take its scheduler's kill time.
_TIMEOUT_S = 120


class BridgeClient:
    """One call each. Raises the bridge's own errors; ProcessAway where nobody answers."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def health(self) -> None:
        """Returns where the bridge is well."""
        await self._call("GET", "health")

    async def new_key(self, source: str = "") -> tuple[str, str]:
        """The id and public key of a key that never leaves the bridge.

        `source` is the address of whoever wants to log in: it is not to push out keys of others.
        """
        body = await self._call("POST", "keys", {"source": source})
        return body["key_id"], body["public_key"]

    async def open_session(self, user: str, key_id: str, grant: Secret) -> float:
        """Begin a session; its end in Unix seconds."""
        body = {"key_id": key_id, "grant": grant.reveal()}
        return float((await self._call("PUT", f"sessions/{_quote(user)}", body))["expires_at"])

    async def session(self, user: str) -> float:
        """When the user's session ends, in Unix seconds. NotAllowed where there is none."""
        return float((await self._call("GET", f"sessions/{_quote(user)}"))["expires_at"])

    async def close_session(self, user: str) -> None:
        """End a session and close the user's connections. Running servers run on."""
        await self._call("DELETE", f"sessions/{_quote(user)}")

    async def terminal_certificate(self, user: str, public_key: str, source: str) -> tuple[str, int]:
        """A certificate for the key of the user's own terminal, and its end in Unix seconds.

        Raises:
            NotAllowed: There is no session, or the site gives none.
        """
        body = {"public_key": public_key, "source": source}
        answer = await self._call("POST", f"sessions/{_quote(user)}/terminals", body)
        return str(answer["certificate"]), int(answer["valid_before"])

    async def associations(self, user: str, cluster: str) -> list[Association]:
        """What the user may charge on a cluster. AccountProblem where there is nothing."""
        body = await self._call("GET", f"users/{_quote(user)}/associations?cluster={_quote(cluster)}")
        return [Association(**row) for row in body["associations"]]

    async def slurm_token(self, user: str, cluster: str, lifespan_s: int) -> tuple[Secret, int]:
        """A token of Slurm's for the user, and its end in Unix seconds.

        Raises:
            NotAllowed: There is no session, or the site lets people make no tokens.
            SiteError: The cluster's Slurm has no tokens.
        """
        body = {"cluster": cluster, "lifespan_s": lifespan_s}
        answer = await self._call("POST", f"users/{_quote(user)}/slurm-tokens", body)
        return Secret(str(answer["token"])), int(answer["expires_at"])

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
        return ServerView.from_dict(await self._call("POST", "servers", body))

    async def server(self, server_id: str) -> ServerView:
        """A server, running or ended. InvalidRequest where there never was one."""
        return ServerView.from_dict(await self._call("GET", f"servers/{_quote(server_id)}"))

    async def last_server(self, user: str, server_name: str) -> ServerView | None:
        """The user's server of that name, or the last one that was; None where there never was one."""
        path = f"users/{_quote(user)}/last-server?server_name={_quote(server_name)}"
        found = (await self._call("GET", path))["server"]
        return None if found is None else ServerView.from_dict(found)

    async def events(
        self, server_id: str, after: int, wait_s: float, *, settled: bool = False
    ) -> tuple[ServerView, list[Event], int]:
        """Events beyond the first `after`, and the number to ask from next time.

        Waits for the first of them, or, with `settled`, for the server to be ready or ended.
        """
        until = "&until=settled" if settled else ""
        path = f"servers/{_quote(server_id)}/events?after={after}&wait_s={wait_s}{until}"
        body = await self._call("GET", path)
        events = [Event.from_dict(event) for event in body["events"]]
        return ServerView.from_dict(body["server"]), events, int(body["next"])

    async def endings(self, bridge: str, after: int, wait_s: float) -> tuple[str, list[str], int]:
        """Which bridge answers, the servers that have ended beyond the first `after`, and their number.

        Give bridge and number back next time; a bridge that has restarted counts anew.
        """
        body = await self._call("GET", f"endings?bridge={_quote(bridge)}&after={after}&wait_s={wait_s}")
        return body["bridge"], list(body["ended"]), int(body["next"])

    async def stop(self, server_id: str) -> ServerView:
        """End a server; returns once its job or process is gone."""
        return ServerView.from_dict(await self._call("DELETE", f"servers/{_quote(server_id)}"))

    async def servers(self, user: str | None = None) -> list[ServerView]:
        """The user's servers that have not ended, or everybody's."""
        of = "" if user is None else f"?user={_quote(user)}"
        body = await self._call("GET", f"servers{of}")
        return [ServerView.from_dict(row) for row in body["servers"]]

    async def connections(self) -> tuple[list[ConnectionView], frozenset[str]]:
        """The open connections to login nodes, and the ids of the servers whose tunnel is open."""
        body = await self._call("GET", "connections")
        return [ConnectionView(**row) for row in body["connections"]], frozenset(body["tunnels"])

    async def ready(self) -> None:
        """Return where the bridge could start a server; RemoteError with what is missing otherwise."""
        await self._call("GET", "ready")

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return await call(self._socket, "bridge", method, f"/v1/{path}", body, timeout_s=_TIMEOUT_S)


def _quote(text: str) -> str:
    """One part of a path: a slash is no separator here."""
    return quote(text, safe="")
