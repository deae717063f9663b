"""The crowd: `python -m bench.crowd`. bench/README.md says how to read what it prints."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.crowd import real, tables
from bench.crowd.hub_side import HubSide, hub_side
from bench.crowd.meter import Span, pss_mib
from bench.crowd.noop_hub import PASSWORD, NoopHub, noop_hub, postgres
from bench.crowd.people import People
from bench.crowd.processes import Probe, allow_many_files
from bench.crowd.scenarios import Crowd, Size, lecture
from bench.report import Report, machine

SECTIONS = ("crowd", "noop", "real")
_LOGINS = 100
_FULL = 4000

Say = Callable[[str], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; the exit code."""
    options = _parser().parse_args(arguments)
    if os.geteuid() != 0:
        print("The bench needs root, as the demo does: run it with sudo.", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    allow_many_files()
    full = options.servers >= _FULL
    size = Size(
        servers=options.servers,
        hold_s=options.hold or (600.0 if full else 60.0),
        window_s=120.0 if full else 30.0,
    )
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True)

    report = Report()
    report.numbers["machine"] = machine()
    try:
        if "crowd" in options.only:
            say(f"booting the hub before {options.simulators} simulated clusters, attach {options.attach}")
            with hub_side(options.attach, options.simulators, nodes=2) as side:
                report.numbers["crowd"] = asyncio.run(_crowd(side, size, say))
        if "noop" in options.only:
            report.numbers["noop"] = _noop(size, say)
        if "real" in options.only:
            say("booting a demo cluster")
            report.numbers["real"] = real.measure(options.real, size.window_s, say)
    except KeyboardInterrupt:
        say("Interrupted: all is gone, nothing was written.")
        return 130
    tables.fill(report, size, options.attach)
    page, place = report.write(time.monotonic() - began, "A crowd, bench", "-crowd")
    print(f"\n{page}\nWritten to {place} and .json")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.crowd", description="hpchub under a crowd.")
    parser.add_argument("--servers", type=int, default=_FULL, help="the most servers (default: %(default)s)")
    parser.add_argument("--hold", type=float, help="seconds to hold them (default: 600 where all, else 60)")
    parser.add_argument("--attach", choices=("srun", "tcp"), default="srun", help="the way into a job")
    parser.add_argument("--simulators", type=int, default=2, help="simulated clusters, a process each")
    parser.add_argument("--real", type=int, default=8, help="servers on the demo cluster (default: 8)")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    return parser


async def _crowd(side: HubSide, size: Size, say: Say) -> dict[str, Any]:
    side.let_log_in([f"l{number:05d}" for number in range(_LOGINS)], PASSWORD)
    async with People(side.url, side.token) as people:
        found: dict[str, Any] = {"logins_per_s": await _log_in(people, say)}
        crowd = Crowd(side, people, size, say)
        found["arrive"] = await crowd.arrive()
        found["lecture"] = await crowd.lecture()
        found["steady"] = await crowd.steady()
        found["hold"] = await crowd.hold()
    return found


async def _log_in(people: People, say: Say) -> float:
    names = [f"l{number:05d}" for number in range(_LOGINS)]
    rate = await people.log_in(names, PASSWORD, in_flight=20)
    say(f"  {rate:.0f} logins/s")
    return rate


def _noop(size: Size, say: Say) -> dict[str, Any]:
    found: dict[str, Any] = {}
    say("JupyterHub alone, with a no-op spawner, on SQLite")
    with noop_hub() as hub:
        found["sqlite"] = asyncio.run(_noop_crowd(hub, size, say))
    with postgres() as database:
        if not database:
            say("No PostgreSQL, or no psycopg for the hub to speak to it with: left out.")
            return found
        say("the same on PostgreSQL")
        with noop_hub(database) as hub:
            found["postgresql"] = asyncio.run(_noop_crowd(hub, size, say))
    return found


async def _noop_crowd(hub: NoopHub, size: Size, say: Say) -> dict[str, Any]:
    names = [f"u{number:05d}" for number in range(size.burst)]
    async with People(hub.url, hub.token) as people:
        logins = await _log_in(people, say)
        at_rest = pss_mib(hub.pids["jupyterhub"])
        await people.create(names)
        probe = Probe.begin(f"{hub.url}/hub/api/users/{names[0]}", hub.token, hub.folder)
        found = await lecture(people, names, lambda _name: {}, probe, hub.pids)
        span = Span.begin(hub.pids)
        await asyncio.sleep(size.window_s)
        found |= {
            "logins_per_s": logins,
            "cpu_percent_idle": span.percent()["jupyterhub"],
            "kb_per_server": (pss_mib(hub.pids["jupyterhub"]) - at_rest) * 1024 / size.burst,
        }
    say(f"  {found['up']} up after {found['all_up_s']:.0f} s")
    return found
