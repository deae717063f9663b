"""`%%sbatch` against sbatch, and fifty live cards, on a login node of the demo cluster."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

from bench.private_demo import CHECKOUT, Demo

USER, PYTHON = "alice", "/opt/hpc/data/bin/python"
_NAME = "magics-bench"
_LIMIT_S = 300.0


def measure(demo: Demo, what: str) -> dict[str, Any]:
    """What jobs_once.py says of `sbatch` or `cards`; nobody else has a job meanwhile."""
    demo.wait_until_quiet()
    _install(demo)
    folder = f"/home/{USER}/{_NAME}"
    environ = (f"PYTHONPATH={folder}", f"HOME=/home/{USER}", f"IPYTHONDIR={folder}/ipython")
    argv = ["env", f"--chdir={folder}", *environ, PYTHON, f"{folder}/jobs_once.py", what]
    said = demo.run("login1", argv, USER, limit_s=_LIMIT_S)
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def _install(demo: Demo) -> None:
    """The package in the person's home, afresh, as `pip install --target` would put it."""
    home = demo.homes / USER
    target = home / _NAME
    shutil.rmtree(target, ignore_errors=True)
    for name in ("slurm_magics", "hpchub"):
        shutil.copytree(CHECKOUT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "bench" / "jobs_once.py", target)
    owner = home.stat()
    for path in (target, *target.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
