"""`hpchub status`: what the bridge holds now, as a table for a terminal."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hpchub.bridge.client import BridgeClient
from hpchub.bridge.settings import load_settings
from hpchub.core.server import ConnectionView, ServerView
from hpchub.errors import RemoteError
from hpchub.tables import table

DEFAULT_CONFIG = Path("/etc/hpchub/bridge.toml")

_CLEAR = "\x1b[H\x1b[2J"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Everybody's servers, the connections to login nodes, and ids of servers whose tunnel is open."""

    servers: Sequence[ServerView]
    connections: Sequence[ConnectionView]
    tunnels: frozenset[str]


def configure(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help=f"default: {DEFAULT_CONFIG}")
    parser.add_argument("--json", action="store_true", help="for programs: one JSON object")
    parser.add_argument(
        "--watch", type=float, nargs="?", const=2.0, metavar="SECONDS", help="again and again; Ctrl-C ends it"
    )


def run(args: argparse.Namespace) -> int:
    """Print the table, once or until Ctrl-C. ProcessAway where no bridge answers."""
    client = BridgeClient(load_settings(args.config).socket)
    if args.watch is None:
        print(asyncio.run(_shown(client, as_json=args.json)))
        return 0
    try:
        asyncio.run(_watch(client, max(0.1, args.watch), as_json=args.json))
    except KeyboardInterrupt:
        print()
    return 0


async def _watch(client: BridgeClient, pause_s: float, *, as_json: bool) -> None:
    while True:
        try:
            shown = await _shown(client, as_json=as_json)
        except RemoteError as error:  # a bridge that restarts is worth waiting for
            shown = json.dumps({"error": error.message}) if as_json else str(error)
        clear = _CLEAR if sys.stdout.isatty() and not as_json else ""
        print(clear + shown, flush=True)
        await asyncio.sleep(pause_s)


async def _shown(client: BridgeClient, *, as_json: bool) -> str:
    servers = await client.servers()
    connections, tunnels = await client.connections()
    status = Status(servers=servers, connections=connections, tunnels=tunnels)
    if as_json:
        return render_json(status)
    return render_tables(status, time.time(), shutil.get_terminal_size().columns)


def render_json(status: Status) -> str:
    """One line: `servers`, each with `tunnel`, and `connections`."""
    rows = [{**one.as_dict(), "tunnel": one.id in status.tunnels} for one in status.servers]
    return json.dumps({"servers": rows, "connections": [asdict(one) for one in status.connections]})


def render_tables(status: Status, now: float, width: int) -> str:
    """Two tables under each other, no line wider than `width`. `now` is in Unix seconds."""
    servers = [
        (
            one.user, one.server_name or "-", one.cluster, one.placement, one.phase.value, one.job_id or "-",
            one.node or "-", "open" if one.id in status.tunnels else "-", _age(now - one.created_at),
        )
        for one in sorted(status.servers, key=lambda one: (one.cluster, one.user, one.server_name))
    ]  # fmt: skip
    connections = [
        (
            one.user, one.cluster, one.node, one.use, str(one.sessions), str(one.channels),
            _age(one.idle_s) if one.idle_s else "-",
        )
        for one in sorted(status.connections, key=lambda one: (one.cluster, one.user, one.node, one.use))
    ]  # fmt: skip
    ready = sum(one.phase == "ready" for one in status.servers)
    heads = (
        ("USER", "NAME", "CLUSTER", "PLACE", "PHASE", "JOB", "NODE", "TUNNEL", "AGE"),
        ("USER", "CLUSTER", "LOGIN NODE", "USE", "SESSIONS", "CHANNELS", "IDLE"),
    )
    return "\n".join(
        (
            f"Servers: {len(servers)}, ready: {ready}, tunnels open: {len(status.tunnels)}",
            *table(heads[0], servers, width),
            "",
            f"Connections to login nodes: {len(connections)}",
            *table(heads[1], connections, width),
        )
    )


def _age(seconds: float) -> str:
    """In two units at most: 45s, 12m, 3h07m, 4d02h."""
    minutes = int(seconds) // 60
    if minutes < 1:
        return f"{max(0, int(seconds))}s"
    if minutes < 60:
        return f"{minutes}m"
    if minutes < 24 * 60:
        return f"{minutes // 60}h{minutes % 60:02d}m"
    return f"{minutes // 1440}d{minutes % 1440 // 60:02d}h"
