"""`hpchub revoke`: take back what a user, a certificate or a key may do, and close what is open."""

from __future__ import annotations

import argparse
import asyncio
import os
import pwd
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpchub.bridge.client import BridgeClient
from hpchub.bridge.settings import load_settings
from hpchub.core.server import ServerView
from hpchub.core.slugs import caseless
from hpchub.errors import HpchubError, InvalidRequest
from hpchub.logs import printable
from hpchub.signer.client import SignerClient

DEFAULT_CONFIG = Path("/etc/hpchub/bridge.toml")

# Somebody is to be thrown out: jobs that do not end by then are left to the scheduler's own commands.
_STOP_LIMIT_S = 60.0


def configure(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "target", metavar="USER|SERIAL|KEY", help="or a key id, or a key's SHA256: fingerprint"
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help=f"default: {DEFAULT_CONFIG}")
    parser.add_argument("--undo", action="store_true", help="let a user log in again, or a key be used again")
    parser.add_argument("--reason", default="", metavar="TEXT", help="for the audit log")
    parser.add_argument(
        "--stop-servers", action="store_true", help="first end the user's servers and their jobs"
    )


def run(args: argparse.Namespace) -> int:
    """Revoke or undo. Exit code 1 where something that was asked for is not done."""
    settings = load_settings(args.config)
    signer = SignerClient(settings.signer_socket)
    if args.undo and args.stop_servers:
        raise InvalidRequest("--undo starts no server, and stops none.")
    if args.undo:
        asyncio.run(signer.undo_revocation(args.target, reason=args.reason, by=_who()))
        print(f"{printable(args.target)} is not revoked any more. What it held before stays ended.")
        return 0
    left: list[str] = []
    if args.stop_servers:
        left = asyncio.run(_stop_servers(BridgeClient(settings.socket), args.target))
    taken = asyncio.run(signer.revoke(args.target, reason=args.reason, by=_who()))
    print("\n".join(render(args.target, taken)))
    for line in left:
        print(f"NOT STOPPED {printable(line)}")
    return 1 if left or taken["krl_error"] else 0


def render(target: str, taken: dict[str, Any]) -> list[str]:
    """What was taken back, for a terminal."""
    whose = f" of {taken['account']}" if taken["account"] not in {"", target} else ""
    count = len(taken["serials"])
    held = f"{taken['logins']} logins{whose} have ended, {count} certificates were still valid."
    lines = [f"{printable(target)} is revoked: {held}"]
    if not taken["logins"]:
        lines.append("It held no login: is the name right?")
    else:
        lines.append("The bridge closes its connections within 5 seconds.")
    if taken["terminals"]:
        lines.append(
            f"{taken['terminals']} of them are on people's own machines: the list refuses them, and what "
            "they have opened on login nodes already stays open until it is ended there."
        )
    if taken["krl_error"]:
        lines.append(f"THE REVOCATION LIST IS OLD: {printable(taken['krl_error'])}")
    if count and (taken["krl_error"] or not taken["has_krl_file"]):
        until = datetime.fromtimestamp(taken["valid_before"], UTC).isoformat(sep=" ", timespec="seconds")
        lines.append(f"Login nodes without a new list accept these certificates until {until}.")
    return lines


async def _stop_servers(bridge: BridgeClient, user: str) -> list[str]:
    """End a user's servers while there is a session to do it with; what could not be ended, in words."""
    try:
        servers = [one for one in await bridge.servers() if caseless(one.user) == caseless(user)]
    except HpchubError as error:  # no reason not to revoke
        return [f"the servers of {user}: {error}"]
    return [line for line in await asyncio.gather(*(_stop(bridge, server) for server in servers)) if line]


async def _stop(bridge: BridgeClient, server: ServerView) -> str:
    what = (
        f"job {server.job_id} on {server.cluster}" if server.job_id else f"the server on {server.node or '?'}"
    )
    try:
        async with asyncio.timeout(_STOP_LIMIT_S):
            await bridge.stop(server.id)
    except HpchubError as error:
        return f"{what}: {error}"
    except TimeoutError:
        return f"{what}: it has not ended within {_STOP_LIMIT_S:.0f} s"
    print(f"stopped {what}")
    return ""


def _who() -> str:
    """Who asks, for the audit log: what sudo says is told beside what the kernel says."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = f"uid {os.getuid()}"
    words: Sequence[str] = (name, f"(sudo by {os.environ['SUDO_USER']})" if "SUDO_USER" in os.environ else "")
    return " ".join(filter(None, words))[:256]
