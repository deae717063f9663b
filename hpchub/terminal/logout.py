"""`hpchub logout`: takes this machine's certificate back, and removes what `hpchub login` wrote."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpchub.errors import HpchubError, InvalidRequest
from hpchub.terminal.hub import Hub
from hpchub.terminal.login import key_place
from hpchub.terminal.proof import log_out
from hpchub.terminal.ssh_files import Kept, SshFiles, default_ssh_folder


def configure(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("hub_url", metavar="HUB_URL", nargs="?", help="left out: the only one")
    parser.add_argument("--ssh-dir", type=Path, default=default_ssh_folder(), help="default: ~/.ssh")


def run(args: argparse.Namespace) -> int:
    """Log out. Exit code 1 where the hub could not be told; what is here is gone all the same."""
    files, kept = login_here(args.ssh_dir, args.hub_url)
    hub = Hub(kept.url)
    failed = ""
    try:
        log_out(hub, key_place(kept.key_file, kept), kept)
    except HpchubError as error:
        failed = str(error)
    files.remove()
    if failed:
        print(f"Nothing is left here, but the hub could not take the certificate back: {failed}")
        return 1
    print(f"You are logged out of {kept.url}.")
    return 0


def login_here(ssh_folder: Path, hub_url: str | None) -> tuple[SshFiles, Kept]:
    """The files and the login of a hub. InvalidRequest where there is none, or it is not clear which."""
    names = [Hub(hub_url).name] if hub_url else SshFiles.hubs(ssh_folder)
    if len(names) > 1:
        raise InvalidRequest(f"Which hub? You are logged in at {', '.join(names)}.")
    files = SshFiles(ssh_folder, names[0]) if names else None
    kept = files.kept() if files else None
    if files is None or kept is None:
        raise InvalidRequest("You are not logged in here.", "Run hpchub login HUB_URL.")
    return files, kept
