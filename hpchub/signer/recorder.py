"""Writes audit records for many requests at once: one write and one fsync for all that wait.

A disk takes a few hundred to a few thousand fsyncs a second, whatever is in them.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

from hpchub.audit import AuditLog, Outcome, Record, render_record
from hpchub.errors import HpchubError, SiteError, UserError
from hpchub.logs import correlation_id


class Recorder:
    """Between requests and the log. Belongs to one event loop."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, record: Record) -> None:
        """Return once the record is on the disk.

        Raises:
            SiteError: It could not be written. The caller must then grant nothing.
        """
        try:
            if server_id := correlation_id():
                record = replace(record, server_id=server_id)
            text = render_record(record, datetime.now(UTC))
        except ValueError as error:
            raise SiteError("An audit record breaks its schema.", "Tell the site's staff.") from error
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all(), name="audit")
        await written

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(self._audit.append, [text for text, _ in batch])
            except SiteError as error:
                _settle(batch, error)
            except BaseException:  # the loop ends, or a fault of ours: nobody may be left waiting
                _settle(batch, SiteError("The audit log cannot be written.", "Tell the site's staff."))
                raise
            else:
                _settle(batch, None)


def _settle(batch: list[tuple[str, asyncio.Future[None]]], error: SiteError | None) -> None:
    for _, written in batch:
        if written.done():  # whoever asked has left; the record is there all the same
            continue
        if error is None:
            written.set_result(None)
        else:
            refusal = SiteError(error.message, error.hint)
            refusal.__cause__ = error.__cause__
            written.set_exception(refusal)


class TrueReason(Exception):
    """The cause of a refusal: for the audit log, never for the person."""


def failed(record: Record, error: Exception) -> Record:
    """The record of a failure. The cause of an error is its true reason."""
    outcome = Outcome.REFUSED if isinstance(error, UserError) else Outcome.ERROR
    if not isinstance(error, HpchubError):
        return replace(record, outcome=outcome, reason=f"unforeseen {type(error).__name__}")
    return replace(record, outcome=outcome, reason=str(error.__cause__ or "") or error.message)
