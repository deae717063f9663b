"""Writes servers' rows, and writes them again later where the database cannot be written now.

A server that lives is not ended because the hub's disk is full, and a job's id that is known is not
forgotten: the row stays in memory until it has been written. What would begin something new is refused
meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from sqlalchemy.exc import SQLAlchemyError

from hpchub.bridge.group_commit import GroupCommit
from hpchub.bridge.store import ServerRecord, Store
from hpchub.core.server import Phase
from hpchub.errors import StoreTaken, StoreUnavailable

log = logging.getLogger(__name__)

_RETRY_S = 2.0

STORE_FAILURES = (SQLAlchemyError, OSError, StoreTaken)
"""What the store raises where it cannot be read or written."""


@contextmanager
def reading() -> Iterator[None]:
    """Around what reads the store: StoreUnavailable, in plain words, where it cannot be read."""
    try:
        yield
    except STORE_FAILURES as error:
        raise StoreUnavailable(
            f"The hub cannot read its own database: {_reason(error)}.", "Try again later."
        ) from error


class Keeper:
    """Between the servers and their table. `save` never fails; all else does, and in plain words."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows = GroupCommit(store)
        self._unwritten: dict[str, ServerRecord] = {}
        self._writing: set[asyncio.Task[None]] = set()
        self._retrying: asyncio.Task[None] | None = None

    async def add(self, record: ServerRecord) -> None:
        """Insert a new server.

        Raises:
            StoreUnavailable: It cannot be written, or others wait to be.
        """
        if self._unwritten:
            await self._write_all()
        try:
            await self._rows.insert(record)
        except STORE_FAILURES as error:
            # The row may be there after all: an answer can be lost behind the commit.
            self._write_later(replace(record, phase=Phase.ENDED, environ=None), error)
            raise _nothing_new(error) from error

    async def save_first(self, record: ServerRecord) -> None:
        """Write a server's row before something is done that must not be done twice.

        Raises:
            StoreUnavailable: It cannot be written now.
        """
        try:
            await self._rows.update(record)
        except STORE_FAILURES as error:
            raise _nothing_new(error) from error

    async def find(self, server_id: str) -> ServerRecord | None:
        """A server's row, as it was written last.

        Raises:
            StoreUnavailable: Nobody can tell.
        """
        with reading():
            return await asyncio.to_thread(self._store.find, server_id)

    async def last(self, user: str, server_name: str) -> ServerRecord | None:
        """The row of a person's server of that name that was started last.

        Raises:
            StoreUnavailable: Nobody can tell.
        """
        with reading():
            return await asyncio.to_thread(self._store.last, user, server_name)

    async def save(self, record: ServerRecord) -> None:
        """Write a server's row as it stands now, or later, as it stands then.

        A caller that is cancelled leaves the writing to go on, and `close` waits for it: the next bridge must
        not be overwritten.
        """
        writing = asyncio.create_task(self._write(record))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        await asyncio.shield(writing)

    async def _write(self, record: ServerRecord) -> None:
        try:
            await self._rows.update(record)
        except STORE_FAILURES as error:
            self._write_later(record, error)
        else:
            self._unwritten.pop(record.id, None)

    def _write_later(self, record: ServerRecord, error: Exception) -> None:
        if not self._unwritten:
            log.error("store.unwritable reason=%s", _reason(error))
        self._unwritten[record.id] = record
        if self._retrying is None or self._retrying.done():
            self._retrying = asyncio.create_task(self._retry(), name="store retry")

    async def close(self) -> None:
        """Write what is left, if it can be written by now."""
        if self._writing:
            await asyncio.wait(self._writing)
        if self._retrying is not None:
            self._retrying.cancel()
            with suppress(asyncio.CancelledError):
                await self._retrying
        if not await self._write_all():
            log.error("store.not_written ids=%s", ",".join(self._unwritten))

    async def _retry(self) -> None:
        while self._unwritten:
            await asyncio.sleep(_RETRY_S)
            rows = len(self._unwritten)
            if await self._write_all():
                log.warning("store.writable_again rows=%d", rows)

    async def _write_all(self) -> bool:
        """Write what waits; whether nothing waits any more."""
        for server_id, record in list(self._unwritten.items()):
            try:
                await self._rows.update(record)
            except STORE_FAILURES as error:
                log.debug("store.still_unwritable reason=%s", _reason(error))
                return False
            if self._unwritten.get(server_id) is record:
                del self._unwritten[server_id]
        return not self._unwritten


def _nothing_new(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(
        f"The hub cannot write its own database, and so begins nothing new: {_reason(error)}.",
        "Servers that run are not touched. Tell the hub's staff, and try again later.",
    )


def _reason(error: Exception) -> str:
    """The database's own words, without the statement and its values."""
    return str(getattr(error, "orig", None) or error).partition("\n")[0].rstrip(".")
