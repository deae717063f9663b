"""A launcher and the notebook server that it becomes, as far as hpchub and JupyterHub can tell.

It follows the handover, asks the hub for its version as jupyterhub-singleuser does, answers every
request with an empty object after the real one's start time, holds WebSockets, and reports activity.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib.metadata
import json
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

import asyncssh

from bench.crowd import figures

Reader = Any  # asyncssh's and asyncio's streams share what is used here, and no base class
Writer = Any
Streams = tuple[Reader, Writer]
CallHub = Callable[[str], Awaitable[Streams]]
Spawn = Callable[[Coroutine[Any, Any, None]], None]

_VERSION = importlib.metadata.version("jupyterhub")
_OK = (
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
    f"X-JupyterHub-Version: {_VERSION}\r\n\r\n{{}}"
).encode()
_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_ACTIVITY = '{"servers": {"%s": {"last_activity": "2026-01-01T00:00:00Z"}}}'


class NoopNotebook:
    """One server. `call_hub` opens a connection to the hub by a socket's name."""

    def __init__(self, user: str, files: dict[str, bytes], spawn: Spawn) -> None:
        self.user = user
        self.files = files
        self.listens = False
        self.answers = False
        self.port = 0
        self.ended = asyncio.Event()
        self.call_hub: CallHub | None = None
        self.hub_calls: dict[str, int] = {}
        self.parked: asyncio.Queue[Streams] = (
            asyncio.Queue()
        )  # attach `tcp`: connections for calls to the hub
        self.parked_at = ""
        self._spawn = spawn
        self._hub_socket = ""
        self._started = False

    async def handover(self, reader: Reader, writer: Writer) -> None:
        """The handover channel: its first line, then for as long as it is open."""
        try:
            body = json.loads(await reader.readline())
            self._hub_socket = body["hub_socket"]
            if not self._started:
                self._started = True
                self._spawn(self._run(body["environ"]))
            writer.write(b'{"ok": true, "pid": 4242}\n')
            held = asyncio.ensure_future(_read_to_end(reader))
            ended = asyncio.ensure_future(self.ended.wait())
            await asyncio.wait([held, ended], return_when=asyncio.FIRST_COMPLETED)
            held.cancel()
            ended.cancel()
        except (OSError, asyncssh.Error, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def serve(self, reader: Reader, writer: Writer) -> None:
        """One connection to the notebook server."""
        try:
            while head := await _head(reader):
                key = _header(head, b"sec-websocket-key")
                if key:
                    writer.write(_switch(key))
                    await _read_to_end(reader)
                    break
                writer.write(_OK)
        except (OSError, asyncssh.Error, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _run(self, environ: dict[str, str]) -> None:
        """From the handover on: as jupyterhub-singleuser does."""
        token = environ["JUPYTERHUB_API_TOKEN"]
        url = environ["JUPYTERHUB_ACTIVITY_URL"]
        await self._ask_hub("GET", urlsplit(environ["JUPYTERHUB_API_URL"]).path + "/", token)
        await asyncio.sleep(figures.NOTEBOOK_START_S)
        self.answers = True
        activity = _ACTIVITY % environ.get("JUPYTERHUB_SERVER_NAME", "")
        while not self.ended.is_set():
            await self._ask_hub("POST", urlsplit(url).path, token, activity)
            await asyncio.sleep(figures.ACTIVITY_S * random.uniform(0.9, 1.1))  # noqa: S311  no secret

    async def _ask_hub(self, method: str, path: str, token: str, body: str = "") -> None:
        """One request to the hub; its status, or `lost`, is counted."""
        outcome = "lost"
        try:
            assert self.call_hub is not None
            async with asyncio.timeout(60):
                reader, writer = await self.call_hub(self._hub_socket)
                writer.write(
                    f"{method} {path} HTTP/1.1\r\nHost: hub\r\nAuthorization: token {token}\r\n"
                    f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                    f"Connection: close\r\n\r\n{body}".encode()
                )
                status = (await reader.readline()).split()
                outcome = status[1].decode() if len(status) > 1 else "lost"
                await _read_to_end(reader)
                writer.close()
        except (OSError, asyncssh.Error, TimeoutError):
            outcome = "lost"
        self.hub_calls[outcome] = self.hub_calls.get(outcome, 0) + 1


async def _head(reader: Reader) -> bytes:
    """A request's head, its body read past; empty at the end."""
    try:
        head: bytes = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    if length := int(_header(head, b"content-length") or 0):
        await reader.readexactly(length)
    return head


def _header(head: bytes, name: bytes) -> bytes:
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip()
    return b""


def _switch(key: bytes) -> bytes:
    digest = hashlib.sha1(key + _MAGIC.encode(), usedforsecurity=False).digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )


async def _read_to_end(reader: Reader) -> None:
    try:
        while await reader.read(65536):
            pass
    except (OSError, asyncssh.Error):
        return  # a lost connection is an end too
