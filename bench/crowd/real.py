"""The same measures on the demo cluster: real Slurm, real sshd, real JupyterLab, a few servers.

They say whether the simulated figures can be believed. Memory bounds the count: a JupyterLab takes 130 MiB.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.crowd.meter import Span, pss_mib
from bench.private_demo import Demo, private_demo
from bench.starts import COMPUTE
from bench.web import Hub, Place, log_in

_USERS = ("alice", "bob", "emil", "Hans.Peter-2_x")
_RPC = re.compile(r"^\s*(REQUEST_\w+)\s+\(\s*\d+\) count:(\d+)", re.MULTILINE)
# What squeue, sbatch, scancel and srun ask slurmctld for; the nodes' own registrations are not ours.
_OURS = ("JOB_INFO", "SUBMIT", "KILL_JOB", "CANCEL", "JOB_STEP_CREATE", "JOB_USER_INFO")


def measure(count: int, window_s: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Start `count` servers over four people, then watch them do nothing."""
    with private_demo() as demo:
        hub = Hub(Place(port=demo.port), demo.info["admin_api_token"])
        for user in _USERS:
            log_in(f"http://127.0.0.1:{demo.port}/", user, demo.info["users"][user])
        pids = {name: demo.pid(name) for name in ("jupyterhub", "bridge")}
        hub.start(_USERS[0], COMPUTE, "warm-up")
        before = {name: pss_mib(pid) for name, pid in pids.items()}
        servers = [(_USERS[number % len(_USERS)], f"n{number}") for number in range(count)]
        span = Span.begin(pids)
        with ThreadPoolExecutor(4) as pool:
            took = list(pool.map(lambda server: hub.start(server[0], COMPUTE, server[1]), servers))
        starting = {name: 1000 * used / count for name, used in span.used_s().items()}
        time.sleep(5)
        after = {name: pss_mib(pid) for name, pid in pids.items()}
        demo.run("ctl", ["sdiag", "--reset"])
        span = Span.begin(pids)
        time.sleep(window_s)
        minutes, percent = span.seconds / 60, span.percent()
        rpcs = _rpcs(demo)
        for user, name in [*servers, (_USERS[0], "warm-up")]:
            hub.stop(user, name)
    found = {
        "servers": count,
        "start_s": sorted(took),
        "cpu_ms_per_start": starting,
        "commands_per_min": sum(rpcs.values()) / minutes,
        "rpcs": rpcs,
        "cpu_percent": percent,
        "kb_per_server": {name: 1024 * (after[name] - before[name]) / count for name in pids},
    }
    say(f"  {count} real servers: {found['commands_per_min']:.1f} requests a minute to slurmctld")
    return found


def _rpcs(demo: Demo) -> dict[str, int]:
    """Requests to slurmctld since the last reset, by kind: those that commands of ours make."""
    found = {name: int(number) for name, number in _RPC.findall(demo.run("ctl", ["sdiag"]))}
    return {name: number for name, number in found.items() if any(part in name for part in _OURS)}
