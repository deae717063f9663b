"""The tables of a crowd's report: each figure beside what it should be, and beside JupyterHub alone."""

# ruff: noqa: E501  a row of a table is one line
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.crowd.scenarios import Size
from bench.report import Report

_HEAD = ("", "value", "aim")

Numbers = Mapping[str, Any]


def fill(report: Report, size: Size, attach: str) -> None:
    """One table for each scenario that was run."""
    found = report.numbers
    if "crowd" in found:
        _lecture(report, found["crowd"]["lecture"])
        _steady(report, found["crowd"]["steady"], attach)
        _hold(report, found["crowd"]["hold"], size)
    if "noop" in found:
        _share(report, found.get("crowd"), found["noop"])
    if "real" in found:
        _real(report, found["real"])


def _lecture(report: Report, one: Numbers) -> None:
    counts = one["counts"]
    rows = [
        ["all who came up", f"{one['up']} of {one['people']}", "all"],
        ["until all were up (s)", f"{one['all_up_s']:.0f}", ""],
        ["click to ready (s): p50, p95, p99", _three(one["start_s"], 1, 1), ""],
        ["the hub's answer meanwhile (ms): p50, p95, p99", _three(one["probe_s"], 1000, 0), ""],
        [
            "its longest (ms); unanswered",
            f"{1000 * one['probe_s']['max']:.0f}; {one['probe_unanswered']}",
            "",
        ],
        ["refused by MaxStartups", str(counts.get("refused by MaxStartups", 0)), "0"],
        ["most at a login node's door at once", str(counts.get("most startups", 0)), "below 10"],
        ["refused by MaxSessions", str(counts.get("refused by MaxSessions", 0)), "0"],
        [
            "SSH handshakes, and inside jobs",
            f"{counts['handshakes']}, {counts.get('inner handshakes', 0)}",
            "",
        ],
        ["commands that the simulator does not know", str(counts.get("unknown commands", 0)), "0"],
        *(
            [
                f"CPU of {name} (ms per start; share of a core)",
                f"{used:.0f}; {one['cpu_percent'][name]:.0f} %",
                "",
            ]
            for name, used in one["cpu_ms_per_start"].items()
        ),
        ["at the limit of one core, of the time", _limits(one["busy_percent"]), ""],
        ["all cores busy, of the time", f"{one['busy_percent']['machine']:.0f} %", ""],
    ]
    if one["failed"]:
        rows.append(
            ["why some failed", "; ".join(f"{n} x {why[:80]}" for why, n in one["failed"].items()), ""]
        )
    note = (
        f"{one['people']} people press start, 20 a second. The hub's answer is `GET /hub/api/users/NAME`, asked "
        "ten times a second by a process of its own. Simulators, people and all the hub's processes share the "
        "machine's cores."
    )
    report.add("A lecture begins", note, _HEAD, rows)


def _steady(report: Report, one: Numbers, attach: str) -> None:
    by_name = ", ".join(f"{name} {rate:.0f}" for name, rate in one["commands_per_min_by_name"].items())
    batchspawner = 2 * one["running"] + 120 * one["pending"]
    rows = [
        [
            "scheduler commands per minute, on each cluster",
            f"{one['commands_per_min']:.1f} ({by_name or 'none'})",
            "at most 12",
        ],
        ["batchspawner, by its code", f"{batchspawner}", ""],
        ["SSH handshakes meanwhile", str(one["handshakes"]), ""],
        ["CPU of the bridge (share of a core)", f"{one['cpu_percent']['bridge']:.1f} %", "under 10 %"],
        ["CPU of the hub", f"{one['cpu_percent']['jupyterhub']:.1f} %", "under 10 %"],
        ["CPU of all else", _shares(one["cpu_percent"], without=("bridge", "jupyterhub")), ""],
        ["bridge memory per server (kB, PSS)", f"{one['kb_per_server']['bridge']:.0f}", "under 150"],
        ["hub memory per server (kB)", f"{one['kb_per_server']['jupyterhub']:.0f}", ""],
        ["proxy memory per server (kB)", f"{one['kb_per_server']['proxy']:.0f}", ""],
        [f"to stop {one['stopped']} servers (s)", f"{one['stopped_s']:.0f}", ""],
    ]
    note = (
        f"{one['running']} servers run, {one['pending']} jobs wait, attach `{attach}`. Memory is against the "
        "processes at rest, so it holds each person's session, key and certificate, and what was left behind "
        "by the lecture."
    )
    report.add("Many run, some wait", note, _HEAD, rows)


def _hold(report: Report, one: Numbers, size: Size) -> None:
    hub, bridge = one["hub_restart"], one["bridge_restart"]
    sessions = "survived" if bridge["sessions_survived"] else "were lost; the bench logged everybody in again"
    rows = [
        ["servers up", f"{one['servers']} of {size.servers}", "all"],
        ["requests through the proxy; failed while calm", f"{one['requests_answered']}; {one['requests_failed_while_calm']}", "0"],
        ["CPU while calm", _shares(one["cpu_percent"]), ""],
        ["open files of bridge, hub, proxy", ", ".join(f"{one['open_files'][n]}" for n in ("bridge", "jupyterhub", "proxy")), ""],
        ["memory of bridge, hub, proxy (MiB)", ", ".join(f"{one['pss_mib'][n]:.0f}" for n in ("bridge", "jupyterhub", "proxy")), ""],
        ["bridge memory per server (kB, PSS)", f"{one['kb_per_server']['bridge']:.0f}", "under 150"],
        ["**hub killed:** answers again after (s)", f"{hub['answers_s']:.1f}", ""],
        ["knows its servers again after (s)", f"{hub['knows_all_s']:.1f} ({hub['known']})", ""],
        ["requests failed; WebSockets lost", f"{hub['requests_failed']}; {hub['websockets_lost']} of {hub['websockets']}", "0; 0"],
        ["**bridge killed:** answers again after (s)", f"{bridge['answers_s']:.1f}", ""],
        ["sessions", sessions, "survive"],
        ["a server is back after (s): p50, p95, p99", _three(bridge["back_s"], 1, 1), ""],
        ["all are back after (s)", f"{bridge['all_back_s']:.0f} ({bridge['back']})", "all"],
        ["WebSockets lost with it", f"{bridge['websockets_lost']} of {hub['websockets']}", ""],
        ["handshakes; refused by MaxStartups", f"{bridge['handshakes']}; {bridge['refused_by_max_startups']}", "; 0"],
        ["CPU until all are back (ms for each server)", ", ".join(f"{name} {used:.0f}" for name, used in bridge["cpu_ms_per_server"].items() if used >= 0.5), ""],
        ["at the limit of one core, of that time", _limits(bridge["busy_percent"]), ""],
        ["all cores busy, of that time", f"{bridge['busy_percent']['machine']:.0f} %", ""],
        ["ready in the hub at the end", str(one["ready_in_hub_at_the_end"]), ""],
        ["**servers lost**", str(one["lost"]), "0"],
    ]  # fmt: skip
    note = (
        f"Held for {size.hold_s:.0f} s. Each server is asked for a page once a minute and reports its own activity "
        "every five; hub and bridge are killed with SIGKILL and started again."
    )
    report.add("All at once, and restarts", note, _HEAD, rows)


def _share(report: Report, crowd: Numbers | None, noop: Mapping[str, Numbers]) -> None:
    columns: dict[str, dict[str, str]] = {}
    if crowd is not None:
        lecture, steady = crowd["lecture"], crowd["steady"]
        columns["hpchub, SQLite"] = _column(
            lecture,
            crowd["logins_per_s"],
            steady["kb_per_server"]["jupyterhub"],
            steady["cpu_percent"]["jupyterhub"],
        )
    for name, one in noop.items():
        title = {"sqlite": "JupyterHub alone, SQLite", "postgresql": "JupyterHub alone, PostgreSQL"}[name]
        columns[title] = _column(one, one["logins_per_s"], one["kb_per_server"], one["cpu_percent_idle"])
    names = next(iter(columns.values()))
    rows = [[name, *(column[name] for column in columns.values())] for name in names]
    note = (
        "JupyterHub alone has a dummy authenticator and a spawner that returns one shared server at once: what "
        "it takes is JupyterHub's own share. Our logins check an argon2 hash of 64 MiB each."
    )
    report.add("What is ours, and what is JupyterHub's", note, ("", *columns), rows)


def _column(lecture: Numbers, logins: float, memory: float, idle: float) -> dict[str, str]:
    return {
        "logins per second": f"{logins:.1f}",
        "people who pressed start, 20 a second": str(lecture["people"]),
        "starts per second, until all were up": f"{lecture['up'] / lecture['all_up_s']:.1f}",
        "click to ready (s): p50, p95, p99": _three(lecture["start_s"], 1, 1),
        "the hub's answer meanwhile (ms): p50, p95, p99": _three(lecture["probe_s"], 1000, 0),
        "CPU of the hub per start (ms)": f"{lecture['cpu_ms_per_start']['jupyterhub']:.0f}",
        "CPU of the hub afterwards": f"{idle:.1f} %",
        "hub memory per server (kB)": f"{memory:.0f}",
    }


def _real(report: Report, one: Numbers) -> None:
    rpcs = ", ".join(f"{name} {number}" for name, number in one["rpcs"].items()) or "none"
    rows = [
        ["click to ready (s): least, greatest", f"{one['start_s'][0]:.1f}, {one['start_s'][-1]:.1f}", ""],
        ["requests to slurmctld per minute", f"{one['commands_per_min']:.1f} ({rpcs})", ""],
        ["CPU of bridge and hub", f"{one['cpu_percent']['bridge']:.1f} %, {one['cpu_percent']['jupyterhub']:.1f} %", ""],
        ["CPU of the bridge per start (ms)", f"{one['cpu_ms_per_start']['bridge']:.0f}", ""],
        ["CPU of the hub per start (ms)", f"{one['cpu_ms_per_start']['jupyterhub']:.0f}", ""],
        ["bridge memory per server (kB, PSS)", f"{one['kb_per_server']['bridge']:.0f}", ""],
        ["hub memory per server (kB)", f"{one['kb_per_server']['jupyterhub']:.0f}", ""],
    ]  # fmt: skip
    note = (
        f"{one['servers']} servers of four people on the demo cluster: real Slurm, sshd and JupyterLab, which "
        "share the machine with the hub. Requests are slurmctld's own count (sdiag)."
    )
    report.add("The real thing, few", note, _HEAD, rows)


def _three(values: Numbers, factor: float, digits: int) -> str:
    return ", ".join(f"{factor * values[name]:.{digits}f}" for name in ("p50", "p95", "p99"))


def _shares(percent: Numbers, without: Sequence[str] = ()) -> str:
    return ", ".join(f"{name} {one:.1f} %" for name, one in percent.items() if name not in without)


def _limits(busy: Numbers) -> str:
    """Who was at the limit at all."""
    found = [f"{name} {one:.0f} %" for name, one in busy.items() if name != "machine" and one >= 0.5]
    return ", ".join(found) or "none"
