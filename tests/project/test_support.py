"""The tests' own helpers: a check that cannot fail checks nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.ci import counts_skips
from support.demo import log_files
from support.tree import ROOT

_SKIPS = """
import pytest

def test_passes():
    pass

def test_skips():
    pytest.skip("no such service")

@pytest.mark.xfail(strict=True)
def test_is_expected_to_fail():
    raise AssertionError
"""
_MODULE_SKIPS = 'import pytest\npytest.skip("no such library", allow_module_level=True)\n'


def _run(tmp_path: Path, ci: str) -> subprocess.CompletedProcess[str]:
    """A test run of both texts."""
    (tmp_path / "test_it.py").write_text(_SKIPS)
    (tmp_path / "test_module.py").write_text(_MODULE_SKIPS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "tests"), "CI": ci}
    argv = (sys.executable, "-m", "pytest", "-q", "-p", "support.ci", "-p", "no:cacheprovider")
    return subprocess.run(
        (*argv, "--continue-on-collection-errors", str(tmp_path)),
        env=environ, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ci", "counts"), [("", False), ("0", False), ("false", False), ("1", True), ("true", True)]
)
def test_what_ci_is_set_to(monkeypatch: pytest.MonkeyPatch, ci: str, counts: bool) -> None:
    """Nothing, 0 and false are a laptop."""
    monkeypatch.setenv("CI", ci)
    assert counts_skips() is counts


@pytest.mark.slow
def test_a_skip_is_a_skip_on_a_laptop(tmp_path: Path) -> None:
    """Without CI, what is missing is named and passes."""
    result = _run(tmp_path, "")
    assert result.returncode == 0, result.stdout
    assert "1 passed, 2 skipped, 1 xfailed" in result.stdout


@pytest.mark.slow
def test_a_skip_fails_in_ci(tmp_path: Path) -> None:
    """With CI, a skipped test fails and says why, a module that skips itself while it is collected does so
    as well, and an expected failure stays expected.
    """
    result = _run(tmp_path, "true")
    assert result.returncode == 1
    assert "1 failed, 1 passed, 1 xfailed, 1 error" in result.stdout
    assert "no such service" in result.stdout
    assert "no such library" in result.stdout


def test_logs_are_found_in_a_folder_and_by_name(tmp_path: Path) -> None:
    """info.json may name one folder of logs, or each log."""
    (tmp_path / "sub").mkdir()
    one, two = tmp_path / "one.log", tmp_path / "sub" / "two.log"
    one.touch()
    two.touch()
    assert log_files(str(tmp_path)) == [one, two]
    assert log_files({"hub": str(two), "gone": str(tmp_path / "gone.log")}) == [two]
