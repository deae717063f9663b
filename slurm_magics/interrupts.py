"""Ctrl-C, and the stop button of a notebook: when they may come."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held_back(words: str) -> Iterator[None]:
    """Ctrl-C in here, once or often, comes at the end; where it was pressed these words are shown at once.

    An error in here comes in its place. In another thread than the main one Ctrl-C never comes.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    pressed = False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        if not pressed:
            print(words, file=sys.stderr, flush=True)
        pressed = True

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        signal.raise_signal(signal.SIGINT)
