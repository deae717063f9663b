"""Where kernelspecs lie: for one person, in one environment, for the whole machine.

As jupyter_core has it, read from the same variables, so that no Jupyter need be installed where
`hpchub kernels` runs: https://docs.jupyter.org/en/latest/use/jupyter-directories.html#data-files
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from hpchub.errors import ConfigError
from hpchub.kernels.kernelspec import Kernelspec, load_kernelspec

_SYSTEM = (Path("/usr/local/share/jupyter"), Path("/usr/share/jupyter"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A folder of kernelspecs, and whose it is: `user`, `environment`, `system`, `JUPYTER_PATH`."""

    kind: str
    folder: Path


def user_place(environ: Mapping[str, str]) -> Place:
    """The person's own."""
    home = Path(environ.get("HOME") or Path.home())
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "jupyter"
    return Place(kind="user", folder=Path(environ.get("JUPYTER_DATA_DIR") or data) / "kernels")


def environment_place(prefix: Path) -> Place:
    """One environment's: that in which Jupyter itself is installed sees it."""
    return Place(kind="environment", folder=prefix.absolute() / "share" / "jupyter" / "kernels")


def system_place() -> Place:
    """Everybody's on this machine."""
    return Place(kind="system", folder=_SYSTEM[0] / "kernels")


def places(environ: Mapping[str, str], prefix: Path = Path(sys.prefix)) -> list[Place]:
    """All folders that Jupyter of an environment searches, the first one wins."""
    named = [Path(part) for part in environ.get("JUPYTER_PATH", "").split(":") if part]
    own = [user_place(environ), environment_place(prefix)]
    return [
        *(Place(kind="JUPYTER_PATH", folder=part / "kernels") for part in named),
        *(reversed(own) if _prefers_environment(environ, prefix) else own),
        *(Place(kind="system", folder=part / "kernels") for part in _SYSTEM),
    ]


def _prefers_environment(environ: Mapping[str, str], prefix: Path) -> bool:
    """Whether it comes before the person's own folder: where it is their own environment, as a rule."""
    asked = environ.get("JUPYTER_PREFER_ENV_PATH", "").lower()
    if asked:
        return asked not in {"no", "n", "false", "off", "0", "0.0"}
    is_one = (prefix / "pyvenv.cfg").is_file() or prefix.parent.name == "envs"
    return is_one and prefix.is_dir() and prefix.stat().st_uid == os.getuid()


def list_kernelspecs(found_in: list[Place]) -> tuple[list[tuple[Place, Kernelspec]], list[str]]:
    """Every kernelspec with its place, by name, and a line for each folder that holds none that can be read.

    One that a place before it hides is left out, as Jupyter does.
    """
    specs: dict[str, tuple[Place, Kernelspec]] = {}
    problems = []
    for place in found_in:
        folders, unreadable = kernel_folders(place.folder)
        problems += unreadable
        for folder in folders:
            if folder.name.lower() in specs:
                continue
            try:
                specs[folder.name.lower()] = (place, load_kernelspec(folder))
            except ConfigError as error:
                problems.append(str(error))
    return [specs[name] for name in sorted(specs)], problems


def provisioners(prefix: Path) -> set[str]:
    """The kernel provisioners of an environment with Jupyter, whose own are among them; or none."""
    own = [str(path) for path in prefix.glob("lib*/python3*/*-packages")]
    path = sys.path if prefix == Path(sys.prefix) else own
    points = [point for one in distributions(path=path) for point in one.entry_points]
    names = {point.name for point in points if point.group == "jupyter_client.kernel_provisioners"}
    return names if "local-provisioner" in names else set()


def is_file(path: Path) -> bool:
    """OSError where it cannot be known: Path.is_file() of Python 3.14 says no then."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def kernel_folders(folder: Path) -> tuple[list[Path], list[str]]:
    """The folders in it that have a kernel.json, by name, and a line for each that we may not look into."""
    found, problems = [], []
    try:
        entries = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except OSError as error:
        return [], [f"{folder} cannot be read: {error.strerror}."]
    for entry in entries:
        try:
            if is_file(entry / "kernel.json"):
                found.append(entry)
        except OSError as error:
            problems.append(f"{entry} cannot be read: {error.strerror}.")
    return found, problems
