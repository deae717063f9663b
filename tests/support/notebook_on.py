"""A notebook on one of the demo's hosts: cells that run, are interrupted, and go on while things fail."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.demo import Demo
from support.inside import host_of

_LIMIT_S = 40.0


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell that has ended: all that it showed, the name of what it raised, and how long it took."""

    text: str
    error: str
    took_s: float


class Notebook:
    """Speaks to support/notebook_driver.py."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def begin(self, code: str) -> int:
        """Start a cell."""
        number: int = self._ask({"run": code})
        return number

    def end(self, number: int) -> Cell:
        """Wait for a cell's end."""
        return Cell(**self._ask({"end": number}))

    def run(self, code: str) -> Cell:
        """A cell, from its beginning to its end."""
        return self.end(self.begin(code))

    def well(self, code: str) -> str:
        """What a cell shows that must not fail."""
        cell = self.run(code)
        assert not cell.error, cell.text
        return cell.text

    def interrupt(self) -> None:
        """Press the stop button."""
        self._ask({"interrupt": 0})

    def pages(self) -> list[str]:
        """What stands in each output that can be changed later: cards and bars, oldest first.

        Buttons have no text.
        """
        shown: Mapping[str, str] = self._ask({"pages": 0})
        return [page for page in shown.values() if page]

    def until_shown(self, words: str, *, cards: str = "", count: int = 1) -> list[str]:
        """Wait until so many outputs that begin with `cards` have these words; all of these outputs."""
        deadline = time.monotonic() + _LIMIT_S
        while True:
            pages = [page for page in self.pages() if page.startswith(cards)]
            if sum(words in page for page in pages) >= count:
                return pages
            assert time.monotonic() < deadline, f"no {words!r} in {pages[:3]}"
            time.sleep(0.1)

    def _ask(self, what: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(what)}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the notebook's driver has ended"
        return json.loads(answer)


@contextmanager
def notebook_on(demo: Demo, host: str, user: str, argv: Sequence[str], log: Path) -> Iterator[Notebook]:
    """A notebook on a host; `argv` begins with what sets its environment and ends with the driver."""
    entered = host_of(demo, host).enter(tuple(argv), user)
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            entered, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            yield Notebook(process)
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)
        finally:
            process.kill()
