"""Knows which cell a kernel is at, and writes under it when the kernel can no longer.

A notebook shows text only under the cell that asked for it, so the request has to be known before the
kernel dies. It is in every `status` that a kernel publishes. A kernel that dies in one long call of C,
before its thread for that has had a turn, takes the name of its cell with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio
from jupyter_client.session import DELIM, Session

_log = logging.getLogger(__name__)

# Jupyter's sockets come back within some tenths of a second, on a machine that has time for them.
_LISTENERS_S = 3.0
# Jupyter's clients want all that a kernel publishes. We ourselves want its states alone, once we know their
# name, and would be counted as a client: our own socket may come back before it is closed.
_WANTS_ALL = b"\1"


class Cells:
    """Follows what a kernel publishes at a unix socket, in the loop that makes it."""

    def __init__(self, path: Path, key: bytes) -> None:
        self._path = path
        self._session = Session(key=key, signature_scheme="hmac-sha256")
        self._context = zmq.asyncio.Context()
        self._asked: dict[str, Any] = {}
        self._task: asyncio.Task[None] | None = None
        self._publisher: zmq.asyncio.Socket | None = None

    def follow(self) -> None:
        """Begins anew, with a kernel that has been started."""
        self.stop()
        self._asked = {}
        self._task = asyncio.get_running_loop().create_task(self._follow())

    def stop(self) -> None:
        """Leaves the socket to others."""
        if self._task is not None:
            self._task.cancel()
        if self._publisher is not None:
            self._publisher.close(linger=0)
            self._publisher = None

    def close(self) -> None:
        """The end."""
        self.stop()
        self._context.destroy(linger=0)

    async def write(self, text: str, listeners: int) -> bool:
        """Text on stderr under the cell that runs, or ran last, in the place of the kernel; whether it went.

        The socket's path must be free, and those who listened about to connect to it again. So many are
        waited for, for what is published reaches only those who are there; some may be gone for good.
        """
        self.stop()
        asked = self._asked
        if not asked:
            return False
        self._publisher = publisher = self._context.socket(zmq.XPUB)
        publisher.setsockopt(zmq.XPUB_VERBOSE, 1)  # tell of each who subscribes, not only of the first
        try:
            publisher.bind(f"ipc://{self._path}")
        except zmq.ZMQError as error:  # the reason itself is in the log by now, and has other ways to people
            _log.error("kernel.cell_not_told error=%s", error)
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LISTENERS_S):
                while listeners > 0:
                    listeners -= await publisher.recv() == _WANTS_ALL
        for kind, content in (
            ("stream", {"name": "stderr", "text": f"{text}\n"}),
            ("status", {"execution_state": "idle"}),
        ):
            message = self._session.msg(kind, content, parent={"header": asked})
            await publisher.send_multipart(
                self._session.serialize(message, ident=f"kernel.hpchub.{kind}".encode())
            )
        return True

    async def _follow(self) -> None:
        topic = b""
        listener = self._context.socket(zmq.SUB)
        try:
            listener.subscribe(topic)
            listener.connect(f"ipc://{self._path}")
            while True:
                frames = await listener.recv_multipart()
                if not topic and frames[0].startswith(b"kernel.") and frames[0].endswith(b".status"):
                    # From now on only the states, so that a cell's output does not come here as well.
                    listener.subscribe(frames[0])
                    listener.unsubscribe(topic)
                    topic = frames[0]
                self._take(frames)
        finally:
            listener.close(linger=0)

    def _take(self, frames: list[bytes]) -> None:
        try:
            place = frames.index(DELIM)
            header, parent, _, _ = frames[place + 2 : place + 6]
            if json.loads(header)["msg_type"] != "status":
                return
            asked = json.loads(parent)
        except (ValueError, KeyError) as error:
            _log.debug("kernel.odd_message error=%s", error)
            return
        if asked.get("msg_type") == "execute_request":
            self._asked = asked
