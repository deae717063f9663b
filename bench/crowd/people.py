"""The people: they log in, press start, watch the progress, and keep a page open. Works on any JupyterHub."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from hpchub.bridge.client import BridgeClient
from hpchub.core.secret import Secret
from hpchub.errors import NotAllowed
from hpchub.signer.certificates import parse_public_key
from hpchub.signer.keys import Keys
from hpchub.signer.policy import Policy, plan_grant

_XSRF = re.compile(r'name="_xsrf"[^>]*value="([^"]*)"')
_START_LIMIT_S = 900.0
_BATCH = 200


@dataclass(slots=True)
class Starts:
    """What became of starts: seconds from the click to ready, and what was said about those that failed."""

    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    took_s: float = 0.0


class People:
    """Drives a hub as browsers and its admin would. An async context manager."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._client = await self._stack.enter_async_context(
            aiohttp.ClientSession(
                headers={"Authorization": f"token {self._token}"},
                timeout=aiohttp.ClientTimeout(total=_START_LIMIT_S),
                connector=aiohttp.TCPConnector(limit=0),
            )
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    # -- the hub --------------------------------------------------------------------------------

    async def create(self, names: Sequence[str]) -> None:
        """Make the users known to JupyterHub."""
        for start in range(0, len(names), _BATCH):
            body = {"usernames": list(names[start : start + _BATCH])}
            async with self._client.post(f"{self._url}/hub/api/users", json=body) as answer:
                answer.raise_for_status()

    async def press_start(
        self, names: Sequence[str], options: Callable[[str], Mapping[str, Any]], over_s: float
    ) -> Starts:
        """Everybody presses start, evenly spread over some seconds; until all are up or have failed."""
        starts = Starts()
        began = time.monotonic()

        async def one(number: int, name: str) -> None:
            await asyncio.sleep(over_s * number / len(names))
            clicked = time.monotonic()
            try:
                await self._start(name, options(name))
                starts.seconds[name] = time.monotonic() - clicked
            except (aiohttp.ClientError, RuntimeError, TimeoutError) as error:
                starts.failed[name] = f"{type(error).__name__}: {error}"[:300]

        await asyncio.gather(*(one(number, name) for number, name in enumerate(names)))
        starts.took_s = time.monotonic() - began
        return starts

    async def begin(self, name: str, options: Mapping[str, Any]) -> None:
        """Press start and look no further. RuntimeError where the hub refuses."""
        url = f"{self._url}/hub/api/users/{name}/server"
        async with self._client.post(url, json=dict(options)) as answer:
            if answer.status not in {201, 202}:
                raise RuntimeError(f"{answer.status} {await answer.text()}")

    async def _start(self, name: str, options: Mapping[str, Any]) -> None:
        """Press start; where the hub answers `pending`, read the progress as the page does."""
        url = f"{self._url}/hub/api/users/{name}/server"
        async with self._client.post(url, json=dict(options)) as answer:
            if answer.status == 201:
                return
            if answer.status != 202:
                raise RuntimeError(f"{answer.status} {await answer.text()}")
        async with self._client.get(f"{url}/progress") as stream:
            stream.raise_for_status()
            async for line in stream.content:
                if not line.startswith(b"data:"):
                    continue
                event = json.loads(line.removeprefix(b"data:"))
                if event.get("ready"):
                    return
                if event.get("failed"):
                    raise RuntimeError(str(event.get("message")))
        raise RuntimeError("the progress ended without an end")

    async def stop(self, names: Sequence[str], in_flight: int = 50) -> float:
        """Stop servers; seconds until the hub knows them gone."""
        began = time.monotonic()
        gate = asyncio.Semaphore(in_flight)

        async def one(name: str) -> None:
            async with gate:
                url = f"{self._url}/hub/api/users/{name}"
                async with self._client.delete(f"{url}/server") as answer:
                    pending = answer.status == 202
                while pending:
                    await asyncio.sleep(0.5)
                    async with self._client.get(url) as answer:
                        pending = bool((await answer.json())["servers"])

        await asyncio.gather(*(one(name) for name in names))
        return time.monotonic() - began

    async def ready_servers(self) -> int:
        """How many servers the hub holds ready."""
        found = 0
        offset: int | None = 0
        while offset is not None:
            url = f"{self._url}/hub/api/users?state=ready&limit=200&offset={offset}"
            headers = {"Accept": "application/jupyterhub-pagination+json"}
            async with self._client.get(url, headers=headers) as answer:
                answer.raise_for_status()
                page = await answer.json()
            found += sum(bool(user["servers"]) for user in page["items"])
            following = page["_pagination"]["next"]
            offset = following["offset"] if following else None
        return found

    async def log_in(self, names: Sequence[str], password: str, in_flight: int) -> float:
        """Logins per second: form, password, redirect, with a cookie jar each."""
        gate = asyncio.Semaphore(in_flight)

        async def one(name: str) -> None:
            page = f"{self._url}/hub/login?next=%2Fhub%2Fhome"
            async with gate, aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
                async with browser.get(page) as answer:
                    found = _XSRF.search(await answer.text())
                form = {"username": name, "password": password, "_xsrf": found[1] if found else ""}
                async with browser.post(page, data=form) as answer:
                    if not str(answer.url).endswith("/hub/home"):
                        raise RuntimeError(f"{name} could not log in: {answer.status} {answer.url}")

        began = time.monotonic()
        await asyncio.gather(*(one(name) for name in names))
        return len(names) / (time.monotonic() - began)

    # -- their servers --------------------------------------------------------------------------

    async def reaches(self, name: str) -> bool:
        """Whether the person's server answers through the proxy."""
        try:
            url = f"{self._url}/user/{name}/api"
            timeout = aiohttp.ClientTimeout(total=20)
            async with self._client.get(url, timeout=timeout, allow_redirects=False) as answer:
                await answer.read()
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def until_all_reached(
        self, names: Sequence[str], limit_s: float, in_flight: int = 50
    ) -> dict[str, float]:
        """Seconds from now until each server answered; those that did not within the limit are missing."""
        began = time.monotonic()
        reached: dict[str, float] = {}
        gate = asyncio.Semaphore(in_flight)

        async def one(name: str) -> None:
            while time.monotonic() - began < limit_s:
                async with gate:
                    if await self.reaches(name):
                        reached[name] = time.monotonic() - began
                        return
                await asyncio.sleep(0.5)

        await asyncio.gather(*(one(name) for name in names))
        return reached

    async def open_websocket(self, name: str) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket to the person's server, as a kernel's is."""
        return await self._client.ws_connect(f"{self._url}/user/{name}/ws")


class Browsing:
    """Every server is asked for something now and then, in the background, and failures are counted."""

    def __init__(self, people: People, names: Sequence[str], each_s: float) -> None:
        self.answered = 0
        self.failed: list[float] = []  # when, Unix seconds
        self._people = people
        self._names = names
        self._pause_s = each_s / max(1, len(names))
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._main = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._main.cancel()
        await asyncio.wait({self._main, *self._tasks})

    async def _run(self) -> None:
        due = time.monotonic()
        while True:
            for name in self._names:
                task = asyncio.create_task(self._one(name))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                due += self._pause_s
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _one(self, name: str) -> None:
        at = time.time()
        if await self._people.reaches(name):
            self.answered += 1
        else:
            self.failed.append(at)


@dataclass(slots=True)
class Sessions:
    """Opens sessions at the bridge as logins do, without the passwords."""

    bridge: Path
    keys: Keys = field(repr=False)
    policy: Policy

    async def open(self, names: Sequence[str], in_flight: int = 20) -> float:
        """Seconds for all."""
        client = BridgeClient(self.bridge)
        gate = asyncio.Semaphore(in_flight)

        async def one(name: str) -> None:
            async with gate:
                key_id, public_key = await client.new_key()
                await client.open_session(name, key_id, grant_for(self.keys, self.policy, name, public_key))

        began = time.monotonic()
        await asyncio.gather(*(one(name) for name in names))
        return time.monotonic() - began

    async def is_open(self, name: str) -> bool:
        """Whether the bridge may act for a person."""
        try:
            await BridgeClient(self.bridge).session(name)
        except NotAllowed:
            return False
        return True


def grant_for(keys: Keys, policy: Policy, user: str, public_key: str) -> Secret:
    """What a login would earn, without the password: argon2 for thousands would be all that is measured."""
    grant = plan_grant(
        policy,
        account=user,
        factor="password",
        fingerprint=parse_public_key(public_key).fingerprint,
        now=int(time.time()),
        grant_id=secrets.token_hex(16),
    )
    return keys.grant.render(grant)
