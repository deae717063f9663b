"""Whether a server is idle: by the cluster file's word, JupyterHub's knowledge, and the server's own.

JupyterHub hears of activity every five minutes, and not at all of a cell that computes without printing.
So whoever looks idle to the hub is asked itself before it is stopped. Who cannot be asked stays: doubt is
never idleness.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp

from hpchub.bridge.client import BridgeClient
from hpchub.core.cluster import Cluster
from hpchub.core.secret import Secret
from hpchub.core.server import Phase, ServerView
from hpchub.errors import ConfigError, HpchubError, NotAllowed, UnexpectedOutput
from hpchub.hub.known import clusters_in

log = logging.getLogger(__name__)

SCOPES = (
    "list:users",
    "read:users:name",
    "read:servers",
    "admin:server_state",
    "delete:servers",
    "users:activity",
    "tokens",
)
"""What the service's role must allow. `tokens`: for each server that looks idle, one for a minute, with
which that server alone can be asked, and which is its owner's own."""

# A notebook server is its owner's: it may answer anything, as slowly and as long as it likes.
_ANSWER_LIMIT_S = 20
_MOST_BYTES = 4 * 1024**2


@dataclass(frozen=True, slots=True)
class Policy:
    """After how many seconds a server is stopped: without activity, and in any case. 0 is never."""

    idle_time_s: int = 0
    max_age_s: int = 0


def policy_of(clusters: Mapping[str, Cluster], view: ServerView) -> Policy:
    """What the cluster file says of a server's placement; nothing where that is not offered any more."""
    cluster = clusters.get(view.cluster)
    for placement in cluster.placements if cluster else ():
        if cluster and placement.value == view.placement:
            home = cluster.home(placement)
            return Policy(home.idle_time_s, home.max_age_s)
    return Policy()


def shortest(clusters: Mapping[str, Cluster]) -> Policy:
    """The shortest of all times: who is below them need not be looked at."""
    homes = [cluster.home(placement) for cluster in clusters.values() for placement in cluster.placements]
    return Policy(
        min((home.idle_time_s for home in homes if home.idle_time_s), default=0),
        min((home.max_age_s for home in homes if home.max_age_s), default=0),
    )


def is_beyond(limit_s: int, duration: timedelta | None) -> bool:
    """Whether a limit that is set has been reached."""
    return bool(limit_s) and duration is not None and duration.total_seconds() >= limit_s


def quiet_for(
    now: datetime, status: Mapping[str, Any], kernels: Sequence[Any], terminals: Sequence[Any]
) -> timedelta:
    """How long a server has done nothing, from what its own API says; none while a kernel computes.

    Args:
        now: The server's own clock, by which the times in its answers were taken.
        status: The answer of `/api/status`.
        kernels: The answer of `/api/kernels`.
        terminals: The answer of `/api/terminals`.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: The answers are no Jupyter server's.
    """
    if any(kernel["execution_state"] == "busy" for kernel in kernels):
        return timedelta(0)
    signs = [status["last_activity"]]
    signs += [one["last_activity"] for one in (*kernels, *terminals)]
    return max(timedelta(0), min(now - _time(sign) for sign in signs))


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


class Hub(Protocol):
    """What of JupyterHub's API is needed here."""

    async def server_token(self, user: str, name: str) -> Secret:
        """A token for one minute that opens this one server to its own user."""

    async def report(self, user: str, name: str, at: datetime) -> None:
        """Tell the hub when a server was active last."""


class Arbiter:
    """The culler's arbiter: `judge` says whether to stop one server."""

    def __init__(self, clusters: Path, bridge: BridgeClient, hub: Hub) -> None:
        self._clusters = clusters
        self._bridge = bridge
        self._hub = hub

    async def judge(self, *, inactive: timedelta | None, server: Mapping[str, Any], **_: object) -> bool:
        """Whether to stop a server, by JupyterHub's model of it. Never raises: one server's trouble is
        no other's.
        """
        try:
            return await self._judge(inactive, server)
        except (HpchubError, aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("idle.cannot_tell server=%s error=%s", server.get("full_name"), error)
            return False

    async def _judge(self, inactive: timedelta | None, server: Mapping[str, Any]) -> bool:
        now = datetime.now(UTC)
        age = now - _time(server["started"]) if server.get("started") else None
        clusters = self._read()
        least = shortest(clusters)
        if not is_beyond(least.idle_time_s, inactive) and not is_beyond(least.max_age_s, age):
            return False
        server_id = server.get("state", {}).get("server_id")
        if not server_id:
            return False
        view = await self._bridge.server(server_id)
        policy = policy_of(clusters, view)
        too_old = is_beyond(policy.max_age_s, age)
        if not too_old and not is_beyond(policy.idle_time_s, inactive):
            return False
        if not await self._is_in_reach(view):
            log.info("idle.out_of_reach server=%s", server["full_name"])
            return False
        if too_old:
            log.info("idle.too_old server=%s", server["full_name"])
            return True
        if view.phase is not Phase.READY:
            return False
        quiet = await self._ask(view, urlsplit(server["url"]).path)
        if is_beyond(policy.idle_time_s, quiet):
            log.info("idle.idle server=%s seconds=%d", server["full_name"], quiet.total_seconds())
            return True
        await self._hub.report(view.user, view.server_name, now - quiet)
        return False

    async def _is_in_reach(self, view: ServerView) -> bool:
        """Whether a server can be asked and ended: by its owner's login, or through a tunnel that was kept.

        Where the owner has logged out there is neither (ADR 12). To try would only fail, every time; it is
        looked at again soon after the owner's next login.
        """
        try:
            await self._bridge.session(view.user)
        except NotAllowed:
            _, tunnels = await self._bridge.connections()
            return view.id in tunnels
        return True

    def _read(self) -> Mapping[str, Cluster]:
        """The cluster files as they are now; a broken one ends nobody's server."""
        try:
            return clusters_in(self._clusters)
        except ConfigError as error:
            log.error("idle.no_clusters error=%s", error)
            return {}

    async def _ask(self, view: ServerView, base: str) -> timedelta:
        """How long the server itself has been quiet, asked through the bridge's own end of its tunnel:
        the proxy would count the question as activity.
        """
        token = await self._hub.server_token(view.user, view.server_name)
        async with aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(view.socket),
            timeout=aiohttp.ClientTimeout(total=_ANSWER_LIMIT_S),
            headers={"Authorization": f"token {token.reveal()}"},
        ) as client:
            status, now = await _get(client, f"{base}api/status")
            kernels, _ = await _get(client, f"{base}api/kernels")
            # A site may have switched terminals off.
            terminals, _ = await _get(client, f"{base}api/terminals", missing=[])
        try:
            return quiet_for(now, status, kernels, terminals)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UnexpectedOutput("the notebook server", repr(error)) from error


async def _get(client: aiohttp.ClientSession, path: str, missing: object = None) -> tuple[Any, datetime]:
    """A JSON answer, and the time on the server's clock. UnexpectedOutput where it is none."""
    url = f"http://localhost{path}?no_track_activity=1"
    async with client.get(url, allow_redirects=False) as answer:
        if answer.status == 404 and missing is not None:
            return missing, datetime.now(UTC)
        raw = bytearray()
        async for chunk in answer.content.iter_any():
            raw += chunk
            if len(raw) > _MOST_BYTES:  # it is cut, and then no JSON
                break
        if answer.status != 200:
            raise UnexpectedOutput(f"the notebook server's {path}", f"HTTP status {answer.status}")
        try:
            return json.loads(raw), parsedate_to_datetime(answer.headers["Date"])
        except (ValueError, KeyError, RecursionError) as error:
            raise UnexpectedOutput(f"the notebook server's {path}", repr(error)) from error
