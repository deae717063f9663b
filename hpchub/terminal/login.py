"""`hpchub login`: a certificate for this machine, allowed in the browser, and ssh set up to use it."""

from __future__ import annotations

import argparse
import socket
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from hpchub.core.terminal import fingerprint_of
from hpchub.errors import HostUnreachable, HpchubError, NotAllowed, UnexpectedOutput
from hpchub.terminal.hub import Hub
from hpchub.terminal.keys import InFile, KeyPlace, agent_of_the_environment, check_certificate, new_key
from hpchub.terminal.proof import log_out
from hpchub.terminal.ssh_files import Kept, SshFiles, default_ssh_folder

_GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
_SLOWER_BY_S = 5.0  # RFC 8628, section 3.5


def configure(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("hub_url", metavar="HUB_URL", help="such as https://hub.example.org")
    parser.add_argument("--user", help="refuse a login that somebody else has confirmed")
    parser.add_argument(
        "--key-file", type=Path, help="keep the private key in this file (mode 0600), not in the ssh-agent"
    )
    parser.add_argument("--ssh-dir", type=Path, default=default_ssh_folder(), help="default: ~/.ssh")


def run(args: argparse.Namespace) -> int:
    """Log in. Raises an error of ours where it was denied, too late, or could not be written."""
    hub = Hub(args.hub_url)
    files = SshFiles(args.ssh_dir, hub.name)
    earlier = files.kept()
    key_file = str(args.key_file.expanduser().absolute()) if args.key_file else ""
    place = key_place(key_file, earlier)
    place.check()
    key, public_key = new_key(f"hpchub {hub.name}")
    granted = _ask(hub, public_key)
    username, certificate = str(granted["username"]), str(granted["certificate"])
    if args.user and username != args.user:
        raise NotAllowed(f"{username} has confirmed this login, not {args.user}. Nothing was changed here.")
    lifetime_s = check_certificate(certificate, public_key, username)
    kept = Kept(
        url=hub.url,
        username=username,
        public_key=public_key,
        certificate=certificate,
        valid_before=int(granted["valid_before"]),
        key_file=key_file,
    )
    if earlier is not None:
        _forget(hub, earlier)
    place.keep(key, certificate, lifetime_s)
    aliases = files.write(kept, granted["clusters"])
    until = datetime.fromtimestamp(kept.valid_before).astimezone()
    print(f"You are {username} until {until:%Y-%m-%d %H:%M %Z}.")
    for alias in aliases:
        print(f"    ssh {alias}")
    return 0


def key_place(key_file: str, earlier: Kept | None) -> KeyPlace:
    """Where the key goes, or is."""
    if key_file:
        return InFile(Path(key_file), ours=earlier is not None and earlier.key_file == key_file)
    return agent_of_the_environment()


def _ask(hub: Hub, public_key: str) -> dict[str, Any]:
    """What somebody has granted. The page's address is the one that was typed here, whatever the hub says."""
    began = hub.post("device/authorization", {"public_key": public_key, "name": socket.gethostname()})
    try:
        code, device_code = str(began["user_code"]), str(began["device_code"])
        interval_s, expires_in_s = float(began["interval"]), float(began["expires_in"])
    except (KeyError, TypeError, ValueError) as error:
        raise UnexpectedOutput(hub.url, "no code: is this a hub with hpchub?") from error
    if not code.replace("-", "").isalnum():
        raise UnexpectedOutput(hub.url, "a code that nobody could type")
    print(f"Open {hub.device_page}?user_code={code}")
    print(f"and confirm the code {code} there. Your key: {fingerprint_of(public_key)}", flush=True)
    granted = collect(hub, device_code, interval_s, expires_in_s)
    if not {"username", "certificate", "valid_before", "clusters"} <= granted.keys():
        raise UnexpectedOutput(hub.url, "an answer without a certificate")
    return granted


def collect(
    hub: Hub,
    device_code: str,
    interval_s: float,
    expires_in_s: float,
    sleep: Callable[[float], object] = time.sleep,
) -> dict[str, Any]:
    """Ask until somebody has answered.

    Raises:
        NotAllowed: Denied, too late, or collected already.
        HostUnreachable: The hub has not answered until the end.
    """
    deadline = time.monotonic() + expires_in_s
    away: HostUnreachable | None = None
    fields: Mapping[str, str] = {"grant_type": _GRANT_TYPE, "device_code": device_code}
    while time.monotonic() < deadline:
        sleep(interval_s)
        try:
            answer = hub.post("device/token", fields)
        except HostUnreachable as error:  # the code outlives a restart of what stands before the hub
            away = error
            continue
        away = None
        told = answer.get("error")
        if told is None:
            return answer
        if told == "slow_down":
            interval_s += _SLOWER_BY_S
        elif told != "authorization_pending":
            raise _refusal(str(told))
    raise away or _refusal("expired_token")


def _refusal(told: str) -> NotAllowed:
    if told == "access_denied":
        return NotAllowed("The login was denied.")
    if told == "expired_token":
        return NotAllowed("Nobody confirmed the code in time.", "Begin again.")
    return NotAllowed("The hub does not know this login any more.", "Begin again.")


def _forget(hub: Hub, earlier: Kept) -> None:
    """The login before makes room; where it cannot be ended any more, it ends by itself."""
    try:
        log_out(hub, key_place(earlier.key_file, earlier), earlier)
    except HpchubError as error:
        print(f"The login before could not be ended, and ends by itself: {error.message}")
