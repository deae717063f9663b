"""The whole bench: `python -m bench`. About ten minutes, most of it on a demo cluster of its own.

python -m bench [--pairs 10] [--only certificates magics compute login path memory sbatch cards kernels]
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from bench import certificates, memory, notebook, path, rival, starts
from bench.private_demo import Demo, private_demo
from bench.report import Report, machine, milliseconds, spread
from bench.web import Hub, Place

ALONE = ("certificates", "magics")  # these need no cluster
SECTIONS = (*ALONE, "compute", "login", "path", "memory", "sbatch", "cards", "kernels")
_STATES = (
    "Ours is *just logged in*: no SSH connection is open, so certificate and connection count in full (a "
    "person who has opened the form has the latter already). *Connection open* is a second server. Both "
    "sides are asked in turn, after one warm-up each, and timed the same way: from POST to the hub's own "
    "answer that the server is ready. A ratio below 1 means that ours is quicker."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measures hpchub against its rivals."
    )
    parser.add_argument("--pairs", type=int, default=10, help="starts of each side (default: 10)")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    options = parser.parse_args(arguments)
    if os.geteuid() != 0:
        print("The bench needs root, as the demo does: run it with sudo.", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True)

    report = Report()
    report.numbers["machine"] = machine()
    try:
        if "certificates" in options.only:  # with nobody beside it
            say("certificates, against ssh-keygen")
            _certificates(report, say)
        if "magics" in options.only:
            notebook.tables(report, say)
        if not set(options.only) <= set(ALONE):
            if {"compute", "login"} & set(options.only):
                rival.install()
            say("booting a demo cluster")
            with private_demo() as demo:
                _measure(demo, options.pairs, options.only, report, say)
    except KeyboardInterrupt:
        say("Interrupted: the demo is gone, nothing was written.")
        return 130
    page, place = report.write(time.monotonic() - began)
    print(f"\n{page}\nWritten to {place} and .json")
    return 0


def _measure(
    demo: Demo, count: int, wanted: Sequence[str], report: Report, say: Callable[[str], None]
) -> None:
    hub = Hub(Place(port=demo.port), demo.info["admin_api_token"])
    ours = starts.Ours(demo, hub)
    try:
        if "memory" in wanted:  # first, while the bridge has done nothing yet
            say("memory")
            _memory(demo, hub, report, say)
        if "compute" in wanted or "login" in wanted:
            rival.lay_out(demo, rival.install())
        if "compute" in wanted:
            say("a compute node, against batchspawner inside the cluster")
            _starts(ours, "compute", starts.COMPUTE, rival.BATCHSPAWNER, 8100, count, report, say)
        if "login" in wanted:
            say("a login node, against LocalProcessSpawner on it")
            half = (count + 1) // 2
            _starts(ours, "login", starts.LOGIN, rival.LOCAL_PROCESS, 8200, half, report, say)
        if "path" in wanted:
            say("the data path, against ssh -L")
            _path(demo, hub, report, say)
        _notebooks(demo, count, wanted, report, say)
    except Exception:
        for name in ("bridge", "jupyterhub"):
            text = (demo.folder / "logs" / f"{name}.log").read_text(encoding="utf-8", errors="replace")
            print(f"--- {name}.log ends:\n" + "\n".join(text.splitlines()[-25:]), file=sys.stderr)
        raise


def _notebooks(
    demo: Demo, count: int, wanted: Sequence[str], report: Report, say: Callable[[str], None]
) -> None:
    if "sbatch" in wanted:
        say("%%sbatch, against sbatch")
        notebook.submitting(demo, report)
    if "cards" in wanted:
        say("fifty live cards")
        notebook.cards(demo, report)
    if "kernels" in wanted:
        say("a kernel on a compute node, against srun")
        notebook.compute_kernels(demo, count, report)


def _starts(
    ours: starts.Ours,
    kind: str,
    options: Mapping[str, object],
    spawner: str,
    port: int,
    count: int,
    report: Report,
    say: Callable[[str], None],
) -> None:
    with rival.rival_hub(ours.demo, spawner, port, starts.USER) as their_hub:
        cold, theirs, warm = starts.in_turn(
            ours.demo,
            lambda just_logged_in: ours.once(options, cold=just_logged_in),
            lambda: starts.theirs_once(their_hub),
            count,
            say,
        )
    mint = starts.certificate_seconds(ours.demo)
    ratios = starts.ratios(cold.seconds, theirs.seconds)
    where = {"compute": "a compute node", "login": "a login node"}[kind]
    name = {"compute": "batchspawner 1.3.0, inside", "login": "LocalProcessSpawner, on that node"}[kind]
    head = ("", "median", "min", "max")
    rows = [
        ["hpchub, just logged in (s)", *spread(cold.seconds, 2)],
        [f"{name} (s)", *spread(theirs.seconds, 2)],
        ["**ratio, pair by pair**", *spread(ratios, 2)],
        ["hpchub, connection open (s)", *spread(warm.seconds, 2)],
    ]
    report.add(f"POST to ready on {where}", _STATES, head, rows)
    cold_phases, warm_phases = cold.phase_medians(), warm.phase_medians()
    report.add(
        f"Where it goes on {where} (ms, medians)",
        f"Minting one certificate takes {1000 * statistics.median(mint):.0f} ms; a first start on a login "
        "node mints one more than the login did, within *attach*. *begun* ends when the "
        "bridge takes the server on: until then the hub asks for the person's limits, which is when the "
        "bridge connects.",
        ("", *cold_phases),
        [["just logged in", *milliseconds(cold_phases)], ["connection open", *milliseconds(warm_phases)]],
    )
    report.numbers[kind] = {
        "hpchub_s": cold.seconds,
        "rival": name,
        "rival_s": theirs.seconds,
        "ratios": ratios,
        "hpchub_connection_open_s": warm.seconds,
        "phases": cold.phases,
        "phases_connection_open": warm.phases,
        "certificate_s": mint,
    }


def _path(demo: Demo, hub: Hub, report: Report, say: Callable[[str], None]) -> None:
    found = path.measure(demo, hub, 5, say)
    head = ("", "median", "min", "max")
    rows: list[list[str]] = []
    for unit, by_way in (("MB/s", found.megabytes_per_s), ("round trips/s", found.trips_per_s)):
        ours = by_way["hpchub"]
        for name, values in by_way.items():
            rows.append([f"{name} ({unit})", *spread(values, 0)])
            if name != "hpchub":
                rows.append([f"**ratio to {name}** ({unit})", *spread(starts.ratios(ours, values), 2)])
    report.add(
        "The data path to a compute node",
        f"The same client, server and hops: bytes are a file of {path.BIG_BYTES // 2**20} MiB; a round trip "
        "is a line to `cat` in a Jupyter terminal. Ours goes through the proxy and the bridge, `ssh -L` "
        "through neither. A ratio above 1 means that ours is quicker.",
        head,
        rows,
    )
    report.numbers["path"] = {"megabytes_per_s": found.megabytes_per_s, "trips_per_s": found.trips_per_s}


def _certificates(report: Report, say: Callable[[str], None]) -> None:
    found = certificates.measure(say)
    rows = [[what, f"{speed.per_s:.0f}", f"{speed.per_core:.0f}"] for what, speed in found.speeds.items()]
    times = certificates.times_as_quick(found)
    rows.append(["**the last, as a multiple of the first**", "", f"{times:.1f}"])
    report.add(
        "Certificates",
        "ed25519 throughout. The whole signer is the real process behind its socket: grant, ledger, decoding "
        "and comparing, and the audit record on the disk included. A second of one core is the signer's own "
        "processor time, for ssh-keygen its processes'.",
        ("", "a second", "a second of one core"),
        rows,
    )
    report.add(
        f"Login to certificate, at {certificates.LOGINS_PER_S} logins a second",
        "From the password to the certificate, two calls over the socket. The password's own hash is a cheap "
        "one: argon2id takes 50 ms of a core, wherever it is computed.",
        ("", "ms"),
        [[name, f"{found.latency_ms(share):.1f}"] for name, share in (("p50", 0.5), ("p99", 0.99))],
    )
    report.numbers["certificates"] = {
        "speeds": {what: asdict(speed) for what, speed in found.speeds.items()},
        "times_as_quick": times,
        "login_to_certificate_s": found.login_s,
    }


def _memory(demo: Demo, hub: Hub, report: Report, say: Callable[[str], None]) -> None:
    found = memory.measure(demo, hub, say)
    report.add(
        "Memory",
        "PSS of the two processes; what is per server or per connection is the bridge's, averaged.",
        ("", "MiB"),
        [[name, f"{size:.2f}"] for name, size in found.items()],
    )
    report.numbers["memory_mib"] = found
