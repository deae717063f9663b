"""Boots a demo, watches over it, and takes it down so that nothing is left."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, NoReturn

from hpchub.core.cluster import Attach
from hpchub.demo.accounts import lay_out_accounts, private_first_uid
from hpchub.demo.environments import ready_environments
from hpchub.demo.hosts import Host, boot_hosts, require_namespaces
from hpchub.demo.hubside import HubSide, lay_out_cluster_file, lay_out_hub
from hpchub.demo.info import Info, closing_words, recorded
from hpchub.demo.layout import Layout
from hpchub.demo.loopback import (
    MACHINE_ETC,
    NOT_SHOWN,
    add_to_machine,
    building_in,
    machine,
    remove_from_machine,
    require_loopback,
)
from hpchub.demo.network import connect
from hpchub.demo.packages import require_packages
from hpchub.demo.port import claimed_port
from hpchub.demo.processes import Processes, Recorded, load_recorded
from hpchub.demo.site import COMPUTE_HOSTS, LOGIN_HOSTS, Site
from hpchub.demo.slurm import lay_out_database, lay_out_slurm, start_slurm
from hpchub.demo.software import lay_out_magics
from hpchub.demo.sshd import (
    KrlPush,
    hosts_with_sshd,
    lay_out_sshd,
    lay_out_strict,
    make_key,
    start_sshd,
    trust,
)
from hpchub.errors import SiteError

_STOP_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a demo shall be. Port 0 leaves the choice to the kernel."""

    layout: Layout
    attach: Attach = Attach.SRUN
    port: int | None = None
    cluster_only: bool = False
    loopback: bool = False


class Stop(Exception):
    """Somebody asked for the end: Ctrl-C or SIGTERM."""


def run(plan: Plan, say: Callable[[str], None]) -> None:
    """Boot, stay until asked to stop, and clean up, whatever happens in between."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    with _sole_owner(plan.layout), nullcontext() if plan.cluster_only else claimed_port(plan.port) as port:
        processes = Processes(plan.layout.processes, plan.layout.logs)
        try:
            push = _boot(plan, port, processes, say)
            _watch(processes, push, say)
        except Stop:
            say("Stopping.")
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave half behind
            clean_up(plan.layout, processes)
            say(f"Stopped; nothing is left but the logs in {plan.layout.logs}.")


def clean_up(layout: Layout, processes: Processes | None = None) -> None:
    """End every recorded process that still lives and remove what the demo wrote, but its logs.

    A host's first process goes first: the kernel then ends all others of the host, and those that
    wait for them outside see it and end by themselves, so that nobody is left to be reaped.
    """
    known = load_recorded(layout.processes)
    for process in known:
        if not process.follows:
            process.kill(signal.SIGKILL)
    deadline = time.monotonic() + 2
    while any(process.is_alive for process in known):
        if time.monotonic() > deadline:
            for process in known:
                process.kill(signal.SIGKILL)
        time.sleep(0.01)
    if processes:
        processes.reap()
    remove_from_machine(layout)
    _remove_sockets(layout)
    for path in layout.run_files:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    layout.processes.unlink(missing_ok=True)


def _remove_sockets(layout: Layout) -> None:
    """Remove the folder in /tmp that we made, and no other that the link might have come to name."""
    if layout.sockets.is_symlink():
        folder = layout.sockets.readlink()
        is_in_tmp = folder.parent == Path("/tmp")  # noqa: S108  nothing is made there
        if is_in_tmp and folder.name.startswith("hpchub-") and folder.is_dir():
            shutil.rmtree(folder)
        layout.sockets.unlink()


def _boot(plan: Plan, port: int | None, processes: Processes, say: Callable[[str], None]) -> KrlPush | None:
    """Start all of it. `port` is the hub's; None for a cluster without one, which nobody sends a list to."""
    layout = plan.layout
    site = machine() if plan.loopback else Site()
    require_packages()
    if plan.loopback:
        require_loopback(plan.attach)
    else:
        require_namespaces()
    _prepare(layout)
    in_place = partial(building_in, layout=layout) if plan.loopback else None
    environments = ready_environments(say, in_place)
    names = hosts_with_sshd(plan.attach)
    side = None if port is None else lay_out_hub(layout, port, plan.attach, site)
    if side:
        side.begin_keys(processes)
    lay_out_magics(layout.magics)
    lay_out_slurm(layout, site)
    lay_out_strict(layout, plan.attach, site)
    lay_out_cluster_file(layout, plan.attach, lay_out_sshd(layout, names, site), site)
    if plan.loopback:
        hosts = add_to_machine(layout, environments)
        say(f"{', '.join(hosts)}: all of them this machine. So this demo does not show what others do:")
        for line in NOT_SHOWN:
            say(f"  - {line}")
    else:
        lay_out_accounts(layout, private_first_uid())
        lay_out_database(layout)
        hosts = boot_hosts(layout, processes, environments)
        connect(hosts, site)
        say(f"hosts {', '.join(hosts)}: namespaces of their own, two networks, no way from one to the other")
    start_slurm(site, hosts, processes, say)
    etc = MACHINE_ETC if plan.loopback else Path("/etc")
    ca_line = side.finish_keys(processes) if side else make_key(layout.hub / "test_ca", "demo tests")
    trust(hosts[names[0]], etc, ca_line)
    start_sshd(site, hosts, processes, names, etc)
    say(f"sshd on {', '.join(names)}, trusting one certificate authority")
    if side:
        side.start(hosts, processes, say)
    info = _info(plan, hosts, side)
    info.write(layout)
    say("\n".join(closing_words(info, layout)))
    layout.ready.write_text(str(os.getpid()), encoding="ascii")
    return KrlPush(side.krl_file, hosts[names[0]], etc) if side else None


def _info(plan: Plan, hosts: Mapping[str, Host], side: HubSide | None) -> Info:
    return Info(
        url=side.url if side else "",
        users=side.passwords if side else {},
        admin_api_token=side.admin_api_token if side else "",
        clusters={"demo": {"login_hosts": list(LOGIN_HOSTS), "compute_hosts": list(COMPUTE_HOSTS)}},
        logs=str(plan.layout.logs),
        attach=plan.attach.value,
        loopback=plan.loopback,
        clusters_folder=str(plan.layout.clusters),
        ca_key="" if side else str(plan.layout.hub / "test_ca"),
        sockets=str(side.sockets) if side else "",
        hosts=[recorded(host.name, host.pid or os.getpid()) for host in hosts.values()],
        supervisor=recorded("supervisor", os.getpid()),
    )


def _prepare(layout: Layout) -> None:
    shutil.rmtree(layout.logs, ignore_errors=True)
    for path in (layout.home, layout.etc):
        path.mkdir(mode=0o755)
    for path in (layout.logs, layout.mysql, layout.hub):
        path.mkdir(mode=0o700)


def _watch(processes: Processes, push: KrlPush | None, say: Callable[[str], None]) -> NoReturn:
    """Stay until asked to stop. The hub side is started again when it ends; a host's daemon is not."""
    while True:
        time.sleep(0.5)
        for line in (*processes.look_after(), *(push.look() if push else ())):
            say(line)


def is_held(layout: Layout) -> bool:
    """Whether a demo runs, or boots, in this folder."""
    if not layout.lock.exists():
        return False
    with layout.lock.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def stop(layout: Layout) -> bool:
    """End the demo in a folder, whether it is ready, still booting, or was left by a killed supervisor.

    False where there was none.
    """
    if not any(path.exists() for path in (layout.lock, layout.processes, layout.added)):
        return False
    if layout.lock.exists():
        if said := layout.lock.read_text(encoding="utf-8"):
            supervisor = Recorded(**json.loads(said))
            supervisor.kill(signal.SIGTERM)
            deadline = time.monotonic() + _STOP_TIMEOUT_S
            while supervisor.is_alive and time.monotonic() < deadline:
                time.sleep(0.02)
            supervisor.kill(signal.SIGKILL)
        layout.lock.unlink(missing_ok=True)
    clean_up(layout)
    return True


@contextmanager
def _sole_owner(layout: Layout) -> Iterator[None]:
    """Hold the state folder; SiteError where another supervisor does. Cleans up after a killed one."""
    layout.dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with layout.lock.open("a") as lock:
        _hold(lock, layout)
        lock.truncate(0)
        json.dump(asdict(recorded("supervisor", os.getpid())), lock)
        lock.flush()
        try:
            clean_up(layout)
            yield
        finally:
            layout.lock.unlink(missing_ok=True)


def _hold(lock: IO[str], layout: Layout) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SiteError(
            f"A demo is running in {layout.dir} already.",
            "Stop it with `hpchub demo down`, or give another folder with --dir.",
        ) from None


def _stop(number: int, frame: object) -> None:
    raise Stop
