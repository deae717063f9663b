"""What the cluster's people find beside the environments: the magics, `hpchub kernels`, example notebooks."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from hpchub.demo.layout import CHECKOUT
from hpchub.errors import SiteError

EXAMPLES = CHECKOUT / "docs" / "examples"
# Where the hosts see the package; the environment `data` has it on its path (environments.sh).
MAGICS = Path("/opt/slurm_magics")
# Of hpchub the magics import these and nothing else: a contract in pyproject.toml holds it.
_PARTS = ("slurm_magics", "hpchub/__init__.py", "hpchub/errors.py", "hpchub/paths.py", "hpchub/core",
          "hpchub/schedulers", "hpchub/remote")  # fmt: skip
# And `hpchub kernels` these.
_FOR_KERNELS = ("hpchub/cli.py", "hpchub/kernels", "hpchub/prctl.py", "hpchub/private_files.py")
# Beside the package in a checkout, inside it in a wheel (pyproject.toml, force-include).
_DATA = ("templates", "kernels")
# By these Jupyter knows hpchub-local and hpchub-slurm.
_PROVISIONERS = "jupyter_client.kernel_provisioners"
_PYTHON = "/usr/bin/python3.11"  # the environments' own


def lay_out_magics(folder: Path) -> None:
    """Put the magics and `hpchub kernels` of this checkout into a new folder.

    They are compiled already: nobody on the cluster may write there.
    """
    folder.mkdir()
    places = {part: part for part in (*_PARTS, *_FOR_KERNELS)}
    places.update({name: f"hpchub/_data/{name}" for name in _DATA})
    places.update(_shared_data())
    for part, place in places.items():
        source, target = CHECKOUT / part, folder / place
        if not source.exists():
            raise SiteError(f"{source} is missing: the demo runs from a whole checkout.")
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    _write_metadata(folder)
    subprocess.run([_PYTHON, "-m", "compileall", "-q", str(folder)], check=True, stdin=subprocess.DEVNULL)
    subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)


def _shared_data() -> dict[str, str]:
    """What an installer would put into the environment, beside the package: for JupyterLab and its server."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    places: dict[str, str] = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    return places


def _write_metadata(folder: Path) -> None:
    """What an installer would leave beside it: the version, and how Jupyter finds the provisioners."""
    installed = distribution("hpchub")
    info = folder / f"hpchub-{installed.version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: hpchub\nVersion: {installed.version}\n")
    points = installed.entry_points.select(group=_PROVISIONERS)
    lines = [f"[{_PROVISIONERS}]", *(f"{point.name} = {point.value}" for point in points)]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def copy_examples(home: Path) -> None:
    """Put the example notebooks into a person's home, as files of theirs to change."""
    target = home / EXAMPLES.name
    target.mkdir(mode=0o755)
    for notebook in EXAMPLES.glob("*.ipynb"):
        shutil.copyfile(notebook, target / notebook.name)
