"""Folders that a test's other accounts must get through."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In the place of pytest's own, which every other pytest of the same account closes when it starts."""
    with tempfile.TemporaryDirectory(prefix="hpchub-t-", ignore_cleanup_errors=True) as made:
        yield Path(made).resolve()


def let_others_pass(folder: Path) -> None:
    """Open `folder`, and every folder on the way to it below the machine's own temporary one, to all."""
    top = Path(tempfile.gettempdir()).resolve()
    for one in (folder, *folder.parents):
        if one.is_relative_to(top) and one != top:
            one.chmod(0o755)
