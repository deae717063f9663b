"""The queue that %squeue and slurm-magic are compared on."""

from __future__ import annotations

import hashlib

import pytest

from bench.magics import marked_text, plain_text


@pytest.mark.parametrize(
    ("count", "md5"),
    [(1_000, "1a1b578b3377bc26afccd272cf955a0c"), (10_000, "94402bf8a18a4976378df1a7d8a5969f")],
)
def test_the_jobs_are_always_the_same(count: int, md5: str) -> None:
    """Figures of different days are about the same text."""
    assert hashlib.md5(plain_text(count).encode(), usedforsecurity=False).hexdigest() == md5


def test_both_are_given_the_same_jobs() -> None:
    """Blanks that only line columns up aside, our squeue prints the cells that squeue itself prints."""
    plain = [line.split() for line in plain_text(200).splitlines()]
    marked = [line.split("\x1f")[1:-1] for line in marked_text("same", 200).split("\n")[:-1]]
    assert [" ".join(cells).split() for cells in marked] == plain
