"""What a running demo says about itself, in `info.json`, mode 0600."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hpchub.demo.accounts import PEOPLE
from hpchub.demo.hosts import Host
from hpchub.demo.layout import Layout
from hpchub.demo.processes import Recorded, start_time, write_private
from hpchub.errors import SiteError


@dataclass(slots=True, kw_only=True)
class Info:
    """`hosts` are the processes that hold each host's namespaces; with `loopback` there are none."""

    url: str = ""
    users: dict[str, str] = field(default_factory=dict, repr=False)
    admin_api_token: str = field(default="", repr=False)
    clusters: dict[str, dict[str, list[str]]]
    logs: str
    attach: str
    loopback: bool = False
    clusters_folder: str
    ca_key: str = ""
    sockets: str = ""
    hosts: list[Recorded]
    supervisor: Recorded

    def write(self, layout: Layout) -> None:
        """Last of all: whoever finds the file finds a demo that is ready."""
        write_private(layout.info, json.dumps(asdict(self), indent=2) + "\n")
        give_to_caller(layout)


def closing_words(info: Info, layout: Layout) -> list[str]:
    """What to do with a demo that is ready."""
    look = f"    {_own_command()} demo exec{_where(layout)} login1 --user alice -- squeue"
    if not info.url:
        return ["", "The cluster is ready (no hub). To look around:", look, ""]
    width = max(map(len, info.users))
    rows = [
        f"    {person.name:{width}}  {info.users[person.name]}"
        + (f"  ({person.trouble})" if person.trouble else "")
        for person in PEOPLE
    ]
    return [
        "",
        f"Ready: {info.url}",
        "",
        "People and their passwords, new each time:",
        *rows,
        "",
        "What to try: log in as alice, choose the environment Data analysis, press start, and open the",
        "notebook examples/first-day.ipynb.",
        "To see the job on the cluster:",
        look,
        f"Everything about this demo: {layout.info}; logs: {layout.logs}",
        "",
    ]


def ending_words(layout: Layout) -> str:
    """How to end a demo that runs in the background, where there is no Ctrl-C."""
    return f"It runs in the background. To stop it:\n    {_own_command()} demo down{_where(layout)}\n"


def _where(layout: Layout) -> str:
    return f" --dir {layout.dir}" if layout.dir != Path(".demo").absolute() else ""


def _own_command() -> str:
    """`hpchub` as a person can type it where they are: it is seldom in the PATH."""
    command = Path(sys.executable).with_name("hpchub")
    here = Path.cwd()
    return str(command.relative_to(here) if command.is_relative_to(here) else command)


def running_words(layout: Layout) -> list[str]:
    """Where the demo of this folder is. SiteError where it is not ready, or has lost a part."""
    try:
        info = load_info(layout)
    except SiteError:
        raise SiteError(
            f"A demo is starting or stopping in {layout.dir}.",
            "Wait for it, or stop it with `hpchub demo down`.",
        ) from None
    gone = [known.name for known in (*info.hosts, info.supervisor) if not known.is_alive]
    if info.url and not _answers(info.url):
        gone.append("JupyterHub")
    if gone:
        raise SiteError(
            f"The demo in {layout.dir} has lost {', '.join(gone)}.",
            "Start again: `hpchub demo down`, then `hpchub demo up`.",
        )
    what = info.url or "a cluster without a hub"
    return [f"Running already in {layout.dir}: {what} (attach {info.attach}; more in {layout.info})"]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}hub/api/", timeout=5) as answer:  # noqa: S310  our own, from info.json
            return bool(answer.status == 200)
    except OSError:
        return False


def load_info(layout: Layout) -> Info:
    """A running demo's. SiteError where none runs."""
    if not layout.info.exists():
        raise SiteError(f"No demo is running in {layout.dir}.", "Start one with `hpchub demo up`.")
    body = json.loads(layout.info.read_text(encoding="utf-8"))
    body["hosts"] = [Recorded(**row) for row in body["hosts"]]
    body["supervisor"] = Recorded(**body["supervisor"])
    return Info(**body)


def find_host(layout: Layout, name: str) -> Host:
    """A host of the running demo. SiteError where there is no such host, or it has gone."""
    info = load_info(layout)
    hosts = {known.name: known for known in info.hosts}
    if name not in hosts:
        raise SiteError(f"There is no host {name!r}.", f"Choose {', '.join(hosts)}.")
    if not hosts[name].is_alive:
        raise SiteError(f"Host {name} has gone.", "Start again: `hpchub demo down`, then `hpchub demo up`.")
    return Host(name, None if info.loopback else hosts[name].pid)


def recorded(name: str, pid: int) -> Recorded:
    """A living process with its start time."""
    started = start_time(pid)
    if started is None:
        raise SiteError(f"{name} (process {pid}) ended early.")
    return Recorded(name, pid, started)


def give_to_caller(layout: Layout) -> None:
    """Under sudo the files that people read belong to who called."""
    if "SUDO_UID" in os.environ and "SUDO_GID" in os.environ:
        uid, gid = int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"])
        for path in (layout.dir, layout.info, layout.logs, *layout.logs.iterdir()):
            os.chown(path, uid, gid)
