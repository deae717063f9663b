"""One %squeue in a fresh process: magics_once.py all|same|theirs JOBS FOLDER. Prints its measures as JSON."""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from bench.magics import MARK, PLAIN_FORMAT


def main() -> dict[str, float]:
    """Seconds, of which on a processor (with squeue), megabytes held and at most, rows lost, columns."""
    way, count, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    warnings.simplefilter("ignore")
    shell: Any = InteractiveShell.instance()
    shell.extension_manager.load_extension("slurm_magic" if way == "theirs" else "slurm_magics")
    if way != "theirs":
        import slurm_magics.session

        vars(slurm_magics.session)["new_mark"] = lambda: MARK  # the file has it already
    line = f'-o "{PLAIN_FORMAT}"' if way == "same" else ""
    cell = f"frame = %squeue {line}"
    os.environ["BENCH_ANSWER"] = str(folder / f"{way}-10")
    shell.run_cell(cell).raise_error()  # what is imported late is no part of the frame
    if way != "theirs":
        shell.run_line_magic("slurm", "fresh 3")  # forgets that answer
    os.environ["BENCH_ANSWER"] = str(folder / f"{way}-{count}")
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: proc(5)
    before, began, cpu = _resident(), time.perf_counter(), _cpu_s()
    shell.run_cell(cell).raise_error()
    seconds, cpu_s = time.perf_counter() - began, _cpu_s() - cpu
    peak_mb = (_peak() - before) / 1e6
    gc.collect()
    held_mb = (_resident() - before) / 1e6
    frame = shell.user_ns["frame"]
    typed = sum(str(dtype) not in {"str", "object"} for dtype in frame.dtypes)
    lost, columns = count - len(frame), len(frame.columns)
    return {
        "seconds": seconds,
        "cpu_s": cpu_s,
        "held_mb": held_mb,
        "peak_mb": peak_mb,
        "lost": lost,
        "typed": typed,
        "columns": columns,
    }


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


def _cpu_s() -> float:
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    print(json.dumps(main()))
