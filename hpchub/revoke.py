"""`hpchub revoke`: take back what a user, a certificate or a key may do, and close what is open."""

from __future__ import annotations

import argparse
import asyncio
import os
import pwd
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from hpchub.bridge.client import BridgeClient
from hpchub.core.server import ServerView
from hpchub.core.slugs import caseless
from hpchub.errors import HpchubError, InvalidRequest
from hpchub.logs import printable
from hpchub.staff_config import configure_config, find_processes

# Somebody is to be thrown out: jobs that do not end by then are left to the scheduler's own commands.
_STOP_LIMIT_S = 60.0


def configure(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "target", metavar="USER|SERIAL|KEY", help="or a key id, or a key's SHA256: fingerprint"
    )
    configure_config(parser)
    parser.add_argument("--undo", action="store_true", help="let a user log in again, or a key be used again")
    parser.add_argument("--reason", default="", metavar="TEXT", help="for the audit log")
    parser.add_argument(
        "--stop-servers", action="store_true", help="first end the user's servers and their jobs"
    )


def run(args: argparse.Namespace) -> int:
    """Revoke or undo. Exit code 1 where something that was asked for is not done."""
    if args.undo and args.stop_servers:
        raise InvalidRequest("--undo starts no server, and stops none.")
    found = find_processes(args.config)
    signer, bridge = found.signer, found.bridge
    if bridge is None and args.stop_servers:
        raise InvalidRequest(
            "--stop-servers is the bridge's to do, which is not on this host: nothing was done.",
            "Leave it out, and end the jobs with the scheduler's own command.",
        )
    if args.undo:
        asyncio.run(signer.undo_revocation(args.target, reason=args.reason, by=_who()))
        print(f"{printable(args.target)} is not revoked any more. What it held before stays ended.")
        return 0
    left: list[str] = []
    if bridge is not None and args.stop_servers:
        left = asyncio.run(_stop_servers(bridge, args.target))
    taken = asyncio.run(signer.revoke(args.target, reason=args.reason, by=_who()))
    print("\n".join(render(args.target, taken)))
    for line in left:
        print(f"NOT STOPPED {printable(line)}")
    return 1 if left or taken["krl_error"] else 0


def render(target: str, taken: dict[str, Any]) -> list[str]:
    """What was taken back, for a terminal."""
    count, logins, terminals = len(taken["serials"]), taken["logins"], taken["terminals"]
    whose = f" of {taken['account']}" if taken["account"] not in {"", target} else ""
    ended = f"{_counted(logins, 'login')}{whose} {'has' if logins == 1 else 'have'} ended"
    valid = f"{_counted(count, 'certificate')} {'was' if count == 1 else 'were'} still valid"
    lines = [f"{printable(target)} is revoked: {ended}, {valid}."]
    lines.append(
        "The bridge closes its connections within 5 seconds." if logins or count else _nothing_held(target)
    )
    if terminals:
        are, them = ("is", "it") if terminals == 1 else ("are", "them")
        lines.append(
            f"{terminals} of them {are} on people's own machines: the list refuses {them}, and what was "
            f"opened on login nodes with {them} stays open until it is ended there."
        )
    if taken["krl_error"]:
        lines.append(f"THE REVOCATION LIST IS OLD: {printable(taken['krl_error'])}")
    if count and (taken["krl_error"] or not taken["has_krl_file"]):
        until = datetime.fromtimestamp(taken["valid_before"], UTC).isoformat(sep=" ", timespec="seconds")
        lines.append(f"Login nodes without a new list accept these certificates until {until}.")
    return lines


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _nothing_held(target: str) -> str:
    """What that may mean, for each kind of target."""
    if " " in target or target.startswith("SHA256:"):
        return "No login has that key now. It is refused from now on."
    if target.isdecimal() or ":" in target:
        return "The login that had earned it had ended already."
    return "Nobody of that name held anything: is the name right? It cannot log in from now on."


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
