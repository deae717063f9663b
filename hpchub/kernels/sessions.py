"""What jupyter_server's sessions have to do with kernels that wait. A session is a notebook or console with a
kernel; its manager is followed by a method that is there to be overridden.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from jupyter_core.utils import ensure_async
from tornado.web import HTTPError

from hpchub.errors import GivenUp, HpchubError
from hpchub.kernels.jupyters_manager import forget_failed_starts

_path: ContextVar[str] = ContextVar("hpchub_session_path", default="")


def session_path() -> str:
    """The path of the session that a kernel is being started for, as its page knows it.

    Of a new session it is one that no other page has. Empty where there is no session, or nothing follows it.
    """
    return _path.get()


def follow(manager: Any) -> None:
    """Has a session manager tell for which session it starts a kernel, and undo a change that is given up.

    A session that waits for another kernel, which is given up, keeps the one that it has. To an error
    JupyterLab answers by forgetting the session, whose kernel would run on unseen.
    """
    start = manager.start_kernel_for_session

    async def start_kernel_for_session(session_id: str, **wanted: Any) -> str:
        _path.set(wanted.get("path") or "")
        try:
            kernel: str = await start(session_id, **wanted)
        except HpchubError as error:
            before = await _kernel_of(manager, session_id)
            if not before:
                raise
            if not isinstance(error, GivenUp):
                raise _ChangeError(str(error)) from error
            return before
        finally:
            forget_failed_starts(manager.kernel_manager)
        return kernel

    manager.start_kernel_for_session = start_kernel_for_session


async def _kernel_of(manager: Any, session_id: str) -> str:
    """The kernel that a session has; empty where there is no such session or kernel yet, or no longer."""
    try:
        session = await ensure_async(manager.get_session(session_id=session_id))
    except (HTTPError, KeyError):
        return ""
    kernel = (session.get("kernel") or {}).get("id", "")
    return kernel if kernel in manager.kernel_manager else ""


class _Words(str):
    """A text whose repr is the text, on a line of its own."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"\n{self}"


class _ChangeError(Exception):
    """Of it jupyter_server tells `repr(str(error))`, which would show line ends as a backslash and an n."""

    def __str__(self) -> str:
        return _Words(super().__str__())
