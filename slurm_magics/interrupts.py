"""Ctrl-C, and the stop button of a notebook: when they may come."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any

from slurm_magics.shown import in_kernel

# How long a command that is told to end may take. Slurm's own wait for the end of a step is 32 s.
CANCELS_WITHIN_S = 40.0


@contextmanager
def held_back(words: str = "") -> Iterator[None]:
    """Ctrl-C in here, once or often, comes at the end; words, where there are some, are shown at once.

    An error in here comes in its place. In another thread than the main one Ctrl-C never comes.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    pressed = False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        if words and not pressed:
            print(words, file=sys.stderr, flush=True)
        pressed = True

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def while_it_cancels(tool: str) -> Iterator[None]:
    """A command that was told to end has its time in here. A further Ctrl-C is answered by that, and is over.

    It would leave a job behind that waits in the queue for an srun that is gone.
    """
    with (
        contextlib.suppress(KeyboardInterrupt),
        held_back(f"Waiting for {tool} to cancel what it has begun."),
    ):
        yield


@contextmanager
def raised_at_once() -> Iterator[None]:
    """Ctrl-C in here is raised, in a kernel's cell with `await`, too.

    There the kernel keeps it for its loop, which does not run while this does.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not _is_for_the_loop(before):
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def raised_where_awaited() -> Iterator[None]:
    """Ctrl-C in here is raised by the task that waits, rather than by its loop, wherever that happens to be.

    A kernel and `asyncio.run` see to it themselves; plain IPython does not, and shows the loop's insides.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread():
        way: AbstractContextManager[None] = contextlib.nullcontext()
    elif _is_for_the_loop(before):
        way = _waking(before)
    elif in_kernel() or before is not signal.default_int_handler:
        way = contextlib.nullcontext()
    else:
        way = _cancelling()
    with way:
        yield


class _Waker:
    """A kernel's handler of Ctrl-C in a cell with `await`, which leaves its loop asleep; this wakes it."""

    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels
        self._loop = asyncio.get_running_loop()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._kernels(number, frame)
        self._loop.call_soon_threadsafe(lambda: None)


def _is_for_the_loop(handler: Any) -> bool:
    """Whether that handler is a kernel's own for cells with `await`: ipykernel, `_cancel_on_sigint`."""
    return isinstance(handler, _Waker) or getattr(handler, "__module__", "") == "ipykernel.ipkernel"


@contextmanager
def _waking(before: Any) -> Iterator[None]:
    waker = _Waker(before)
    signal.signal(signal.SIGINT, waker)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is waker:
            signal.signal(signal.SIGINT, before)


@contextmanager
def _cancelling() -> Iterator[None]:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    pressed = False

    def cancel() -> None:
        nonlocal pressed
        pressed = task is not None and task.cancel()

    def note(number: int, frame: FrameType | None) -> None:
        if not loop.is_running():  # the task was left behind
            signal.default_int_handler(number, frame)
        loop.call_soon_threadsafe(cancel)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    except asyncio.CancelledError:
        if task is None or not pressed:
            raise
        task.uncancel()
        raise KeyboardInterrupt from None
    finally:
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, signal.default_int_handler)
