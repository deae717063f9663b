"""Begins to answer a request with a body only once the proxy has surely sent all of it.

configurable-http-proxy 5.3 ends such a request by an empty write. Where the hub has answered and closed its
unix socket before that, as it does within a millisecond where it refuses, the write fails with EPIPE, and the
proxy answers 503 in the hub's place. Over TCP such a write succeeds, and nobody notices.
"""

from __future__ import annotations

import asyncio
from typing import Any

from jupyterhub.handlers import BaseHandler

_PROXY_S = 0.05

_execute = BaseHandler._execute


def answer_unhurried() -> None:
    """Have all of JupyterHub's handlers wait that long. tornado checks XSRF before any hook of theirs."""
    BaseHandler._execute = _execute_unhurried


async def _execute_unhurried(handler: BaseHandler, *args: Any, **kwargs: Any) -> None:
    # Servers report their activity without the proxy in between.
    if handler.request.body and "X-Forwarded-For" in handler.request.headers:
        await asyncio.sleep(_PROXY_S)
    await _execute(handler, *args, **kwargs)
