"""Run inside `sandbox.sh` or `containers.sh`: tries a demo there, prints what it saw as JSON.

Argument: a folder for the demo; after `--containers`, the one where the hub's container keeps its own.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import requests

from support.demo import Demo, run_hpchub
from support.hub import HubSession

_KEPT = ("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/hosts")
_LISTED = ("/etc", "/etc/slurm", "/etc/profile.d", "/home", "/opt", "/var/lib", "/run")


def machine() -> dict[str, object]:
    """What `down` must leave as it was."""
    files = {name: Path(name).read_text() for name in _KEPT}
    folders = {name: sorted(os.listdir(name)) for name in _LISTED}  # noqa: PTH208  names are all we want
    ours = sorted(path.name for path in Path("/tmp").iterdir() if 2000 < path.lstat().st_uid < 2100)
    return files | folders | {"/tmp": ours}


def listening() -> list[str]:
    """Addresses of TCP listeners in this network namespace."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    words = [bytes.fromhex(row[1].partition(":")[0])[::-1] for row in rows if row[3] == "0A"]
    return sorted({socket.inet_ntoa(word) for word in words})


def main(folder: Path) -> dict[str, Any]:
    """Refused without the flag; up, two servers, down."""
    place = ("--dir", str(folder))
    seen: dict[str, Any] = {"before": machine()}
    refused = run_hpchub("demo", "up", *place)
    seen["refused"] = refused.stdout + refused.stderr
    up = run_hpchub("demo", "up", "--loopback", *place, timeout_s=400)
    seen["up"] = up.stdout + up.stderr
    try:
        demo = Demo.load(folder)
        seen |= servers(demo)
        seen["listening"] = listening()
        second = run_hpchub("demo", "up", "--loopback", "--dir", f"{folder}-2")
        seen["second"] = second.stdout + second.stderr
        seen["job"] = demo.exec("login1", ["squeue", "-ho", "%u %N"], user="bob").stdout
    finally:
        down = run_hpchub("demo", "down", *place)
        seen["down"] = down.stdout + down.stderr
    seen["after"] = machine()
    ps = subprocess.run(["ps", "-eo", "user:40,stat,args"], capture_output=True, text=True, check=True)
    rows = [line.split() for line in ps.stdout.splitlines()]
    # Here nobody reaps what has ended: PID 1 is this test.
    seen["left"] = [" ".join(row) for row in rows if not row[1].startswith("Z")]
    return seen


def servers(demo: Demo) -> dict[str, Any]:
    """A server for each placement."""
    seen = {}
    for user, placement in (("alice", "login"), ("bob", "compute")):
        with HubSession(demo.url) as session:
            session.login(user, demo.users[user])
        seen[placement] = start(demo, user, placement)
    return seen


def containers(folder: Path) -> dict[str, Any]:
    """Wait for the hub's container, then a server for each placement."""
    deadline = time.monotonic() + 90
    while not (folder / "info.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return servers(Demo.load(folder))


def start(demo: Demo, user: str, placement: str) -> Any:
    """The user's server, as the hub's REST API has it once it is ready or has failed."""
    url = f"{demo.url}hub/api/users/{user}"
    begun = requests.post(
        f"{url}/server", json={"placement": placement}, headers=demo.admin_headers, timeout=60
    )
    if begun.status_code == 202:
        with requests.get(
            f"{url}/server/progress", headers=demo.admin_headers, timeout=60, stream=True
        ) as lines:
            list(lines.iter_lines())  # until the hub ends the stream
    return requests.get(url, headers=demo.admin_headers, timeout=10).json()["servers"][""]


if __name__ == "__main__":
    act = containers if sys.argv[1] == "--containers" else main
    print(json.dumps(act(Path(sys.argv[-1]))))
