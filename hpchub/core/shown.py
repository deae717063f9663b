"""Values from outside, as a message may show them."""

from __future__ import annotations

_MOST = 60


def shown(value: object) -> str:
    """The value's repr, cut after some 60 characters: a wrong value may be as long as a file."""
    text = repr(value[: _MOST + 1] if isinstance(value, str) else value)
    return text if len(text) <= _MOST + 2 else f"{text[:_MOST]}…"
