"""What the demo lays out for the cluster's people, without booting one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hpchub.demo.layout import SCRIPTS
from hpchub.demo.software import lay_out_magics

_LOOK = """
import json
from importlib.metadata import distribution
from slurm_magics.submit import template_folders
points = distribution("hpchub").entry_points
print(json.dumps({
    "package": str(distribution("hpchub").locate_file("")),
    "provisioners": {point.name: point.load().__module__ for point in points},
    "templates": [path.name for path in template_folders()[-1].iterdir()],
}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the hosts see as /opt/slurm_magics."""
    folder = tmp_path_factory.mktemp("opt") / "slurm_magics"
    lay_out_magics(folder)
    return folder


def _run(folder: Path, *arguments: str) -> str:
    # The folder comes before the checkout: of hpchub only what lies there can be imported.
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(folder)}, cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kernels_can_be_installed_from_it(folder: Path, tmp_path: Path) -> None:
    """`hpchub kernels` runs with what is there, and finds the kernelspecs that hpchub ships."""
    _run(folder, "-m", "hpchub.cli", "kernels", "install", "r", "--no-check", "--environment", str(tmp_path))
    assert (tmp_path / "share" / "jupyter" / "kernels" / "r" / "launch").is_file()


def test_what_it_names_of_hpchub_is_there(folder: Path) -> None:
    """In programs that it starts as well, which no linter sees."""
    sources = (folder / "hpchub" / "kernels").glob("*.py")
    named = {name for path in sources for name in re.findall(r"from (hpchub[\w.]*) import", path.read_text())}
    assert "hpchub.prctl" in named
    places = [folder.joinpath(*name.split(".")) for name in named]
    assert [path for path in places if not path.is_dir() and not path.with_suffix(".py").is_file()] == []


def test_jupyter_finds_the_provisioners_and_sbatch_the_templates(folder: Path) -> None:
    """Entry points and templates are there as an installer would have left them."""
    assert json.loads(_run(folder, "-c", _LOOK)) == {
        "package": str(folder),
        "provisioners": {"hpchub-local": "hpchub.kernels.local", "hpchub-slurm": "hpchub.kernels.slurm"},
        "templates": ["spark.sh.j2"],
    }


def test_jupyterlab_and_its_server_find_their_extensions(folder: Path) -> None:
    """As an installer would have left them, where environments.sh leads to."""
    lab = folder / "share/jupyter/labextensions/hpchub-kernels"
    package = json.loads((lab / "package.json").read_text())
    assert (lab / package["jupyterlab"]["_build"]["load"]).is_file()
    script = (SCRIPTS / "environments.sh").read_text()
    for part in (lab, folder / "etc/jupyter/jupyter_server_config.d/hpchub-kernels.json"):
        assert part.exists()
        assert f" {part.relative_to(folder)}" in script
