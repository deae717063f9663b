"""What only the standard library may serve. `lint-imports` holds the rest (pyproject.toml)."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from support.tree import ROOT, shown

PACKAGE = ROOT / "hpchub"
_CORE_MAY = {"hpchub.core", "hpchub.errors"}


def _imported(path: Path) -> set[str]:
    """Full names of all modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            found.add(node.module or "")
    return found


def _is_standard(module: str) -> bool:
    return module.split(".")[0] in sys.stdlib_module_names


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("core/*.py")), ids=shown)
def test_core_needs_only_the_standard_library(path: Path) -> None:
    """Whatever else is missing on a machine, the core can be imported."""
    foreign = {module for module in _imported(path) if not _is_standard(module)}
    assert {module for module in foreign if not module.startswith(tuple(_CORE_MAY))} == set()


@pytest.mark.parametrize("name", ["launcher", "kernel_agent"])
def test_what_runs_on_the_cluster_is_one_file_of_the_standard_library(name: str) -> None:
    """It is copied to the cluster by itself, where hpchub is not installed, and read by Python 3.8."""
    path = PACKAGE / "remote" / f"{name}.py"
    assert {module for module in _imported(path) if not _is_standard(module)} == set()
    ast.parse(path.read_text(), feature_version=(3, 8))


def test_errors_need_nothing() -> None:
    """Every process and every edge can raise and read every error."""
    assert all(map(_is_standard, _imported(PACKAGE / "errors.py")))
