"""`hpchub token`: JupyterHub's own API tokens, made, listed and revoked with the key of `hpchub login`."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hpchub.core.secret import Secret
from hpchub.core.units import parse_time, render_time
from hpchub.errors import InvalidRequest, UnexpectedOutput
from hpchub.private_files import write_private_file
from hpchub.tables import table
from hpchub.terminal.hub import Hub
from hpchub.terminal.login import key_place
from hpchub.terminal.logout import login_here
from hpchub.terminal.proof import token_for_tokens
from hpchub.terminal.ssh_files import default_ssh_folder

_DEFAULT_EXPIRES = "7-00:00:00"


def configure(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("--hub", metavar="HUB_URL", help="left out: the only one you are logged in at")
    parser.add_argument("--ssh-dir", type=Path, default=default_ssh_folder(), help="default: ~/.ssh")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = actions.add_parser("new", help="make one; it is shown once")
    new.add_argument(
        "--scope", action="append", required=True, help="what it may do, again for more: servers!user, ..."
    )
    new.add_argument("--expires", default=_DEFAULT_EXPIRES, help=f"D-HH:MM:SS; default: {_DEFAULT_EXPIRES}")
    new.add_argument("--note", default="hpchub token", help="for your own list")
    new.add_argument("--output", type=Path, help="write it into a new file of mode 0600, and print nothing")
    actions.add_parser("list", help="your tokens, without what makes them work")
    revoke = actions.add_parser("revoke", help="end one")
    revoke.add_argument("id", help="as list shows it")


def run(args: argparse.Namespace) -> int:
    """Make, list or revoke. NotAllowed where the hub refuses."""
    _, kept = login_here(args.ssh_dir, args.hub)
    hub = Hub(kept.url)
    if args.action == "new" and args.output is not None and args.output.exists():
        raise InvalidRequest(f"{args.output} is there already.", "Name a file that is not.")
    path = f"users/{quote(kept.username, safe='')}/tokens"
    own, token = token_for_tokens(hub, key_place(kept.key_file, kept), kept)
    try:
        if args.action == "new":
            _new(hub, token, path, args)
        elif args.action == "list":
            found = [one for one in hub.api("GET", path, token)["api_tokens"] if one.get("id") != own]
            print("\n".join(render(found, shutil.get_terminal_size().columns)))
        else:
            hub.api("DELETE", f"{path}/{quote(args.id, safe='')}", token)
            print(f"{args.id} is revoked.")
    finally:
        hub.api("DELETE", f"{path}/{own}", token)
    return 0


def render(tokens: list[Mapping[str, Any]], width: int) -> list[str]:
    """A table; JupyterHub's own tokens of pages and servers among them."""
    rows = [
        (
            str(one.get("id", "")), str(one.get("note") or "-"), str(one.get("created") or "-")[:16],
            str(one.get("expires_at") or "never")[:16], " ".join(map(str, one.get("scopes") or ())) or "-",
        )
        for one in tokens
    ]  # fmt: skip
    return table(("ID", "NOTE", "MADE", "UNTIL", "SCOPES"), rows, width)


def _new(hub: Hub, token: Secret, path: str, args: argparse.Namespace) -> None:
    try:
        expires_in = parse_time(args.expires)
    except ValueError as error:
        raise InvalidRequest(f"--expires: {error}") from error
    body = {"note": args.note, "expires_in": expires_in, "scopes": args.scope}
    made = hub.api("POST", path, token, body)
    if not isinstance(made, dict) or not isinstance(made.get("token"), str):
        raise UnexpectedOutput(hub.url, "an answer without a token")
    if args.output is None:
        print(made["token"])
        return
    write_private_file(args.output, f"{made['token']}\n".encode(), replace=False)
    print(f"{args.output}: token {made.get('id')}, for {render_time(expires_in)}")
