"""Ctrl-C, pressed by a test at the moment that it names."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable


def press_ctrl_c(
    when: Callable[[], object], times: int = 1, then: Callable[[], object] = lambda: None
) -> None:
    """From a thread, once that is so: as often, in the main thread; and then something else."""
    main = threading.main_thread().ident
    assert main is not None

    def press() -> None:
        while not when():
            time.sleep(0.01)
        for _ in range(times):
            signal.pthread_kill(main, signal.SIGINT)
            time.sleep(0.02)
        then()

    threading.Thread(target=press, daemon=True).start()
