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
from slurm_magics import cells, columns, frames, session
from slurm_magics.machine import Local
from slurm_magics.settings import Settings
from slurm_magics.values import Kind

ROUNDS = 9
_IDS, _CUT, _ASK = "job ids and their parts", "the places of all cells", "squeue and its pipe"
_GROUPS = {
    Kind.TEXT: "names and node lists",
    Kind.WORD: "categories",
    Kind.COUNT: "counts and sizes",
    Kind.MEGABYTES: "counts and sizes",
    Kind.DURATION: "durations",
    Kind.MOMENT: "times",
}


def main() -> dict[str, float]:
    """The median of some rounds; what is in no part is the rest."""
    count, folder = int(sys.argv[1]), Path(sys.argv[2])
    vars(session)["new_mark"] = lambda: MARK  # the file has it already
    spent: dict[str, float] = defaultdict(float)
    _time(spent, frames, "_column", lambda heading, *_: _GROUPS[columns.SQUEUE.get(heading, Kind.TEXT)])
    _time(spent, frames, "_partitions", lambda *_: _GROUPS[Kind.WORD])
    _time(spent, frames, "_ids", lambda *_: _IDS)
    _time(spent, cells, "cut", lambda *_: _CUT)
    _time(spent, Local, "run", lambda *_: _ASK)
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


def _time(spent: dict[str, float], owner: Any, name: str, part: Callable[..., str]) -> None:
    whole = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        found = whole(*args, **kwargs)
        spent[part(*args)] += time.perf_counter() - began
        return found

    setattr(owner, name, timed)


if __name__ == "__main__":
    print(json.dumps(main()))
