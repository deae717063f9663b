"""What the doctor found: one line for each check, or all of it as JSON."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from enum import StrEnum

from hpchub.errors import HpchubError
from hpchub.logs import printable


class Verdict(StrEnum):
    """`missing` is what hpchub works without, and the strict level asks for; `note` is no finding at all."""

    OK = "ok"
    MISSING = "missing"
    FAILED = "failed"
    NOTE = "note"


_WIDTH = max(map(len, Verdict))


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, what was found, and what to do, where there is something."""

    verdict: Verdict
    what: str
    found: str
    write: str = ""


class Report:
    """Says each check as it ends, and keeps them all."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.findings: list[Finding] = []
        self._say = say

    @property
    def failed(self) -> int:
        """How many checks failed."""
        return self._count(Verdict.FAILED)

    @property
    def missing(self) -> int:
        """How many things the strict level asks for are not there."""
        return self._count(Verdict.MISSING)

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
        self.add(Finding(Verdict.OK, what, found))

    def bad(self, what: str, error: HpchubError) -> None:
        """The message says what is wrong, and the hint what to do."""
        self.add(Finding(Verdict.FAILED, what, error.message, error.hint))

    def lacking(self, what: str, found: str, write: str) -> None:
        """hpchub works without it; the strict level does not."""
        self.add(Finding(Verdict.MISSING, what, found, write))

    def note(self, what: str, found: str) -> None:
        """Worth knowing, and no failure: hpchub works all the same, or it was not tried."""
        self.add(Finding(Verdict.NOTE, what, found))

    def add(self, finding: Finding) -> None:
        """Keep it and say it."""
        self.findings.append(finding)
        # Much of it comes from the cluster: it may neither end the line nor draw on the terminal.
        told = f"{finding.found} {finding.write}"
        self._say(printable(f"{finding.verdict:{_WIDTH}}  {finding.what}: {' '.join(told.split())}"))

    def as_json(self) -> str:
        """All of it; what comes from the cluster is escaped."""
        checks = [asdict(finding) for finding in self.findings]
        return json.dumps({"failed": self.failed, "missing": self.missing, "checks": checks}, indent=2)

    def summary(self) -> str:
        """The last line for people."""
        failed = f"{self.failed} failed." if self.failed else "All is well."
        return f"{failed} {self.missing} missing for the strict level." if self.missing else failed

    def _count(self, verdict: Verdict) -> int:
        return sum(finding.verdict is verdict for finding in self.findings)
