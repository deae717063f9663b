"""Where the files that are no Python modules lie: in a checkout, and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

from hpchub.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent


def templates_dir() -> Path:
    """The folder of batch script templates and pages.

    The wheel carries it inside the package (force-include in pyproject.toml); a checkout, also
    one that is installed as editable, has it beside the package.

    Raises:
        ConfigError: Neither is there; the installation is broken.
    """
    return _data_dir(_PACKAGE, "templates")


def kernels_dir() -> Path:
    """The folder of kernelspecs that hpchub ships. ConfigError as above."""
    return _data_dir(_PACKAGE, "kernels")


def _data_dir(package: Path, name: str) -> Path:
    # The wheel's comes first: beside an installed package lie other projects' folders.
    installed, checkout = package / "_data" / name, package.parent / name
    if installed.is_dir():
        return installed
    if checkout.is_dir() and (package.parent / "pyproject.toml").is_file():
        return checkout
    raise ConfigError(
        f"hpchub's folder of {name} is missing: neither {installed} nor {checkout} is there.",
        "Install hpchub again from its wheel, or run it from a whole checkout.",
    )
