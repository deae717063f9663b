"""Writes rows in groups: those that come while a transaction is under way go together into the next.

A commit waits for the disk, and SQLite lets one writer in at a time: the others would sleep and look again,
for seconds where a hundred servers start together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy.exc import InterfaceError, OperationalError

from hpchub.bridge.store import ServerRecord, Store
from hpchub.errors import StoreTaken

# The database is away, its disk is full, or it is another bridge's: each row would wait for that again.
_FAIL_FOR_ALL = (OperationalError, InterfaceError, OSError, StoreTaken)


@dataclass(slots=True)
class _Row:
    record: ServerRecord
    is_new: bool
    written: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class GroupCommit:
    """The one writer of servers' rows."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[str, _Row] = {}
        self._writer: asyncio.Task[None] | None = None

    async def insert(self, record: ServerRecord) -> None:
        """Return once a new server's row is committed.

        Raises:
            SQLAlchemyError, OSError, StoreTaken: It cannot be.
        """
        await self._commit(record, is_new=True)

    async def update(self, record: ServerRecord) -> None:
        """Return once a row is committed as the record stands now, or later.

        Raises:
            SQLAlchemyError, OSError, StoreTaken: It cannot be.
        """
        await self._commit(record, is_new=False)

    async def _commit(self, record: ServerRecord, *, is_new: bool) -> None:
        row = self._waiting.setdefault(record.id, _Row(record, is_new))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_groups(), name="group commit")
        await asyncio.shield(row.written)  # a caller that is cancelled leaves it to the others

    async def _write_groups(self) -> None:
        while self._waiting:
            rows, self._waiting = list(self._waiting.values()), {}
            await self._write(rows)
        self._writer = None

    async def _write(self, rows: Sequence[_Row]) -> None:
        new = [row.record for row in rows if row.is_new]
        changed = [row.record for row in rows if not row.is_new]
        try:
            await asyncio.to_thread(self._store.write, new, changed)
        except Exception as error:
            # Of whatever kind: whoever waits must not wait for a task that has died.
            if len(rows) == 1 or isinstance(error, _FAIL_FOR_ALL):
                for row in rows:
                    row.written.set_exception(error)
                return
            for row in rows:  # what is wrong with one row must not keep the others out
                await self._write([row])
        else:
            for row in rows:
                row.written.set_result(None)
