"""Errors as people see them in a notebook: JupyterLab's dialog shows a text as it is, and breaks no line."""

from __future__ import annotations

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


def _broken(text: str) -> str:
    """A sentence in lines; a command, which ends without a full stop, as it is, to be copied."""
    if not text.endswith("."):
        return text
    lines = (
        textwrap.fill(line, _WIDTH, break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    )
    return "\n".join(lines)
