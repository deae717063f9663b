"""The wheel: what a site installs holds all that a checkout has."""

from __future__ import annotations

import configparser
import importlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from support.tree import ROOT, files, shown


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """A wheel of this checkout, built with the pinned build tools."""
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is missing: `make .venv/.stamps/hub` installs it")
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)),
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (built,) = out.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        yield archive


def test_the_wheel_holds_every_file_of_the_package_and_its_data(
    wheel: zipfile.ZipFile,
) -> None:
    """Modules, py.typed, the demo's configuration files, batch scripts, pages, kernels: none is left out."""
    packages = (ROOT / "hpchub", ROOT / "slurm_magics")
    wanted = {shown(path) for path in files() if any(map(path.is_relative_to, packages))}
    data = (ROOT / "templates", ROOT / "kernels")
    wanted |= {f"hpchub/_data/{shown(path)}" for path in files() if any(map(path.is_relative_to, data))}
    assert any(name.startswith("hpchub/demo/etc/") for name in wanted)
    assert any(name.startswith("hpchub/_data/templates/slurm/") for name in wanted)
    assert "hpchub/_data/kernels/launch" in wanted
    assert "hpchub/py.typed" in wanted
    assert wanted - set(wheel.namelist()) == set()


def test_the_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    """No tests, no benchmark, no state of a demo ends in site-packages."""
    assert {name.split("/")[0].split("-")[0] for name in wheel.namelist()} == {"hpchub", "slurm_magics"}


def test_the_wheel_brings_the_extensions_of_jupyterlab_and_its_server(wheel: zipfile.ZipFile) -> None:
    """An installer puts them where both look: JupyterLab finds the script, the server what to import."""
    data = f"hpchub-{version('hpchub')}.data/data/"
    lab = f"{data}share/jupyter/labextensions/hpchub-kernels/"
    package = json.loads(wheel.read(f"{lab}package.json"))
    assert package["name"] == "hpchub-kernels"
    assert package["version"] == version("hpchub").replace(".dev", "-dev.")
    script = wheel.read(lab + package["jupyterlab"]["_build"]["load"])
    assert script == (ROOT / "jupyter" / "labextension" / "kernels.js").read_bytes()
    config = json.loads(wheel.read(f"{data}etc/jupyter/jupyter_server_config.d/hpchub-kernels.json"))
    for module, enabled in config["ServerApp"]["jpserver_extensions"].items():
        assert enabled
        assert callable(importlib.import_module(module)._load_jupyter_server_extension)


def test_entry_points_name_what_exists(wheel: zipfile.ZipFile) -> None:
    """JupyterHub finds us as "hpchub", and each name leads to an object."""
    (listed,) = [name for name in wheel.namelist() if name.endswith("/entry_points.txt")]
    points = configparser.ConfigParser()
    points.read_string(wheel.read(listed).decode())
    assert set(points.sections()) == {
        "console_scripts",
        "jupyter_client.kernel_provisioners",
        "jupyterhub.authenticators",
        "jupyterhub.proxies",
        "jupyterhub.spawners",
    }
    for section in points.sections():
        for point in points[section].values():
            module, _, name = point.partition(":")
            assert hasattr(importlib.import_module(module), name), f"{section}: {point}"


@pytest.mark.parametrize("name", ["templates", "kernels"])
def test_data_is_found_in_an_installed_wheel(wheel: zipfile.ZipFile, tmp_path: Path, name: str) -> None:
    """Unpacked elsewhere, far from a checkout, the package finds its templates and kernels beside itself."""
    wheel.extractall(tmp_path)
    found = subprocess.run(
        (sys.executable, "-c", f"from hpchub.paths import {name}_dir; print({name}_dir())"),
        env={"PYTHONPATH": str(tmp_path)}, cwd=tmp_path, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert Path(found.stdout.strip()) == tmp_path / "hpchub" / "_data" / name
