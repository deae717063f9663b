"""Slurm on the hosts: munge everywhere, MariaDB and both controllers on ctl, slurmd on the nodes."""

from __future__ import annotations

import fcntl
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpchub.demo.hosts import Host, run_on, wait_until
from hpchub.demo.layout import ETC, Layout, cache_folder
from hpchub.demo.processes import Processes
from hpchub.demo.site import CLUSTER_HOSTS, COMPUTE_HOSTS, CONTROLLER, Site
from hpchub.errors import SiteError

# Beside these, the cluster's /etc has its accounts, sshd's files and munge's key.
SLURM_FILES = ("slurm.conf.j2", "slurmdbd.conf.j2", "gres.conf", "cgroup.conf", "accounting.cfg")
# Of Debian's slurm-wlm-jwt-plugin, which a demo does without where it is not installed.
_JWT_PLUGIN = "*/slurm-wlm/auth_jwt.so"
_MYSQL_CONFIG = ETC / "mariadb.cnf"


def lay_out_slurm(layout: Layout, site: Site) -> None:
    """Write what Slurm, munge and MariaDB read in the cluster's /etc."""
    for name in ("hosts", "nsswitch.conf"):
        shutil.copy(ETC / name, layout.etc / name)
    folder = layout.etc / "slurm"
    folder.mkdir()
    if any(Path("/usr/lib").glob(_JWT_PLUGIN)):
        site = replace(site, jwt_key="/etc/slurm/jwt_hs256.key")
        _make_key(folder / "jwt_hs256.key", "slurm")
    for name in SLURM_FILES:
        (folder / name.removesuffix(".j2")).write_text(site.render(name), encoding="utf-8")
    # slurmdbd refuses settings that others could read or that are not its own.
    (folder / "slurmdbd.conf").chmod(0o600)
    shutil.chown(folder / "slurmdbd.conf", "slurm", "slurm")
    (layout.etc / "mysql").mkdir()
    shutil.copy(_MYSQL_CONFIG, layout.etc / "mysql" / "hpchub.cnf")
    (layout.etc / "profile.d").mkdir()
    shutil.copy(ETC / "hpc-modules.sh", layout.etc / "profile.d")
    munge = layout.etc / "munge"
    munge.mkdir(mode=0o700)
    shutil.chown(munge, "munge", "munge")
    make_munge_key(munge / "munge.key")


def make_munge_key(path: Path) -> None:
    """Write a new key that only munge may read."""
    _make_key(path, "munge")


def _make_key(path: Path, owner: str) -> None:
    path.touch(mode=0o600)
    path.write_bytes(secrets.token_bytes(128))
    shutil.chown(path, owner, owner)


def lay_out_database(layout: Layout) -> None:
    """Give the demo an empty accounting database: a copy of the one made once for all demos."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    version = subprocess.run(["mariadbd", "--version"], capture_output=True, text=True, check=True).stdout
    made_of = version + _MYSQL_CONFIG.read_text() + (ETC / "mariadb-init.sql").read_text()
    ready, stamp = cache / "mariadb", cache / "mariadb" / ".made-of"
    with (cache / "mariadb.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != made_of:
            _make_hidden_database(cache / "mariadb.new")
            (cache / "mariadb.new" / ".made-of").write_text(made_of)
            shutil.rmtree(ready, ignore_errors=True)
            (cache / "mariadb.new").rename(ready)
        subprocess.run(
            ["cp", "-a", "--sparse=auto", "--reflink=auto", f"{ready}/.", layout.mysql], check=True
        )
    shutil.chown(layout.mysql, "mysql", "mysql")


def make_database(folder: str, *, wrapped_in: Sequence[str] = ()) -> None:
    """Make an empty accounting database in a folder that MariaDB's account can reach."""
    command = (
        'mariadb-install-db --defaults-file="$2" --auth-root-authentication-method=socket '
        '--skip-test-db --datadir="$1" --user=mysql && '
        'mariadbd --defaults-file="$2" --datadir="$1" --bootstrap <"$3"'
    )
    # mariadb-install-db is a shell script that trips over spaces in the name of its settings.
    with tempfile.TemporaryDirectory(prefix="hpchub-", dir="/tmp") as scratch:
        config = shutil.copy(_MYSQL_CONFIG, scratch)
        argv = ["sh", "-ec", command, "sh", folder, config, str(ETC / "mariadb-init.sql")]
        done = subprocess.run(
            [*wrapped_in, *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        raise SiteError(f"The accounting database could not be made: {done.stdout}{done.stderr}")


def _make_hidden_database(folder: Path) -> None:
    """Make it wherever the folder lies: mariadbd gives up root at once, and could not pass /root."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    bound = 'mount --bind "$0" /var/lib/mysql && exec "$@"'
    wrap = ("unshare", "--mount", "--propagation", "private", "--", "sh", "-ec", bound, str(folder))
    make_database("/var/lib/mysql", wrapped_in=wrap)


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A daemon of one host, and the command that succeeds there once it is ready."""

    name: str
    host: str
    argv: tuple[str, ...]
    ready: tuple[str, ...]
    user: str = ""

    @property
    def label(self) -> str:
        """Its name among all processes of a demo."""
        return f"{self.name}-{self.host}"


def foundation(site: Site) -> list[Daemon]:
    """What Slurm stands on: munge on every host, MariaDB on the controller."""
    munged = [
        Daemon(
            name="munged",
            host=host,
            argv=(
                *("/usr/sbin/munged", "--foreground", f"--key-file={site.munge_key}"),
                *(f"--socket={site.munge_socket}", f"--pid-file={site.run}/munge/munged.pid"),
                f"--seed-file={site.run}/munge-state/seed",
            ),
            ready=("test", "-S", site.munge_socket),
            user="munge",
        )
        # One machine has one munged: all hosts find it at one socket.
        for host in ((CONTROLLER,) if site.one_machine else CLUSTER_HOSTS)
    ]
    settings = str(_MYSQL_CONFIG) if site.one_machine else "/etc/mysql/hpchub.cnf"
    mariadb = Daemon(
        name="mariadb",
        host=CONTROLLER,
        argv=(
            *("mariadbd", f"--defaults-file={settings}", f"--datadir={site.database}"),
            *(f"--socket={site.mariadb_socket}", f"--pid-file={site.run}/mysqld/mysqld.pid"),
        ),
        ready=("test", "-S", site.mariadb_socket),
    )
    return [*munged, mariadb]


def accounting(site: Site) -> Daemon:
    """slurmdbd, which finds MariaDB by the variable its client library reads."""
    argv = ("env", f"MYSQL_UNIX_PORT={site.mariadb_socket}", "slurmdbd", "-D")
    return Daemon(name="slurmdbd", host=CONTROLLER, argv=argv, ready=_port_answers(site, 6819))


def scheduling(site: Site) -> list[Daemon]:
    """slurmctld, and slurmd on each node: the last is ready when all nodes are idle."""
    idle = '[ "$(sinfo -h -p cpu -t idle -o %D)" = ' + str(len(COMPUTE_HOSTS)) + " ]"
    controller = Daemon(
        name="slurmctld", host=CONTROLLER, argv=("slurmctld", "-D"), ready=_port_answers(site, 6817)
    )
    nodes = [
        Daemon(name="slurmd", host=host, argv=("slurmd", "-D", "-N", host), ready=("sh", "-c", idle))
        for host in COMPUTE_HOSTS
    ]
    return [controller, *nodes]


def load_accounts(controller: Host) -> None:
    """Give Slurm its accounts and associations. SiteError with its own words where it refuses."""
    loaded = run_on(controller, ["sacctmgr", "-i", "load", "/etc/slurm/accounting.cfg"])
    if "error" in loaded.lower():
        raise SiteError(f"Slurm's accounting did not take the accounts: {loaded}")


def start_daemons(
    daemons: Sequence[Daemon], hosts: Mapping[str, Host], processes: Processes, *, timeout_s: float = 8.0
) -> None:
    """Start all, then wait for each."""
    for daemon in daemons:
        host = hosts[daemon.host]
        processes.start(daemon.label, host.enter(daemon.argv, daemon.user), follows=host.is_apart)
    for daemon in daemons:
        wait_until(hosts[daemon.host], daemon.ready, processes, daemon.label, timeout_s)


def start_slurm(
    site: Site, hosts: Mapping[str, Host], processes: Processes, say: Callable[[str], None]
) -> None:
    """Start every daemon, each waited for. Returns when both nodes are idle."""
    start_daemons(foundation(site), hosts, processes)
    say("munge on every host, MariaDB on ctl")
    start_daemons([accounting(site)], hosts, processes)
    load_accounts(hosts[CONTROLLER])
    say("slurmdbd with accounts physics and chemistry")
    controller, *nodes = scheduling(site)
    start_daemons([controller], hosts, processes)
    start_daemons(nodes, hosts, processes)
    say("slurmctld on ctl, slurmd on c1 and c2: both idle")


def _port_answers(site: Site, port: int) -> tuple[str, ...]:
    return ("bash", "-c", f"exec 3<>/dev/tcp/{site.controller}/{port}")
