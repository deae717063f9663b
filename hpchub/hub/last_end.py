"""What became of the server that somebody looks for, on the page that stands in its place.

The bridge keeps it with the server's row. So it is told after a restart of either process as well, and of
a server that ended while no hub ran.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

from jupyterhub.user import User
from markupsafe import Markup

from hpchub.bridge.client import BridgeClient
from hpchub.core.server import Phase
from hpchub.errors import HpchubError
from hpchub.hub.refusals import refusal_html

# A page is shown without this part rather than late.
_PATIENCE_S = 2.0

# Where Jupyter has its pages. JupyterHub 6.1.1 takes `/user/bob/lab` for the server that bob has called
# "lab", if he ever did, and not for a page of his default one.
_JUPYTERS_PAGES = frozenset(
    {"consoles", "doc", "edit", "files", "lab", "notebooks", "terminals", "tree", "view"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LastEnd:
    """`why` it ended, as HTML; empty where not by itself. `unknown` where nobody can tell just now."""

    why: Markup = field(default_factory=Markup)
    server_name: str = ""
    unknown: bool = False


async def last_end(bridge: BridgeClient, user: User, server_name: str) -> LastEnd:
    """How the last of a user's servers of that name ended."""
    names = {server_name, ""} if server_name in _JUPYTERS_PAGES else {server_name}
    try:
        async with asyncio.timeout(_PATIENCE_S):
            views = [await bridge.last_server(user.name, name) for name in names]
    except (HpchubError, TimeoutError):
        return LastEnd(unknown=True)
    # Before that, the name was somebody else's, who was deleted.
    since = _unix_seconds(user.orm_user.created)
    ends = [
        (view.created_at, view.server_name, view.error)
        for view in views
        if view is not None and view.phase is Phase.ENDED and view.error and view.created_at >= since
    ]
    if not ends:
        return LastEnd()
    _, name, error = max(ends, key=lambda end: end[0])
    why = Markup(refusal_html(error))  # noqa: S704  our own template, every value in it escaped
    return LastEnd(why=why, server_name=name)


def _unix_seconds(at: datetime | None) -> float:
    """JupyterHub's times are UTC and do not say so; an old database may lack this one."""
    return 0.0 if at is None else at.replace(tzinfo=UTC).timestamp()
