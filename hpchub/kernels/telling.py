"""What people are told in a notebook.

JupyterLab's dialog shows a text as it is, and breaks no line.
"""

from __future__ import annotations

import signal
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

from hpchub.errors import HpchubError

# The dialog is at most 1000 pixels wide, and has room for about 120 characters then.
_WIDTH = 90


@contextmanager
def in_lines() -> Iterator[None]:
    """What is raised within has its text in lines that the dialog shows whole, and the hint apart."""
    try:
        yield
    except HpchubError as error:
        error.message = "\n\n".join(_broken(text) for text in (error.message, error.hint) if text)
        error.hint = ""
        raise


def why_ended(code: int, memory_kills: int, last_words: str) -> str:
    """Why a kernel ended, by its exit code: a signal's number with a minus."""
    if code > 0:
        return f"The kernel ended with exit code {code}: {last_words}."
    number = -code
    name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
    if memory_kills and number == signal.SIGKILL:
        return "The kernel was ended because its job used more memory than it had asked for."
    likely = " That is mostly for want of memory." if number == signal.SIGKILL else ""
    return f"The kernel was ended by signal {number} ({name}).{likely}"


def _broken(text: str) -> str:
    """A sentence in lines; a command, which ends without a full stop, as it is, to be copied."""
    if not text.endswith("."):
        return text
    lines = (
        textwrap.fill(line, _WIDTH, break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    )
    return "\n".join(lines)
