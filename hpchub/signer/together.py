"""Puts calls that are made in the same moment into one, up to a largest number."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

Answer = dict[str, Any]


class Together:
    """Between callers and `send`, which takes requests and returns as many answers. For one event loop."""

    def __init__(self, send: Callable[[Sequence[Answer]], Awaitable[Sequence[Answer]]], most: int) -> None:
        self._send = send
        self._most = most
        self._waiting: list[tuple[Answer, asyncio.Future[Answer]]] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def ask(self, request: Answer) -> Answer:
        """The answer to this request. What `send` raises, everybody whose request it was gets."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._begin)
        self._waiting.append((request, answered))
        return await answered

    def _begin(self) -> None:
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), self._most):
            task = asyncio.create_task(self._answer(waiting[start : start + self._most]), name="together")
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _answer(self, batch: list[tuple[Answer, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._send([request for request, _ in batch])
        except Exception as error:
            for _, answered in batch:
                if not answered.done():
                    answered.set_exception(error)
            return
        except BaseException:
            for _, answered in batch:
                answered.cancel()
            raise
        for (_, answered), answer in zip(batch, answers, strict=True):
            if not answered.done():  # whoever asked has left
                answered.set_result(answer)
