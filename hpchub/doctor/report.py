"""What the doctor prints: one line for each check."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from hpchub.errors import HpchubError
from hpchub.logs import printable

_WIDTH = len("failed")


class Report:
    """Prints each check as it ends, and counts those that failed."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.failed = 0
        self._say = say

    async def check(self, what: str, work: Awaitable[str]) -> bool:
        """Wait for a check, which returns what it found; whether it went well.

        Only our own errors are a finding: any other is a fault of the doctor's.
        """
        try:
            found = await work
        except HpchubError as error:
            self.bad(what, error)
            return False
        self.good(what, found)
        return True

    def good(self, what: str, found: str) -> None:
        """Nothing to do."""
        self._line("ok", what, found)

    def bad(self, what: str, error: HpchubError) -> None:
        """The message says what is wrong, and the hint what to do."""
        self.failed += 1
        self._line("failed", what, str(error))

    def note(self, what: str, found: str) -> None:
        """Worth knowing, and no failure: hpchub works all the same, or it was not tried."""
        self._line("note", what, found)

    def _line(self, verdict: str, what: str, found: str) -> None:
        # Much of it comes from the cluster: it may neither end the line nor draw on the terminal.
        self._say(printable(f"{verdict:{_WIDTH}}  {what}: {' '.join(found.split())}"))
