"""The kernels of one notebook server whose jobs wait to begin, for people who look at JupyterLab."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hpchub.kernels.jupyters_manager import server_settings

# Of the server's own settings. Without our extension of the server (server.py) there is none of that name.
SETTING = "hpchub_waiting_kernels"


@dataclass(slots=True, kw_only=True)
class Waiting:
    """A kernel whose job is not there yet. `notebook` is a path, or empty; `reason` is in plain words."""

    kernel_id: str
    kernel: str
    title: str
    notebook: str
    job: str
    reason: str = ""
    is_given_up: bool = False


@contextmanager
def listed(manager: Any, waiting: Waiting) -> Iterator[Waiting]:
    """Lists it with the server of its kernel manager, where there is one that keeps such a list."""
    kernels: dict[str, Waiting] = server_settings(manager).get(SETTING, {})
    kernels[waiting.kernel_id] = waiting
    try:
        yield waiting
    finally:
        del kernels[waiting.kernel_id]
