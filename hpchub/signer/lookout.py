"""What the signer does by itself: forget what has expired, and notice accounts that the site has locked."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from hpchub.errors import HpchubError
from hpchub.signer.authority import Authority
from hpchub.signer.ledger import Ledger

_log = logging.getLogger(__name__)

_PAUSE_S = 5.0


@asynccontextmanager
async def looking_after(ledger: Ledger, authority: Authority) -> AsyncIterator[None]:
    """While the context lasts."""
    task = asyncio.create_task(_look_after(ledger, authority), name="lookout")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _look_after(ledger: Ledger, authority: Authority) -> None:
    failed = False
    while True:
        await asyncio.sleep(_PAUSE_S)
        try:
            authority.ending.ends.tidy()
            await look_once(ledger, authority)
        except HpchubError as error:
            if not failed:  # every five seconds would be a flood
                _log.error("lookout.failed reason=%s", error.message)
            failed = True
        else:
            failed = False


async def look_once(ledger: Ledger, authority: Authority) -> None:
    """Ask the proof about accounts with a login that nobody asked about for long; end those of locked ones.

    Raises:
        SiteError, RemoteError: It cannot be told of some of them; the others were asked about.
    """
    failed: HpchubError | None = None
    for account in sorted({grant.account for grant in ledger.grants(int(time.time()))}):
        try:
            if problem := await authority.accounts.overdue_problem(account):
                await authority.ending.lock(account, problem)
        except HpchubError as error:
            failed = error
    if failed is not None:
        raise failed
