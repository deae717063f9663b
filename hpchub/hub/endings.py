"""Hears from the bridge which servers have ended, once for all spawners of a hub.

With one question each every few seconds, a thousand idle servers took a tenth of a core of both the hub
and the bridge (bench/README.md).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from hpchub.bridge.client import BridgeClient
from hpchub.errors import HpchubError

_log = logging.getLogger(__name__)

_WAIT_S = 20.0
_PAUSE_S = 1.0
_REMEMBERED = 10_000

Notify = Callable[[], Awaitable[object]]


class EndedServers:
    """Calls back whoever watches a server that has ended. One task, from the first watch on."""

    def __init__(self, bridge: BridgeClient) -> None:
        self._bridge = bridge
        self._watchers: dict[str, Notify] = {}
        self._ended: dict[str, None] = {}  # in order; a server may end before anybody watches it
        self._task: asyncio.Task[None] | None = None

    def watch(self, server_id: str, notify: Notify) -> None:
        """Call `notify` once the server has ended."""
        self._watchers[server_id] = notify
        if self._task is None:
            self._task = asyncio.create_task(self._listen())
        if server_id in self._ended:
            self._tell(server_id)

    def forget(self, server_id: str) -> None:
        """Watch it no more."""
        self._watchers.pop(server_id, None)

    async def _listen(self) -> None:
        bridge, number = "", 0
        while True:
            try:
                bridge, ended, number = await self._bridge.endings(bridge, number, _WAIT_S)
            except HpchubError as error:
                _log.warning("endings.unavailable error=%s", error.message)
                await asyncio.sleep(_PAUSE_S)
                continue
            for server_id in ended:
                self._ended[server_id] = None
                self._tell(server_id)
            while len(self._ended) > _REMEMBERED:
                del self._ended[next(iter(self._ended))]

    def _tell(self, server_id: str) -> None:
        notify = self._watchers.pop(server_id, None)
        if notify is not None:
            task = asyncio.ensure_future(notify())
            task.add_done_callback(_report)


def ended_servers(settings: MutableMapping[str, Any], socket: Path) -> EndedServers:
    """The one of a bridge; JupyterHub's own settings keep it, for as long as the hub lives."""
    key = f"hpchub_ended_servers:{socket}"
    if key not in settings:
        settings[key] = EndedServers(BridgeClient(socket))
    found: EndedServers = settings[key]
    return found


def _report(task: asyncio.Future[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("endings.notify_failed error=%r", error)
