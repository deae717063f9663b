"""`hpchub sessions`: who is logged in, with which factor, until when, and what they hold."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpchub.bridge.client import BridgeClient
from hpchub.bridge.settings import load_settings
from hpchub.core.slugs import caseless
from hpchub.signer.client import SignerClient
from hpchub.tables import table

DEFAULT_CONFIG = Path("/etc/hpchub/bridge.toml")


def configure(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help=f"default: {DEFAULT_CONFIG}")
    parser.add_argument("--user", help="of this user only")
    parser.add_argument("--json", action="store_true", help="for programs: one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the tables. ProcessAway where signer or bridge does not answer."""
    settings = load_settings(args.config)
    found = asyncio.run(_ask(SignerClient(settings.signer_socket), BridgeClient(settings.socket)))
    if args.user:
        found = {
            "sessions": [one for one in found["sessions"] if caseless(one["user"]) == caseless(args.user)],
            "revoked": {user: at for user, at in found["revoked"].items() if user == caseless(args.user)},
        }
    print(json.dumps(found) if args.json else render(found, shutil.get_terminal_size().columns))
    return 0


async def _ask(signer: SignerClient, bridge: BridgeClient) -> dict[str, Any]:
    logins, revoked = await signer.sessions()
    connections, _ = await bridge.connections()
    servers = await bridge.servers()
    open_by = Counter(one.user for one in connections)
    servers_by = Counter(one.user for one in servers)
    return joined(logins, revoked, open_by, servers_by)


def joined(
    logins: Sequence[Mapping[str, Any]],
    revoked: Mapping[str, int],
    connections: Mapping[str, int],
    servers: Mapping[str, int],
) -> dict[str, Any]:
    """One row for each login, and one for whoever has connections or servers without one. Unix seconds."""
    rows = [
        {
            "user": one["account"], "factor": one["factor"], "source": one["source"], "since": one["issued"],
            "until": one["ceiling"], "key": one["fingerprint"], "certificates": one["certificates"],
            "connections": connections.get(one["account"], 0), "servers": servers.get(one["account"], 0),
        }
        for one in logins
    ]  # fmt: skip
    without = sorted({*connections, *servers} - {row["user"] for row in rows})
    rows += [
        {
            "user": user, "factor": "", "source": "", "since": None, "until": None, "key": "",
            "certificates": [], "connections": connections.get(user, 0), "servers": servers.get(user, 0),
        }
        for user in without
    ]  # fmt: skip
    return {
        "sessions": sorted(rows, key=lambda row: (row["user"], row["since"] or 0)),
        "revoked": dict(revoked),
    }


def render(found: Mapping[str, Any], width: int) -> str:
    """Tables under each other, no line wider than `width`. OPEN and SERVERS count all of a user's."""
    rows = [
        (
            row["user"], row["factor"] or "-", row["source"] or "-", _time(row["since"]), _time(row["until"]),
            str(row["connections"]), str(row["servers"]),
        )
        for row in found["sessions"]
    ]  # fmt: skip
    head = ("USER", "FACTOR", "FROM", "SINCE", "UNTIL", "OPEN", "SERVERS")
    blocked = [(user, _time(at)) for user, at in sorted(found["revoked"].items())]
    lines = [
        f"Logins: {sum(row['since'] is not None for row in found['sessions'])}",
        *table(head, rows, width),
    ]
    made = [
        (row["user"], one["profile"], one["serial"], _time(one["valid_before"]))
        for row in found["sessions"]
        for one in row["certificates"]
    ]
    lines += ["", f"Certificates that are valid: {len(made)}"]
    lines += table(("USER", "PROFILE", "SERIAL", "UNTIL"), made, width)
    if blocked:
        lines += ["", f"Revoked users: {len(blocked)}", *table(("USER", "SINCE"), blocked, width)]
    return "\n".join(lines)


def _time(at: int | None) -> str:
    return "-" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%MZ")
