"""What the cluster's people find beside the environments: slurm_magics, and example notebooks."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from hpchub.demo.layout import CHECKOUT
from hpchub.errors import SiteError

EXAMPLES = CHECKOUT / "docs" / "examples"
# Where the hosts see the package; the environment `data` has it on its path (environments.sh).
MAGICS = Path("/opt/slurm_magics")
# Of hpchub the magics import these and nothing else: a contract in pyproject.toml holds it.
_PARTS = ("slurm_magics", "hpchub/__init__.py", "hpchub/errors.py", "hpchub/paths.py", "hpchub/core",
          "hpchub/schedulers", "hpchub/remote")  # fmt: skip
_PYTHON = "/usr/bin/python3.11"  # the environments' own


def lay_out_magics(folder: Path) -> None:
    """Put the magics of this checkout into a new folder, compiled: nobody on the cluster may write there."""
    folder.mkdir()
    for part in _PARTS:
        source, target = CHECKOUT / part, folder / part
        if not source.exists():
            raise SiteError(f"{source} is missing: the demo runs from a whole checkout.")
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    subprocess.run([_PYTHON, "-m", "compileall", "-q", str(folder)], check=True, stdin=subprocess.DEVNULL)
    subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)


def copy_examples(home: Path) -> None:
    """Put the example notebooks into a person's home, as files of theirs to change."""
    target = home / EXAMPLES.name
    target.mkdir(mode=0o755)
    for notebook in EXAMPLES.glob("*.ipynb"):
        shutil.copyfile(notebook, target / notebook.name)
