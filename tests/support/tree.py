"""The checkout's own files, as a fresh clone would have them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# What .gitignore names, and git itself, whose `.git` is a file in a worktree. A checkout need not be a
# repository (a release's archive is not).
_MADE_HERE = {".git", ".venv", ".demo", ".cache", "node_modules", "__pycache__", "dist", "screenshots"}


def files(suffix: str = "") -> Iterator[Path]:
    """Every file of the checkout that somebody wrote, in order of its name."""
    for folder, names, found in os.walk(ROOT):
        names[:] = sorted(
            name
            for name in names
            if name not in _MADE_HERE and not name.endswith((".egg-info", "_cache")) and name != ".hypothesis"
        )
        for name in sorted(found):
            if name.endswith(suffix) and name not in {".coverage", ".git"} and not name.endswith(".pyc"):
                yield Path(folder, name)


def shown(path: Path) -> str:
    """A path as messages and test names show it."""
    return path.relative_to(ROOT).as_posix()
