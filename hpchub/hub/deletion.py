"""Ends what a person still has before JupyterHub forgets the person.

JupyterHub 6.1.1 stops the default server of a user whom an administrator deletes. A named one makes the
deletion fail with status 500, and a server that only the bridge knows would run on, nobody's.
"""

from __future__ import annotations

import asyncio

from jupyterhub.proxy import Proxy
from jupyterhub.user import User
from tornado import web

from hpchub.bridge.client import BridgeClient
from hpchub.errors import HpchubError

# A start that is cancelled has nothing more to wait for.
_CANCEL_LIMIT_S = 5.0


async def end_everything(user: User, bridge: BridgeClient, proxy: Proxy) -> None:
    """End a person's servers, and then their session on the clusters.

    Raises:
        web.HTTPError: 503, because some server could not be ended; all that could not is still there.
    """
    ready = [spawner for spawner in user.spawners.values() if spawner.ready]
    for spawner in ready:
        spawner.stop_polling()  # JupyterHub would stop each a second time, having heard of its end
    try:
        views = await bridge.servers(user.name)
        await asyncio.gather(*(bridge.stop(view.id) for view in views))
        for name, spawner in list(user.spawners.items()):
            if spawner.active:
                await _cancel_start(spawner._spawn_future)
                await proxy.delete_user(user, name)
                await user.stop(name)
        await bridge.close_session(user.name)
    except HpchubError as error:
        for spawner in ready:
            spawner.start_polling()
        raise web.HTTPError(
            503, f"{user.name} was not deleted, because a server of theirs could not be ended: {error}"
        ) from error


async def _cancel_start(start: asyncio.Future[object] | None) -> None:
    if start is not None and not start.done():
        start.cancel()
        await asyncio.wait([start], timeout=_CANCEL_LIMIT_S)
