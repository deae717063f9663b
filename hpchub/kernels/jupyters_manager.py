"""What a provisioner asks of Jupyter's kernel manager, and does to it, by names that are not promised.

Programs other than Jupyter's server have managers without a restarter or a server: then nothing is found,
and nothing done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def server_is_stopping(manager: Any) -> bool:
    """Whether the server that the kernel belongs to is itself being stopped."""
    return bool(getattr(_server(manager), "_stopping", False))


def server_settings(manager: Any) -> dict[str, Any]:
    """What the server that the kernel belongs to keeps for its handlers; empty where there is no server."""
    settings: dict[str, Any] = getattr(getattr(_server(manager), "web_app", None), "settings", {})
    return settings


def is_shutting_down(manager: Any) -> bool:
    """Whether the kernel is being ended, or about to be started again."""
    return bool(getattr(manager, "shutting_down", False))


def is_starting(manager: Any, kernel_id: str) -> bool:
    """Whether the server has a task for the kernel's start, as with `use_pending_kernels`.

    It drops the task as soon as somebody wants the kernel shut down, and then waits for the start.
    """
    return kernel_id in getattr(getattr(manager, "parent", None), "_pending_kernel_tasks", {})


def show_reason(manager: Any, text: str) -> None:
    """Puts a text into `reason` of GET /api/kernels."""
    if manager is not None and hasattr(manager, "reason"):
        manager.reason = text


def take_for_dead(manager: Any) -> None:
    """Has Jupyter forget the kernel: it would otherwise try to restart it for ever."""
    restarter = getattr(manager, "_restarter", None)
    if restarter is not None:
        restarter.stop()
        for callback in restarter.callbacks["dead"]:
            callback()


def forbid_restarts(manager: Any) -> None:
    """Has Jupyter take the kernel for dead at once, rather than say that it will restart by itself."""
    restarter = getattr(manager, "_restarter", None)
    if restarter is not None:
        restarter.restart_limit = 0


def forget_failed_starts(kernels: Any) -> None:
    """Has a manager of kernels forget those that never started.

    It keeps a note of each, looks for it when the server stops, and breaks off there: other kernels would be
    left.
    """
    pending = getattr(kernels, "_pending_kernels", {})
    for kernel_id, task in list(pending.items()):
        if task.done() and kernel_id not in kernels:
            del pending[kernel_id]


def call_when_dead(manager: Any, callback: Callable[[], None]) -> None:
    """Has Jupyter call it once where it takes the kernel for dead, and forgets it."""
    restarter = getattr(manager, "_restarter", None)
    if restarter is not None and callback not in restarter.callbacks["dead"]:
        restarter.add_callback(callback, "dead")


def _server(manager: Any) -> Any:
    return getattr(getattr(manager, "parent", None), "parent", None)
