"""Asks a hub something cheap, ten times a second, from a process of its own: `python -m bench.crowd.probe`.

Reads {"url", "token"} from standard input, prints one line for each answer: when it was asked (Unix
seconds), how long it took (seconds), and its status (0: none came). Ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import aiohttp

_EACH_S = 0.1
_PATIENCE_S = 30.0


async def _main() -> None:
    settings = json.loads(sys.stdin.readline())
    headers = {"Authorization": f"token {settings['token']}"}
    timeout = aiohttp.ClientTimeout(total=_PATIENCE_S)
    end = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as client,
        asyncio.TaskGroup() as group,
    ):
        while not end.done():
            group.create_task(_ask(client, settings["url"]))
            await asyncio.sleep(_EACH_S)


async def _ask(client: aiohttp.ClientSession, url: str) -> None:
    at, began, status = time.time(), time.monotonic(), 0
    try:
        async with client.get(url) as answer:
            await answer.read()
            status = answer.status
    except (aiohttp.ClientError, TimeoutError):
        status = 0
    print(f"{at:.3f} {time.monotonic() - began:.4f} {status}", flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
