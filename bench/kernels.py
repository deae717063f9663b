"""How long a kernel on a compute node takes to its first reply: `python -m bench.kernels [PAIRS [DEMO]]`.

Against srun with the same Python on the same node: the least that anybody could do by hand. Ours and theirs
in turn, on a demo cluster of its own or the one whose folder is named; the node is free before each.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

from bench.private_demo import CHECKOUT, Demo, private_demo
from bench.report import spread
from bench.starts import ratios

USER, PYTHON = "alice", "/opt/hpc/lab/bin/python"
_FOLDER = f"/home/{USER}/kernels-bench"
_POINTS = "[jupyter_client.kernel_provisioners]\nhpchub-slurm = hpchub.kernels.slurm:SlurmProvisioner\n"


def main() -> None:
    """A table: seconds to the first reply, and of a round trip after it."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with nullcontext(_running(Path(sys.argv[2]))) if len(sys.argv) > 2 else private_demo() as demo:
        _install(demo)
        found: dict[str, dict[str, list[float]]] = {"ours": {}, "srun": {}}
        for number in range(pairs + 1):
            for way, values in found.items():
                demo.wait_until_quiet()
                took = json.loads(demo.run("login1", _argv(way), USER).splitlines()[-1])
                for what, seconds in took.items():
                    if number:  # the first pair warms the caches
                        values.setdefault(what, []).append(seconds)
    print("| | median | min | max |\n|---|---:|---:|---:|")
    for what, digits in (("first reply, s", 2), ("round trip, ms", 1)):
        for way, values in found.items():
            print(f"| {way}: {what} | {' | '.join(spread(values[what], digits))} |")
        both = ratios(found["ours"][what], found["srun"][what])
        print(f"| **ratio, pair by pair**: {what} | {' | '.join(spread(both, 2))} |")


def _argv(way: str) -> list[str]:
    environ = (f"PYTHONPATH={_FOLDER}", f"HOME=/home/{USER}", f"JUPYTER_DATA_DIR={_FOLDER}/data")
    return ["env", *environ, PYTHON, f"{_FOLDER}/kernel_once.py", way]


def _running(folder: Path) -> Demo:
    return Demo(folder, json.loads((folder / "info.json").read_text(encoding="utf-8")))


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


if __name__ == "__main__":
    main()
