"""The Jupyter environments of the demo cluster, built once and kept in the cache."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from hpchub.demo.layout import CHECKOUT, ETC, SCRIPTS, cache_folder
from hpchub.errors import SiteError

REQUIREMENTS = CHECKOUT / "requirements"
_LAB = REQUIREMENTS / "cluster.txt"
_DATA = REQUIREMENTS / "cluster-data.txt"


def ready_environments(
    say: Callable[[str], None], in_place: Callable[[Path], AbstractContextManager[None]] | None = None
) -> Path:
    """The folder that the hosts see as /opt/hpc, built first where it is missing or out of date.

    It is named after what it was made of, so a running demo keeps the one it started with. `in_place`
    makes a folder this machine's own /opt/hpc for as long as it is being built; without it, only
    the build sees it there.
    """
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    ready = cache / f"environments-{_fingerprint()}"
    with (cache / "environments.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            say("Building the cluster's environments: once, a minute or two.")
            fresh = cache / "environments.new"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(mode=0o755)
            if in_place:
                with in_place(fresh):
                    build_environments()
            else:
                wrap = ("unshare", "--mount", "--propagation", "private", "--")
                build_environments((*wrap, "sh", str(SCRIPTS / "private-opt.sh"), str(fresh)))
            shutil.copytree(ETC / "modulefiles", fresh / "modulefiles")
            fresh.rename(ready)
            _remove_older(cache, ready)
    return ready


def _remove_older(cache: Path, newest: Path) -> None:
    """Remove the environments that no demo has mounted any more."""
    mounted = "".join(
        text for path in Path("/proc").glob("[0-9]*/mountinfo") if (text := _read_while_there(path))
    )
    here = Path("/opt/hpc")
    linked = here.readlink().name if here.is_symlink() else ""
    for folder in cache.glob("environments-*"):
        if folder != newest and folder.name not in mounted and folder.name != linked:
            shutil.rmtree(folder)


def _read_while_there(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # the process has ended since it was listed, or is not ours to look at


def _fingerprint() -> str:
    files = [_LAB, _DATA, SCRIPTS / "environments.sh", *sorted((ETC / "modulefiles").rglob("*"))]
    for path in files[:2]:
        if not path.exists():
            raise SiteError(f"{path} is missing: the demo installs what is pinned there.")
    parts = [path.read_bytes() for path in files if path.is_file()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def build_environments(wrapped_in: Sequence[str] = ()) -> None:
    """Build them in an empty /opt/hpc, or in what the wrapper shows there."""
    argv = [*wrapped_in, "sh", str(SCRIPTS / "environments.sh"), str(_LAB), str(_DATA)]
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, stdout=None, text=True, check=False
    )
    if done.returncode != 0:
        last = "\n".join(done.stderr.splitlines()[-15:])
        raise SiteError(f"The environments could not be built:\n{last}")
