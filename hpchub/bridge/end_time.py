"""When a server's time is up, and that its launcher knows it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from hpchub.core.cluster import ComputePlacement
from hpchub.remote.handover import end_line

log = logging.getLogger(__name__)

# Answers about one job differ by a second, which nobody sees.
_SAME_S = 2


class Channel(Protocol):
    """What a launcher is told through: `hpchub.ssh.attach.Heartbeat`."""

    def tell(self, line: bytes) -> None: ...


class EndTime:
    """One server's. Whoever learns it says `set`; the launcher is told at once, and at each new handover."""

    def __init__(self, compute: ComputePlacement | None) -> None:
        self.at: int | None = None
        self._compute = compute or ComputePlacement()
        self._channel: Channel | None = None

    def set(self, at: float) -> None:
        """The job's time is up at `at`, in Unix seconds. It may change: staff can extend a job."""
        if self.at is not None and abs(at - self.at) < _SAME_S:
            return
        self.at = int(at)
        self._tell()

    @contextmanager
    def told_to(self, channel: Channel) -> Iterator[None]:
        """Tell whatever is or becomes known through this channel."""
        self._channel = channel
        self._tell()
        try:
            yield
        finally:
            self._channel = None

    def _tell(self) -> None:
        if self._channel is None or self.at is None:
            return
        line = end_line(self.at, self._compute.warn_before_s, self._compute.successor)
        try:
            self._channel.tell(line)
        except OSError as error:  # the channel is ending; the next one is told again
            log.info("server.end_not_told error=%s", error)
