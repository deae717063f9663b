"""What a server's start looks like to the person who waits for it."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

from hpchub.bridge.end_time import EndTime
from hpchub.bridge.endings import Endings
from hpchub.bridge.metrics import BridgeMetrics, ServerMeter
from hpchub.bridge.outlook import Outlook
from hpchub.bridge.store import ServerRecord
from hpchub.core.cluster import ComputePlacement
from hpchub.core.server import SETTLED, Event, Phase

log = logging.getLogger(__name__)

# How far along each phase is, in percent, for a progress bar.
_PERCENT = {
    Phase.CONNECTING: 5,
    Phase.SUBMITTED: 20,
    Phase.QUEUED: 30,
    Phase.STARTING: 60,
    Phase.READY: 100,
    Phase.STOPPING: 100,
    Phase.ENDED: 100,
}

# A reason comes from a command in the user's own shell, which may print whatever it likes, for ever.
_MOST_EVENTS = 1000
_LONGEST_MESSAGE = 500


class Progress:
    """A server's phase, its events so far, a way to wait for the next, its job's outlook and its end."""

    def __init__(
        self,
        record: ServerRecord,
        compute: ComputePlacement | None = None,
        metrics: BridgeMetrics | None = None,
        endings: Endings | None = None,
    ) -> None:
        """`compute` says when to warn of the end; `endings` hears of it."""
        self._record = record
        self._endings = endings
        self.meter = ServerMeter(metrics or BridgeMetrics(), record)
        self.end = EndTime(compute)
        self.events: list[Event] = []
        self.outlook = Outlook()
        self.trouble = ""  # why a server that people work on cannot be reached
        self._news = asyncio.Event()
        self._held_back: tuple[Phase, str] | None = None

    @property
    def record(self) -> ServerRecord:
        """The server that this is about."""
        return self._record

    def tell(self, phase: Phase, message: str) -> None:
        """Move the server to a phase and say so, unless that is what the last line said.

        A server that is being stopped only ever ends: late news of its start is not told.
        """
        if self._record.phase is Phase.STOPPING and phase is not Phase.ENDED:
            self._held_back = (phase, message)
            return
        self._record.phase = phase
        message = _printable(message)
        if self.events and (self.events[-1].phase, self.events[-1].message) == (phase, message):
            return
        if phase is Phase.QUEUED and len(self.events) >= _MOST_EVENTS:
            return
        self.events.append(Event(at=time.time(), phase=phase, message=message, percent=_PERCENT[phase]))
        log.info(
            "server.%s id=%s user=%s job=%s", phase, self._record.id, self._record.user, self._record.job_id
        )
        self._news.set()
        self._news = asyncio.Event()
        if phase is Phase.ENDED and self._endings is not None:
            self._endings.note(self._record.id)

    def stopping(self) -> None:
        """Somebody stops the server."""
        self._held_back = (self._record.phase, "")
        self.tell(Phase.STOPPING, "Stopping")

    def not_stopped(self, why: str) -> None:
        """The stop has failed: tell why, and where the server was, or came to meanwhile."""
        held_back, self._held_back = self._held_back, None
        if self._record.phase is Phase.STOPPING and held_back is not None:
            phase, news = held_back
            self._record.phase = phase
            self.tell(phase, f"It could not be stopped, and goes on: {why}")
            if news:
                self.tell(phase, news)

    async def until_settled(self, wait_s: float) -> None:
        """Return once the server is ready or has ended, after `wait_s` seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while self._record.phase not in SETTLED:
                    await self._news.wait()

    async def after(self, count: int, wait_s: float) -> list[Event]:
        """Events beyond the first `count`; waits up to `wait_s` seconds for one."""
        if len(self.events) <= count:
            try:
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
            except TimeoutError:
                return []
        return self.events[count:]


def _printable(message: str) -> str:
    return "".join(char if char.isprintable() else " " for char in message[:_LONGEST_MESSAGE])
