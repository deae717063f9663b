"""Ctrl-C, and the stop button of a notebook: when they may come."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

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
def raised_where_awaited() -> Iterator[None]:
    """Ctrl-C in here is raised by the task that waits, rather than by its loop, wherever that happens to be.

    A kernel and `asyncio.run` see to it themselves; plain IPython does not, and shows the loop's insides.
    """
    if (
        in_kernel()
        or threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
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
