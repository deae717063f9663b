"""What a long table needed for a moment goes back to the system: a kernel's job has only so much memory."""

from __future__ import annotations

import sys


def give_back() -> None:
    """The memory that was freed and that the C library would keep for later: glibc's malloc_trim(3)."""
    if sys.platform != "linux":
        return
    import ctypes  # numpy has it already

    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
