"""The Jupyter environments of the demo cluster, built once and kept in the cache."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from hpchub.demo.layout import CHECKOUT, ETC, SCRIPTS, cache_folder
from hpchub.errors import SiteError

REQUIREMENTS = CHECKOUT / "requirements"
_LAB = REQUIREMENTS / "cluster.txt"
_DATA = REQUIREMENTS / "cluster-data.txt"


def ready_environments(say: Callable[[str], None]) -> Path:
    """The folder that the hosts see as /opt/hpc, built first where it is missing or out of date.

    It is named after what it was made of, so a running demo keeps the one it started with.
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
            _build(fresh)
            shutil.copytree(ETC / "modulefiles", fresh / "modulefiles")
            fresh.rename(ready)
    return ready


def _fingerprint() -> str:
    files = [_LAB, _DATA, SCRIPTS / "environments.sh", *sorted((ETC / "modulefiles").rglob("*"))]
    for path in files[:2]:
        if not path.exists():
            raise SiteError(f"{path} is missing: the demo installs what is pinned there.")
    parts = [path.read_bytes() for path in files if path.is_file()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def _build(folder: Path) -> None:
    script = (SCRIPTS / "environments.sh").read_text(encoding="utf-8")
    command = ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", script, "environments"]
    done = subprocess.run(
        [*command, str(folder), str(_LAB), str(_DATA)],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, stdout=None, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        last = "\n".join(done.stderr.splitlines()[-15:])
        raise SiteError(f"The environments could not be built:\n{last}")
