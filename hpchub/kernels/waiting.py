"""The kernels of one notebook server whose jobs wait to begin, for people who look at JupyterLab."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hpchub.kernels.claims import Purpose
from hpchub.kernels.jupyters_manager import server_settings

# Of the server's own settings. Without our extension of the server (server.py) there is none of that name.
SETTING = "hpchub_waiting_kernels"
# Between two looks of who waits, for a job to begin or for somebody to leave the list; in seconds.
GLANCE_S = 0.05


@dataclass(slots=True, kw_only=True)
class Waiting:
    """A kernel whose job is not there yet. `reason` is in plain words.

    `session`: the path of the session that it is for; empty where nobody told.
    `is_asked_again`: another request of this server wants its job, for the same purpose.
    """

    kernel_id: str
    kernel: str
    title: str
    purpose: Purpose
    job: str
    session: str = ""
    reason: str = ""
    is_given_up: bool = False
    is_asked_again: bool = False


@contextmanager
def listed(manager: Any, waiting: Waiting) -> Iterator[Waiting]:
    """Lists it with the server of its kernel manager, where there is one that keeps such a list."""
    kernels = _list_of(manager)
    kernels[waiting.kernel_id] = waiting
    try:
        yield waiting
    finally:
        del kernels[waiting.kernel_id]


async def ask_again(manager: Any, purpose: Purpose) -> None:
    """Has a kernel that waits for the same purpose leave its job; returns once it has.

    Whoever had asked is gone, as a rule: the page was loaded again, or the long request broken off.
    """
    kernels = _list_of(manager)
    for one in [one for one in kernels.values() if one.purpose == purpose and not one.is_given_up]:
        one.is_asked_again = True
        while kernels.get(one.kernel_id) is one:  # noqa: ASYNC110  who waits looks as often
            await asyncio.sleep(GLANCE_S)


def _list_of(manager: Any) -> dict[str, Waiting]:
    kernels: dict[str, Waiting] = server_settings(manager).get(SETTING, {})
    return kernels
