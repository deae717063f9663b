"""Where the time of one %squeue goes: magics_where.py JOBS FOLDER. Prints milliseconds by part as JSON."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.magics import MARK
from slurm_magics import cells, gathered, session
from slurm_magics.frames import Columns
from slurm_magics.machine import Local
from slurm_magics.settings import Settings

ROUNDS = 9
_CUT, _ASK = "the places of all cells", "squeue and its pipe"
_GROUPS = {
    gathered.Ids: "job ids and their parts",
    gathered.Strings: "names and node lists",
    gathered.Words: "categories",
    gathered.Digits: "durations, times, counts and sizes",
}


def main() -> dict[str, float]:
    """The median of some rounds; what is in no part is the rest."""
    count, folder = int(sys.argv[1]), Path(sys.argv[2])
    vars(session)["new_mark"] = lambda: MARK  # the file has it already
    spent: dict[str, float] = defaultdict(float)
    within: list[str] = []
    for kind, group in _GROUPS.items():
        _time(spent, within, kind, "add", lambda *_, group=group: group)
    _time(spent, within, Columns, "_finished", lambda _self, _heading, column: _GROUPS[type(column)])
    _time(spent, within, cells, "cut", lambda *_: _CUT)
    _time(spent, within, Local, "run", lambda *_: _ASK)
    os.environ["BENCH_ANSWER"] = str(folder / f"all-{count}")
    asked = session.Session(Local(), Settings())
    rounds = []
    for _ in range(ROUNDS):
        asked.forget()
        spent.clear()
        began = time.perf_counter()
        asked.table("squeue", ())
        spent["the rest"] = time.perf_counter() - began - sum(spent.values())
        rounds.append(dict(spent))
    return {part: 1000 * statistics.median(one[part] for one in rounds) for part in rounds[0]}


def _time(
    spent: dict[str, float], within: list[str], owner: Any, name: str, part: Callable[..., str]
) -> None:
    """What is called within a part is of that part; only rows are read while squeue still prints others."""
    whole = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        if within not in ([], [_ASK]):
            return whole(*args, **kwargs)
        within.append(part(*args))
        before, began = sum(spent.values()), time.perf_counter()
        found = whole(*args, **kwargs)
        took = time.perf_counter() - began
        spent[within.pop()] += took - (sum(spent.values()) - before)
        return found

    setattr(owner, name, timed)


if __name__ == "__main__":
    print(json.dumps(main()))
