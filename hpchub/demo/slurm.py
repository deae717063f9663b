"""Slurm on the hosts: munge everywhere, MariaDB and both controllers on ctl, slurmd on the nodes."""

from __future__ import annotations

import fcntl
import secrets
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from hpchub.demo.hosts import CLUSTER_HOSTS, COMPUTE_HOSTS, CONTROLLER, Host, run_on, wait_until
from hpchub.demo.layout import ETC, Layout, cache_folder
from hpchub.demo.processes import Processes
from hpchub.errors import SiteError

_COPIED = ("hosts", "nsswitch.conf")
_SLURM_FILES = ("slurm.conf", "slurmdbd.conf", "gres.conf", "cgroup.conf", "accounting.cfg")


def lay_out_slurm(layout: Layout) -> None:
    """Write what Slurm, munge and MariaDB read in the cluster's /etc."""
    for name in _COPIED:
        shutil.copy(ETC / name, layout.etc / name)
    folder = layout.etc / "slurm"
    folder.mkdir()
    for name in _SLURM_FILES:
        shutil.copy(ETC / name, folder / name)
    # slurmdbd refuses settings that others could read or that are not its own.
    (folder / "slurmdbd.conf").chmod(0o600)
    shutil.chown(folder / "slurmdbd.conf", "slurm", "slurm")
    (layout.etc / "mysql").mkdir()
    shutil.copy(ETC / "mariadb.cnf", layout.etc / "mysql" / "hpchub.cnf")
    (layout.etc / "profile.d").mkdir()
    shutil.copy(ETC / "hpc-modules.sh", layout.etc / "profile.d")
    munge = layout.etc / "munge"
    munge.mkdir(mode=0o700)
    key = munge / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    for path in (munge, key):
        shutil.chown(path, "munge", "munge")


def lay_out_database(layout: Layout) -> None:
    """Give the demo an empty accounting database: a copy of the one made once for all demos."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    version = subprocess.run(["mariadbd", "--version"], capture_output=True, text=True, check=True).stdout
    made_of = version + (ETC / "mariadb.cnf").read_text() + (ETC / "mariadb-init.sql").read_text()
    ready, stamp = cache / "mariadb", cache / "mariadb" / ".made-of"
    with (cache / "mariadb.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != made_of:
            _make_database(cache / "mariadb.new")
            (cache / "mariadb.new" / ".made-of").write_text(made_of)
            shutil.rmtree(ready, ignore_errors=True)
            (cache / "mariadb.new").rename(ready)
        subprocess.run(
            ["cp", "-a", "--sparse=auto", "--reflink=auto", f"{ready}/.", layout.mysql], check=True
        )
    shutil.chown(layout.mysql, "mysql", "mysql")


def _make_database(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    # mysqld gives up root at once and must then still reach the folder, whatever lies above it.
    command = (
        'mount --bind "$1" /var/lib/mysql && '
        'mariadb-install-db --defaults-file="$2" --auth-root-authentication-method=socket '
        "--skip-test-db --datadir=/var/lib/mysql --user=mysql && "
        'mariadbd --defaults-file="$2" --bootstrap <"$3"'
    )
    done = subprocess.run(
        [
            *("unshare", "--mount", "--propagation", "private", "--", "sh", "-ec", command, "sh"),
            *(str(folder), str(ETC / "mariadb.cnf"), str(ETC / "mariadb-init.sql")),
        ],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SiteError(f"The accounting database could not be made: {done.stdout}{done.stderr}")


def start_slurm(hosts: Mapping[str, Host], processes: Processes, say: Callable[[str], None]) -> None:
    """Start every daemon, each waited for. Returns when both nodes are idle."""
    controller = hosts[CONTROLLER]

    def start(daemon: str, host: str, *argv: str, user: str = "") -> None:
        processes.start(f"{daemon}-{host}", hosts[host].enter(argv, user), follows=True)

    def wait(daemon: str, host: str, *argv: str) -> None:
        wait_until(hosts[host], argv, processes, f"{daemon}-{host}")

    for name in CLUSTER_HOSTS:
        start("munged", name, "/usr/sbin/munged", "--foreground", user="munge")
    start("mariadb", CONTROLLER, "mariadbd", "--defaults-file=/etc/mysql/hpchub.cnf")
    wait("mariadb", CONTROLLER, "test", "-S", "/run/mysqld/mysqld.sock")
    for name in CLUSTER_HOSTS:
        wait("munged", name, "test", "-S", "/run/munge/munge.socket.2")
    say("munge on every host, MariaDB on ctl")

    start("slurmdbd", CONTROLLER, "slurmdbd", "-D")
    wait("slurmdbd", CONTROLLER, *_port_answers(6819))
    loaded = run_on(controller, ["sacctmgr", "-i", "load", "/etc/slurm/accounting.cfg"])
    if "error" in loaded.lower():
        raise SiteError(f"Slurm's accounting did not take the accounts: {loaded}")
    say("slurmdbd with accounts physics and chemistry")

    start("slurmctld", CONTROLLER, "slurmctld", "-D")
    wait("slurmctld", CONTROLLER, *_port_answers(6817))
    for name in COMPUTE_HOSTS:
        start("slurmd", name, "slurmd", "-D", "-N", name)
    idle = '[ "$(sinfo -h -p cpu -t idle -o %D)" = ' + str(len(COMPUTE_HOSTS)) + " ]"
    for name in COMPUTE_HOSTS:
        wait("slurmd", name, "sh", "-c", idle)
    say("slurmctld on ctl, slurmd on c1 and c2: both idle")


def _port_answers(port: int) -> tuple[str, ...]:
    return ("bash", "-c", f"exec 3<>/dev/tcp/{CONTROLLER}/{port}")
