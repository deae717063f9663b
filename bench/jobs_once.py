"""On a login node, as a person: jobs_once.py sbatch|cards. Prints what it measured as JSON on the last line.

sbatch  the seconds of `%%sbatch` in IPython, and of `sbatch` started by the same process, in turn
cards   fifty live cards in a kernel of ipykernel's: Slurm's commands, and processor time
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SUBMISSIONS, CARDS, MEASURED_S, SETTLE_S, NAIVE_ROUNDS = 20, 50, 40.0, 4.0, 3
_SCRIPT = "#!/bin/bash\ntrue\n"
_COMMANDS = ("squeue", "sacct", "scontrol")
_COUNTED = '#!/bin/sh\necho {name} >> {calls}\nexec /usr/bin/{name} "$@"\n'

_SUBMIT = f"""
import os
%load_ext slurm_magics
shell = get_ipython()
options = "-t 10 --mem=100M -o {HERE}/%j.txt"
jobs = [shell.run_cell_magic("sbatch", options, "while sleep 1; do date; done") for _ in range({CARDS})]
"""
_SHOW = "from IPython.display import display\nfor job in jobs: display(job)"
_CANCEL = "for job in jobs: job.cancel()"


def sbatch() -> dict[str, list[float]]:
    """Held jobs, so that the cluster has nothing else to do."""
    from IPython.core.interactiveshell import InteractiveShell

    shell: Any = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "slurm_magics")
    found: dict[str, list[float]] = {"magic": [], "plain": []}
    for number in range(SUBMISSIONS + 1):
        began = time.perf_counter()
        job: Any = shell.run_cell_magic("sbatch", "--hold -t 5", _SCRIPT)
        middle = time.perf_counter()
        argv = ("sbatch", "--parsable", "--hold", "-t", "5")
        plain = subprocess.run(argv, input=_SCRIPT, capture_output=True, text=True, check=True).stdout
        ended = time.perf_counter()
        subprocess.run(("scancel", job.id, plain.strip()), check=True)
        if number:  # the first warms the caches
            found["magic"].append(middle - began)
            found["plain"].append(ended - middle)
    return found


def cards() -> dict[str, float]:
    """A minute's commands and processor time from a shorter while; and those of one squeue for each job."""
    from jupyter_client.manager import start_new_kernel

    calls = HERE / "calls"
    calls.touch()
    _count_commands(calls)
    manager, client = start_new_kernel(kernel_name="python3")
    pid = int(getattr(manager.provisioner, "pid", 0))
    try:
        _run(client, _SUBMIT)
        _run(client, _SHOW)
        time.sleep(SETTLE_S)
        calls.write_text("")
        before, own_before, began = _cpu_s(pid), _own_cpu_s(pid), time.monotonic()
        time.sleep(MEASURED_S)
        took = time.monotonic() - began
        own, everything = _own_cpu_s(pid) - own_before, _cpu_s(pid) - before
        counts = Counter(calls.read_text().split())
        ids = subprocess.run(
            ("/usr/bin/squeue", "--me", "-h", "-o", "%i"), capture_output=True, text=True, check=True
        )
        naive = _naive(ids.stdout.split())
    finally:
        _run(client, _CANCEL)
        client.stop_channels()
        manager.shutdown_kernel()
    minute = 60 / took
    return {
        **{f"{name} a minute": counts[name] * minute for name in _COMMANDS},
        "kernel_cpu_s": own * minute,
        "commands_cpu_s": (everything - own) * minute,
        **naive,
    }


def _naive(ids: list[str]) -> dict[str, float]:
    """One `squeue -j` for each job: seconds and processor seconds of asking about all of them once."""
    used, began = os.times(), time.monotonic()
    for _ in range(NAIVE_ROUNDS):
        for job_id in ids:
            subprocess.run(("/usr/bin/squeue", "-h", "-j", job_id), capture_output=True, check=False)
    took, after = time.monotonic() - began, os.times()
    spent = sum(after[:4]) - sum(used[:4])
    return {
        "cards": len(ids),
        "naive_round_s": took / NAIVE_ROUNDS,
        "naive_round_cpu_s": spent / NAIVE_ROUNDS,
    }


def _count_commands(calls: Path) -> None:
    """From now on Slurm's questions are written down."""
    folder = HERE / "bin"
    folder.mkdir()
    for name in _COMMANDS:
        (folder / name).write_text(_COUNTED.format(name=name, calls=calls))
        (folder / name).chmod(0o755)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


def _run(client: Any, code: str) -> None:
    reply = client.execute_interactive(code, timeout=120, output_hook=lambda message: None)
    if reply["content"]["status"] != "ok":
        raise RuntimeError(f"{reply['content'].get('ename')}: {reply['content'].get('evalue')}")


def _own_cpu_s(pid: int) -> float:
    return sum(_stat(pid)[:2])


def _cpu_s(pid: int) -> float:
    """The kernel's own and that of the commands it has waited for."""
    return sum(_stat(pid))


def _stat(pid: int) -> list[float]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(field) / os.sysconf("SC_CLK_TCK") for field in fields[11:15]]


if __name__ == "__main__":
    print(json.dumps({"sbatch": sbatch, "cards": cards}[sys.argv[1]]()))
