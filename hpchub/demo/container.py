"""One host of the demo in a container of its own: what `docker-compose.slurm.yml` runs.

`python -m hpchub.demo.container build` lays the cluster's settings out in the image, from the same
files as every other way to run the demo; `python -m hpchub.demo.container HOST` starts that host's
daemons and ends when one of them does.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpchub.core.cluster import Attach
from hpchub.demo.accounts import lay_out_accounts
from hpchub.demo.hosts import Host
from hpchub.demo.hubside import HubSide, lay_out_cluster_file, lay_out_hub
from hpchub.demo.info import Info, closing_words, recorded
from hpchub.demo.layout import ETC, SCRIPTS, Layout
from hpchub.demo.processes import Processes
from hpchub.demo.site import CLUSTER_HOSTS, COMPUTE_HOSTS, CONTROLLER, HUB, LOGIN_HOSTS, Site
from hpchub.demo.slurm import (
    accounting,
    foundation,
    lay_out_slurm,
    load_accounts,
    make_database,
    make_munge_key,
    scheduling,
    start_daemons,
)
from hpchub.demo.software import MAGICS, lay_out_magics
from hpchub.demo.sshd import known_host, lay_out_strict, make_key, sshd
from hpchub.errors import SiteError

_PORT = 8000  # the one that docker-compose.slurm.yml publishes on 127.0.0.1
_TIMEOUT_S = 120  # hosts wait for each other: compose starts all at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Volumes:
    """What containers share: `cluster` is the cluster's alone, `meeting` the login nodes' and the hub's."""

    cluster: Path = Path("/srv/cluster")
    meeting: Path = Path("/srv/meeting")
    state: Path = Path("/var/lib/hpchub-demo")  # shared with nobody

    @property
    def munge_key(self) -> Path:
        """Made by the controller."""
        return self.cluster / "munge.key"

    @property
    def ca(self) -> Path:
        """The public line of the hub's certificate authority."""
        return self.meeting / "ca.pub"

    @property
    def krl(self) -> Path:
        """The signer's revocation list."""
        return self.meeting / "revoked_keys"

    def host_key(self, name: str) -> Path:
        """A login node's public host key."""
        return self.meeting / f"{name}.pub"


def build() -> None:
    """Lay accounts, homes, settings, magics and an empty accounting database out in the image's folders."""
    with tempfile.TemporaryDirectory() as scratch:
        layout = Layout(Path(scratch))
        for path in (layout.etc, layout.home):
            path.mkdir(mode=0o755)
        lay_out_accounts(layout)
        lay_out_slurm(layout, Site())
        # An image is no place for a key: the controller makes one when it starts.
        (layout.etc / "munge" / "munge.key").unlink()
        (layout.etc / "hosts").unlink()
        lay_out_strict(layout, Attach.SRUN, Site())
        subprocess.run(["cp", "-a", f"{layout.etc}/.", "/etc"], check=True)
        subprocess.run(["cp", "-a", f"{layout.home}/.", "/home"], check=True)
    make_database(Site().database)
    lay_out_magics(MAGICS)


def start_host(name: str, volumes: Volumes, processes: Processes, say: Callable[[str], None]) -> None:
    """Start the daemons of one of the cluster's hosts. Returns when they are ready."""
    site, here = Site(), {name: Host(name, None)}
    _name_hosts()
    subprocess.run(["sh", str(SCRIPTS / "folders.sh"), site.run, site.spool], check=True)
    _share_munge_key(name, volumes, site)
    begun = [foundation(site)]
    if name == CONTROLLER:
        begun.append([accounting(site)])
    for daemons in begun:
        start_daemons([daemon for daemon in daemons if daemon.host == name], here, processes)
    if name == CONTROLLER:
        load_accounts(here[name])
    own = [daemon for daemon in scheduling(site) if daemon.host == name]
    if name in LOGIN_HOSTS:
        _meet_hub(name, volumes)
        own.append(sshd(name, site, Path("/etc")))
    start_daemons(own, here, processes, timeout_s=_TIMEOUT_S)
    say(f"{name}: {', '.join(processes.children)}")


def _name_hosts() -> None:
    """Add the cluster's names to the /etc/hosts that the container came with; once."""
    path, wanted = Path("/etc/hosts"), (ETC / "hosts").read_text(encoding="utf-8")
    text = path.read_text(encoding="utf-8")
    if wanted not in text:
        path.write_text(f"{text}\n{wanted}", encoding="utf-8")


def _share_munge_key(name: str, volumes: Volumes, site: Site) -> None:
    if name == CONTROLLER and not volumes.munge_key.exists():
        fresh = volumes.munge_key.with_suffix(".new")
        make_munge_key(fresh)
        fresh.rename(volumes.munge_key)
    _wait_for(volumes.munge_key)
    shutil.copy2(volumes.munge_key, site.munge_key)
    shutil.chown(site.munge_key, "munge", "munge")


def _meet_hub(name: str, volumes: Volumes) -> None:
    """Show the hub this node's host key; trust the hub's authority, also the one it has tomorrow."""
    key = Path("/etc/ssh/hpchub") / name
    key.parent.mkdir(mode=0o700, exist_ok=True)
    if not key.exists():
        make_key(key, name)
    shutil.copy(key.with_name(f"{name}.pub"), volumes.host_key(name))
    for seen, shared in (("hpchub_ca.pub", volumes.ca), ("hpchub_revoked_keys", volumes.krl)):
        path = Path("/etc/ssh") / seen
        path.unlink(missing_ok=True)
        path.symlink_to(shared)
    _wait_for(volumes.ca)


def start_hub(volumes: Volumes, processes: Processes, say: Callable[[str], None]) -> None:
    """Start signer, bridge, proxy and JupyterHub; say where and who."""
    layout, site = Layout(volumes.state), Site()
    for path in (layout.hub, layout.clusters):
        shutil.rmtree(path, ignore_errors=True)  # of an earlier start of this container
    layout.sockets.unlink(missing_ok=True)
    layout.hub.mkdir(mode=0o700)
    # The container's own addresses: compose publishes the port on the machine's 127.0.0.1, and only there.
    side = lay_out_hub(layout, _PORT, Attach.SRUN, site, "0.0.0.0", volumes.krl)  # noqa: S104  in a container
    side.begin_keys(processes)
    known = []
    for name in LOGIN_HOSTS:
        key = volumes.host_key(name)
        _wait_for(key)
        known.append(known_host(name, site.edge[name], key.read_text(encoding="ascii")) + "\n")
    lay_out_cluster_file(layout, Attach.SRUN, "".join(known), site)
    volumes.krl.touch(mode=0o644)  # sshd refuses everybody where there is none
    volumes.ca.write_text(side.finish_keys(processes) + "\n", encoding="ascii")
    side.start({HUB: Host(HUB, None)}, processes, say)
    info = _info(layout, side)
    info.write(layout)
    say("\n".join(closing_words(info, layout)))


def _info(layout: Layout, side: HubSide) -> Info:
    return Info(
        url=side.url,
        users=side.passwords,
        admin_api_token=side.admin_api_token,
        clusters={"demo": {"login_hosts": list(LOGIN_HOSTS), "compute_hosts": list(COMPUTE_HOSTS)}},
        logs=str(layout.logs),
        attach=Attach.SRUN.value,
        loopback=False,
        clusters_folder=str(layout.clusters),
        sockets=str(side.sockets),
        hosts=[],
        supervisor=recorded("supervisor", 1),
    )


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not path.exists() or not path.stat().st_size:
        if time.monotonic() > deadline:
            raise SiteError(f"Nobody wrote {path}.", "Look at the other containers' logs.")
        time.sleep(0.1)


def run(name: str, volumes: Volumes, say: Callable[[str], None]) -> int:
    """Be one host, until one of its daemons ends."""
    layout = Layout(volumes.state)
    layout.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    processes = Processes(layout.processes, layout.logs)
    if name == HUB:
        start_hub(volumes, processes, say)
    else:
        start_host(name, volumes, processes, say)
    while True:
        time.sleep(0.5)
        for line in processes.look_after():
            say(line)
            if name != HUB:
                return 1


def main(role: str) -> int:
    """Build, or be a host."""
    if role == "build":
        build()
        return 0
    if role not in (*CLUSTER_HOSTS, HUB):
        print(f"There is no host {role!r}. Choose {', '.join((*CLUSTER_HOSTS, HUB))}.", file=sys.stderr)
        return 2
    try:
        return run(role, Volumes(), lambda line: print(line, flush=True))
    except SiteError as error:
        print(f"{role}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
