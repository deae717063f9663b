"""Lives of servers over a real store, in places that behave as their class says."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from hpchub.bridge.keeper import Keeper
from hpchub.bridge.life import ServerLife
from hpchub.bridge.progress import Progress
from hpchub.bridge.start_queue import StartQueue
from hpchub.bridge.store import ServerRecord, Store
from hpchub.core.secret import Secret
from hpchub.core.server import Phase

from .places import (
    WellBehaved,
)

TOKEN = "canary-token-8c1"
ENVIRON = {"JUPYTERHUB_API_TOKEN": TOKEN, "JUPYTERHUB_API_URL": "http://hub/hub/api"}


class World:
    """Lives over a store, and what must be gone when they have ended."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.keeper = Keeper(store)
        self.folder = folder
        self.lives: list[ServerLife] = []
        self.queue = StartQueue(2)

    def life(
        self,
        kind: type[WellBehaved],
        record: ServerRecord | None = None,
        environ: dict[str, str] | None = ENVIRON,
    ) -> tuple[ServerLife, WellBehaved]:
        if record is None:
            record = a_record()
            record.environ = None if environ is None else Secret(json.dumps(environ))
            self.store.write([record], [])
        progress = Progress(record)
        place = kind(record, progress)
        life = ServerLife(
            record,
            place,
            self.keeper,
            local_socket=self.folder / f"{record.id}.sock",
            hub_socket=self.folder / "hub.sock",
            progress=progress,
            queue=self.queue,
        )
        self.lives.append(life)
        return life, place

    def stored(self, life: ServerLife) -> ServerRecord:
        record = self.store.find(life.record.id)
        assert record is not None
        return record


def a_record() -> ServerRecord:
    return ServerRecord(
        id=secrets.token_hex(16), user="alice", server_name="", cluster="alpha", options={},
        base_url="/user/alice/", created_at=time.time(),
    )  # fmt: skip


async def until(holds: Callable[[], object], limit_s: float = 5) -> None:
    async with asyncio.timeout(limit_s):
        while not holds():  # noqa: ASYNC110  it waits for any condition
            await asyncio.sleep(0.005)


async def ready(life: ServerLife) -> None:
    await until(lambda: life.record.phase is Phase.READY)


async def end(life: ServerLife) -> None:
    async with asyncio.timeout(5):
        await life.ended.wait()
