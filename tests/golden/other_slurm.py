"""Runs the Slurm of another Debian release, for captures: `with OtherSlurm(tree) as slurm`.

The tree is that release's packages, unpacked: README.md beside this file says how. The controller,
slurmdbd and both nodes run in it, in namespaces of their own, with the demo's settings. munge and
MariaDB are this machine's: what they speak is the same. Needs root.
"""

from __future__ import annotations

import pwd
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hpchub.core.command import CommandResult
from hpchub.demo.processes import CLEAN_PATH, child_of
from hpchub.demo.site import COMPUTE_HOSTS, CONTROLLER, Site
from hpchub.demo.slurm import SLURM_FILES, make_database, make_munge_key

# The services' accounts are this machine's, so that its munge and MariaDB can run in the tree.
_PEOPLE = {"root": 0, "alice": 2001, "bob": 2002, "slurmwatch": 2003}
_SERVICES = ("slurm", "munge", "mysql")
_FOLDERS = {
    "run/munge": "munge", "run/mysqld": "mysql", "run/slurmdbd": "slurm", "var/lib/mysql": "mysql",
    "var/spool/slurmctld": "slurm", "var/spool/slurmd": "root", "etc/munge": "munge", "etc/slurm": "root",
}  # fmt: skip
_KINDS = ("--mount", "--net", "--uts", "--ipc", "--pid")
_SETUP = """
mount -t proc proc /proc && mount -t proc proc "$0/proc"
mount --rbind /dev "$0/dev" && mount --rbind /sys "$0/sys"
ip link set lo up && ip address add 10.77.0.1 dev lo && hostname "$1" && exec sleep infinity
"""


class OtherSlurm:
    """One cluster of another version; `settings` are lines for its slurm.conf besides the demo's."""

    def __init__(self, tree: Path, *, settings: str = "") -> None:
        self.tree = tree
        self._settings = settings
        self._site = Site(controller=CONTROLLER, one_machine=True)
        self._pid = 0
        self._users = _PEOPLE | {name: pwd.getpwnam(name).pw_uid for name in _SERVICES}

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "alice",
        environ: Mapping[str, str | None] | None = None,
        stdin: bytes = b"",
    ) -> CommandResult:
        """One command as one person, with nothing but these in its environment."""
        variables = [f"{name}={value}" for name, value in (environ or {}).items() if value is not None]
        argv = self._inside((*variables, *argv), user)
        done = subprocess.run(argv, input=stdin, capture_output=True, check=False)
        stdout, stderr = (text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
        return CommandResult(exit_code=done.returncode, stdout=stdout, stderr=stderr)

    def __enter__(self) -> OtherSlurm:
        self._lay_out()
        argv = ("--fork", "--kill-child", "--propagation", "private", "--", "sh", "-ec", _SETUP)
        self._holder = subprocess.Popen(["unshare", *_KINDS, *argv, str(self.tree), CONTROLLER])
        _wait("its namespaces", lambda: child_of(self._holder.pid) is not None)
        self._pid = child_of(self._holder.pid) or 0
        try:
            _wait("its name", lambda: self._says(("hostname",), CONTROLLER))
            self._boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._holder.kill()  # and with it, every process of its namespaces
        self._holder.wait()

    def _lay_out(self) -> None:
        """Accounts, folders and settings in the tree, where Debian's daemons have names that end in -wlm."""
        etc = self.tree / "etc"
        files = {
            "passwd": "".join(f"{name}:x:{uid}:{uid}::/tmp:/bin/bash\n" for name, uid in self._users.items()),
            "group": "".join(f"{name}:x:{uid}:\n" for name, uid in self._users.items()),
            "hosts": f"127.0.0.1 {' '.join((CONTROLLER, *COMPUTE_HOSTS))} localhost\n",
            "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        }
        for name, text in files.items():
            (etc / name).write_text(text, encoding="utf-8")
        for command in ("slurmctld", "slurmd", "slurmstepd"):
            (self.tree / "usr/sbin" / command).unlink(missing_ok=True)
            (self.tree / "usr/sbin" / command).symlink_to(f"{command}-wlm")
        for folder, owner in _FOLDERS.items():
            shutil.rmtree(self.tree / folder, ignore_errors=True)
            (self.tree / folder).mkdir(parents=True)
            shutil.chown(self.tree / folder, owner)
        for name in SLURM_FILES:
            path = etc / "slurm" / name.removesuffix(".j2")
            path.write_text(self._site.render(name), encoding="utf-8")
        with (etc / "slurm" / "slurm.conf").open("a", encoding="utf-8") as settings:
            settings.write(self._settings)
        (etc / "slurm" / "slurmdbd.conf").chmod(0o600)
        shutil.chown(etc / "slurm" / "slurmdbd.conf", "slurm")
        # None is used. What has no such plugins, as 20.11, does not know the line.
        has_plugins = any(self.tree.glob("usr/lib/*/slurm-wlm/cgroup_v1.so"))
        (etc / "slurm" / "cgroup.conf").write_text("CgroupPlugin=disabled\n" if has_plugins else "")
        make_munge_key(etc / "munge" / "munge.key")
        make_database(str(self.tree / "var/lib/mysql"))
        subprocess.run(["chroot", str(self.tree), "ldconfig"], check=True)

    def _boot(self) -> None:
        run = self.tree / "run"
        socket = self.tree / self._site.munge_socket.lstrip("/")
        self._start(
            *self._enter,
            *("setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "munged", "--foreground"),
            *("--force", f"--key-file={self.tree}/etc/munge/munge.key", f"--socket={socket}"),
            *(f"--pid-file={run}/munge/munged.pid", f"--seed-file={run}/munge/seed"),
        )
        self._start(
            *self._enter,
            *("mariadbd", "--no-defaults", "--skip-networking", "--user=mysql"),
            *(f"--datadir={self.tree}/var/lib/mysql", f"--socket={run}/mysqld/mysqld.sock"),
            *(f"--pid-file={run}/mysqld/mysqld.pid", "--innodb-lock-wait-timeout=900"),
        )
        _wait("munge", socket.exists)
        _wait("MariaDB", (run / "mysqld/mysqld.sock").exists)
        self._start(*self._inside(("slurmdbd", "-D"), "slurm"))
        load = ("sacctmgr", "-i", "load", "/etc/slurm/accounting.cfg")
        _wait("slurmdbd", lambda: self.run(load, user="root").exit_code == 0)
        self._start(*self._inside(("slurmctld", "-D"), "root"))
        for node in COMPUTE_HOSTS:
            self._start(*self._inside(("slurmd", "-D", "-N", node), "root"))
        idle = ("sinfo", "-h", "-p", "cpu", "-t", "idle", "-o", "%D")
        _wait("its nodes", lambda: self._says(idle, str(len(COMPUTE_HOSTS))))

    def _start(self, *argv: str) -> None:
        """A daemon, which ends with the namespaces; what it says is in the tree's /var/log."""
        with (self.tree / "var/log" / "daemons.log").open("ab") as log:
            subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _inside(self, argv: Sequence[str], user: str) -> list[str]:
        number = self._users[user]
        chroot = ("chroot", f"--userspec={number}:{number}", "--groups=", str(self.tree))
        clean = ("env", "-i", f"PATH={CLEAN_PATH}", "LANG=C.UTF-8", "HOME=/tmp", "PWD=/tmp")
        socket = f"MYSQL_UNIX_PORT={self._site.mariadb_socket}"
        return [*self._enter, *chroot, *clean, socket, *argv]

    @property
    def _enter(self) -> tuple[str, ...]:
        return ("nsenter", "-t", str(self._pid), *_KINDS, "--")

    def _says(self, argv: Sequence[str], words: str) -> bool:
        return self.run(argv).stdout.strip() == words


def _wait(what: str, ready: Callable[[], bool], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come up")
        time.sleep(0.2)
