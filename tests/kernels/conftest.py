"""Environments, modules and container programs for kernels, in a temporary home."""

from __future__ import annotations

import json
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from hpchub.cli import main
from hpchub.kernels.kernelspec import Kernelspec, load_kernelspec
from support.kernel_jobs import OneJob

Install = Callable[..., Path]

# A container program that runs the command on this machine, and writes down how it was called. The container
# that podman-hpc is told to remove is written down apart: that comes seconds after the others.
_CONTAINER = """#!/bin/bash
[ "$1" = rm ] && exec echo "${@: -1}" >"$HOME/removed"
printf '%s\\n' "$@" >"$HOME/called"
while [ $# -gt 0 ] && [ "$1" != image.sif ]; do
    case "$1" in --entrypoint=*) program=${1#*=} ;; --image=image.sif) break ;; esac
    shift
done
shift
while [[ "$1" == --volume=* ]]; do shift; done
exec $program "$@"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, in which Jupyter finds what is installed for the user."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_PATH", "XDG_DATA_HOME", "JUPYTER_RUNTIME_DIR", "MODULEPATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment, as light as one can be: the packages of this Python's, by a .pth file."""
    prefix = tmp_path / "my env"
    packages = prefix / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python3").symlink_to(Path(sys.executable).resolve())
    home = Path(sys.executable).resolve().parent
    (prefix / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n")
    return prefix


@pytest.fixture
def containers(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Stand-ins for apptainer, podman-hpc and shifter; a function to what the last was called with."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("apptainer", "podman-hpc", "shifter"):
        (folder / name).write_text(_CONTAINER)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return lambda: (home / "called").read_text().splitlines()


@pytest.fixture
def modules(tmp_path: Path, environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module `py/1` of a real module system, whose python3 is the environment's."""
    if not any(
        map(Path.exists, (Path("/usr/share/modules/init/bash"), Path("/usr/share/lmod/lmod/init/bash")))
    ):
        pytest.skip("no module system: `hpchub demo install` installs Environment Modules")
    folder = tmp_path / "modules" / "py"
    folder.mkdir(parents=True)
    (folder / "1").write_text(
        f"#%Module1.0\nprepend-path PATH {{{environment}/bin}}\nsetenv FROM_MODULE yes\n"
    )
    monkeypatch.setenv("MODULEPATH", str(folder.parent))


@pytest.fixture
def installed(home: Path) -> Callable[..., Kernelspec]:
    """A function that runs `hpchub kernels install` with arguments, and reads what it installed."""

    def install(*arguments: str | Path) -> Kernelspec:
        folder = home / ".local" / "share" / "jupyter" / "kernels"
        before = set(folder.glob("*"))
        assert main(["kernels", "install", *map(str, arguments)]) == 0
        (fresh,) = set(folder.glob("*")) - before
        return load_kernelspec(fresh)

    return install


@pytest.fixture
def job(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> OneJob:
    """Slurm's commands, which run one job here."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return OneJob(folder)


@pytest.fixture
def kernel(home: Path) -> Install:
    """A function that writes the kernelspec `node`, with settings for its job."""

    def write(**config: object) -> Path:
        folder = home / ".local/share/jupyter/kernels/node"
        folder.mkdir(parents=True, exist_ok=True)
        stanza = {"provisioner_name": "hpchub-slurm", "config": config}
        body = {
            "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": "Node", "language": "python", "env": {"FROM_SPEC": "yes"},
            "metadata": {"kernel_provisioner": stanza},
        }  # fmt: skip
        (folder / "kernel.json").write_text(json.dumps(body))
        return folder

    return write
