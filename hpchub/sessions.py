"""`hpchub sessions`: who is logged in, with which factor, until when, and what they hold."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from hpchub.bridge.client import BridgeClient
from hpchub.core.slugs import caseless
from hpchub.signer.answers import Holdings
from hpchub.signer.client import SignerClient
from hpchub.staff_config import configure_config, find_processes
from hpchub.tables import table

_NO_BRIDGE = "Open connections and servers are the bridge's to tell: hpchub status, on the hub's machine."


def configure(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    configure_config(parser)
    parser.add_argument("--user", help="of this user only")
    parser.add_argument("--json", action="store_true", help="for programs: one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the tables. ProcessAway where signer or bridge does not answer."""
    processes = find_processes(args.config)
    found = asyncio.run(_ask(processes.signer, processes.bridge))
    if args.user:
        found = _only(args.user, found)
    if args.json:
        print(json.dumps(found))
        return 0
    print(render(found, shutil.get_terminal_size().columns))
    if processes.bridge is None:
        print(f"\n{_NO_BRIDGE}")
    return 0


async def _ask(signer: SignerClient, bridge: BridgeClient | None) -> dict[str, Any]:
    holdings = await signer.sessions()
    if bridge is None:
        return joined(holdings, None, None)
    connections, _ = await bridge.connections()
    servers = await bridge.servers()
    return joined(holdings, Counter(one.user for one in connections), Counter(one.user for one in servers))


def joined(
    holdings: Holdings, connections: Mapping[str, int] | None, servers: Mapping[str, int] | None
) -> dict[str, Any]:
    """One row for each login, and one for whoever has connections or servers without one. Unix seconds.

    None where there is no bridge to ask: nobody's are known then.
    """

    def counts(user: str) -> dict[str, int | None]:
        return {
            "connections": None if connections is None else connections.get(user, 0),
            "servers": None if servers is None else servers.get(user, 0),
        }

    rows = [
        {
            "user": one["account"], "factor": one["factor"], "source": one["source"], "since": one["issued"],
            "until": one["ceiling"], "key": one["fingerprint"], "certificates": one["certificates"],
            **counts(one["account"]),
        }
        for one in holdings.logins
    ]  # fmt: skip
    without = {*(connections or {}), *(servers or {})} - {row["user"] for row in rows}
    rows += [
        {
            "user": user, "factor": "", "source": "", "since": None, "until": None, "key": "",
            "certificates": [], **counts(user),
        }
        for user in without
    ]  # fmt: skip
    return {
        "sessions": sorted(rows, key=lambda row: (row["user"], row["since"] or 0)),
        "service_accounts": [
            {"user": one["account"], **{name: one[name] for name in ("profile", "serial", "valid_before")}}
            for one in holdings.queries
        ],
        "revoked": dict(holdings.revoked),
    }


def _only(user: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Those of one user."""
    of_user = caseless(user)
    return {
        "sessions": [one for one in found["sessions"] if caseless(one["user"]) == of_user],
        "service_accounts": [one for one in found["service_accounts"] if caseless(one["user"]) == of_user],
        "revoked": {name: at for name, at in found["revoked"].items() if name == of_user},
    }


def render(found: Mapping[str, Any], width: int) -> str:
    """Tables under each other, no line wider than `width`. OPEN and SERVERS count all of a user's."""
    rows = [
        (
            row["user"], row["factor"] or "-", row["source"] or "-", _time(row["since"]), _time(row["until"]),
            _count(row["connections"]), _count(row["servers"]),
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
        (one["user"], one["profile"], one["serial"], _time(one["valid_before"]))
        for one in (
            *({"user": row["user"], **made} for row in found["sessions"] for made in row["certificates"]),
            *found["service_accounts"],
        )
    ]
    lines += ["", f"Certificates that are valid: {len(made)}"]
    lines += table(("USER", "PROFILE", "SERIAL", "UNTIL"), made, width)
    if blocked:
        lines += ["", f"Revoked users: {len(blocked)}", *table(("USER", "SINCE"), blocked, width)]
    return "\n".join(lines)


def _count(number: int | None) -> str:
    return "-" if number is None else str(number)


def _time(at: int | None) -> str:
    return "-" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%MZ")
