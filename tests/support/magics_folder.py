"""slurm_magics in alice's home, as `pip install --target` would put it there."""

from __future__ import annotations

import io
import subprocess
import tarfile

from hpchub.demo.info import find_host
from hpchub.demo.layout import Layout
from support.demo import Demo
from support.tree import ROOT

FOLDER = "/home/alice/magics-test"
_PARTS = ("slurm_magics", "hpchub/__init__.py", "hpchub/errors.py", "hpchub/paths.py", "hpchub/core",
          "hpchub/schedulers", "hpchub/remote")  # fmt: skip


def install(demo: Demo, name: str, text: str) -> None:
    """The package, afresh, and one file beside it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for part in _PARTS:
            archive.add(ROOT / part, part, filter=_no_caches)
        entry = tarfile.TarInfo(name)
        entry.size = len(text.encode())
        archive.addfile(entry, io.BytesIO(text.encode()))
    script = f"rm -rf {FOLDER} && mkdir {FOLDER} && tar -x --no-same-owner -C {FOLDER}"
    # With bytes for standard input, which `demo.exec` does not take.
    argv = find_host(Layout(demo.directory), "login1").enter(("sh", "-c", script), "alice")
    subprocess.run(argv, input=packed.getvalue(), check=True, timeout=60)


def _no_caches(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in entry.name else entry
