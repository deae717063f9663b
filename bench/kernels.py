"""How long a kernel on a compute node takes to its first reply.

Against srun with the same Python on the same node: the least that anybody could do by hand. Ours and theirs
in turn; the node is free before each.
"""

from __future__ import annotations

import json
import os
import shutil

from bench.private_demo import CHECKOUT, Demo

USER, PYTHON = "alice", "/opt/hpc/lab/bin/python"
_FOLDER = f"/home/{USER}/kernels-bench"
_POINTS = "[jupyter_client.kernel_provisioners]\nhpchub-slurm = hpchub.kernels.slurm:SlurmProvisioner\n"


def measure(demo: Demo, pairs: int) -> dict[str, dict[str, list[float]]]:
    """By way (ours, srun): seconds to the first reply, and milliseconds of a round trip after it."""
    _install(demo)
    found: dict[str, dict[str, list[float]]] = {"ours": {}, "srun": {}}
    for number in range(pairs + 1):
        for way, values in found.items():
            demo.wait_until_quiet()
            took = json.loads(demo.run("login1", _argv(way), USER).splitlines()[-1])
            for what, seconds in took.items():
                if number:  # the first pair warms the caches
                    values.setdefault(what, []).append(seconds)
    return found


def _argv(way: str) -> list[str]:
    environ = (f"PYTHONPATH={_FOLDER}", f"HOME=/home/{USER}", f"JUPYTER_DATA_DIR={_FOLDER}/data")
    return ["env", *environ, PYTHON, f"{_FOLDER}/kernel_once.py", way]


def _install(demo: Demo) -> None:
    """The package in the person's home, as `pip install --target` would put it."""
    home = demo.homes / USER
    target = home / "kernels-bench"
    shutil.rmtree(target, ignore_errors=True)
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CHECKOUT / "hpchub", target / "hpchub", ignore=skipped)
    for name in ("templates", "kernels"):
        shutil.copytree(CHECKOUT / name, target / "hpchub" / "_data" / name)
    shutil.copy(CHECKOUT / "bench" / "kernel_once.py", target)
    facts = target / "hpchub-0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: hpchub\nVersion: 0\n")
    (facts / "entry_points.txt").write_text(_POINTS)
    owner = home.stat()
    for path in (target, *target.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
