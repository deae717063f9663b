"""Lets a few starts through at once and the rest wait in order, each told how many are before it.

What a start costs the cluster is a handshake or two, some commands and an sbatch. A lecture that presses
Start together must not ask for all of that in the same second. A job that waits in the scheduler's own
queue holds no place here.

Pure asyncio: it knows nothing of servers.
"""

from __future__ import annotations

import asyncio
import itertools
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

# How often those who wait are told their position, and by how much of it that must have changed: each
# telling is an event that is kept, and "240 before yours" is as good as 239.
_TELL_EVERY_S = 1.0
_WORTH_TELLING = 5

# A start that hangs, in somebody's home folder or on a frozen node, goes on without its turn: the others
# need not wait for what may never come.
_LONGEST_TURN_S = 10.0

# Whoever has a job that runs already goes before everybody's new ones: it is being charged for.
_AT_ONCE = -1


@dataclass(order=True, slots=True)
class _Waiter:
    """In the order of their turns: how many of the same person's went before, then who came first."""

    round: int
    arrival: int
    granted: asyncio.Future[None] = field(compare=False)
    tell: Callable[[int], None] | None = field(compare=False)
    told: int = field(default=-1, compare=False)


class _Held:
    """A turn that somebody has, to be given back once."""

    def __init__(self, give: Callable[[], None]) -> None:
        self._give: Callable[[], None] | None = give

    def give_back(self) -> None:
        give, self._give = self._give, None
        if give is not None:
            give()


class StartQueue:
    """Turns for one cluster, `at_once` of them at the same time.

    Fair between people: somebody's second start waits until everybody's first, of those who wait, is
    through, their third until everybody's second, and so on.
    """

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._waiting: list[_Waiter] = []
        self._arrivals = itertools.count()
        self._of_person: Counter[str] = Counter()
        self._teller: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    @asynccontextmanager
    async def turn(
        self, person: str, tell: Callable[[int], None] | None = None, *, at_once: bool = False
    ) -> AsyncIterator[None]:
        """Wait for a turn and hold it for the body, ten seconds at most. A cancelled wait gives its
        place to the next.

        Args:
            person: Whose start this is.
            tell: Called with the number of waiting starts before this one: at once where it has to
                wait, and as that changes, at most once a second.
            at_once: Goes before everybody who does not say so.
        """
        turn_of = _AT_ONCE if at_once else self._of_person[person]
        self._of_person[person] += 1
        try:
            await self._wait(turn_of, tell)
            held = _Held(self._next)
            timer = asyncio.get_running_loop().call_later(_LONGEST_TURN_S, held.give_back)
            try:
                yield
            finally:
                timer.cancel()
                held.give_back()
        finally:
            self._of_person[person] -= 1
            if not self._of_person[person]:
                del self._of_person[person]

    async def _wait(self, turn_of: int, tell: Callable[[int], None] | None) -> None:
        if self._free:
            self._free -= 1
            return
        granted = asyncio.get_running_loop().create_future()
        waiter = _Waiter(turn_of, next(self._arrivals), granted, tell)
        insort(self._waiting, waiter)
        try:
            self._tell(bisect_left(self._waiting, waiter), waiter)
            if self._teller is None:
                self._teller = asyncio.create_task(self._tell_all())
            await granted
        except BaseException:
            if granted.done() and not granted.cancelled():
                self._next()  # the turn had come, and nobody is there to use it
            else:
                self._remove(waiter)
            raise
        finally:
            if not self._waiting and self._teller is not None:
                self._teller.cancel()
                self._teller = None

    def _next(self) -> None:
        """Give a turn that is over to whoever is first."""
        while self._waiting:
            granted = self._waiting.pop(0).granted
            if not granted.cancelled():  # a wait that was cancelled in this very moment has not gone yet
                granted.set_result(None)
                return
        self._free += 1

    def _remove(self, waiter: _Waiter) -> None:
        index = bisect_left(self._waiting, waiter)
        if self._waiting[index : index + 1] == [waiter]:
            del self._waiting[index]

    async def _tell_all(self) -> None:
        while True:
            await asyncio.sleep(_TELL_EVERY_S)
            for position, waiter in enumerate(self._waiting):
                self._tell(position, waiter)

    def _tell(self, position: int, waiter: _Waiter) -> None:
        """Those in front are told each step, those far behind the big ones."""
        change = abs(position - waiter.told)
        if waiter.tell is not None and change >= max(1, waiter.told // _WORTH_TELLING):
            waiter.told = position
            waiter.tell(position)
