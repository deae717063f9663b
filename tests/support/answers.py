"""What the magics make of an answer."""

from __future__ import annotations

from collections.abc import Iterable
from zoneinfo import ZoneInfo

import pandas as pd

from slurm_magics.accounting import PipedQuery
from slurm_magics.queries import Query

UTC = ZoneInfo("UTC")


def frame_of(query: Query, answer: bytes | Iterable[bytes]) -> pd.DataFrame:
    """The frame of an answer, or of one that comes in pieces."""
    return frame_and_notices(query, answer)[0]


def frame_and_notices(query: Query, answer: bytes | Iterable[bytes]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The frame, and the lines that were no part of it."""
    pieces = [answer] if isinstance(answer, bytes) else answer
    if isinstance(query, PipedQuery):
        return query.frame(b"".join(pieces), UTC)
    reading = query.reading(UTC)
    for piece in pieces:
        reading.feed(piece)
    return reading.frame()
