"""`make audit` fails where a pin has a known weakness, and never calls "unknown" what it did not look up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.tree import ROOT

# pip-audit 2.10.1's own words, cut to what is read.
WEAK = {
    "name": "demo",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-2026-1", "fix_versions": ["1.1"], "aliases": []}],
}
GOOD = {"name": "fine", "version": "2.0", "vulns": []}
SKIPPED = {"name": "lost", "skip_reason": "Dependency not found on PyPI and could not be audited: lost (3.0)"}


@pytest.mark.parametrize(
    ("pypi", "osv", "code", "said"),
    [
        ([GOOD, SKIPPED], None, 0, "not looked up: lost"),
        ([WEAK, GOOD], None, 1, "demo 1.0: PYSEC-2026-1, mended in 1.1"),
        ([SKIPPED], [WEAK], 1, "osv: 1 known weaknesses"),
        ([SKIPPED], None, 0, "NOTHING WAS CHECKED"),
        (None, None, 0, "NOTHING WAS CHECKED"),
    ],
)
def test_what_is_made_of_the_answers(
    tmp_path: Path, pypi: list[object] | None, osv: list[object] | None, code: int, said: str
) -> None:
    """A weakness fails; a source that looked nothing up is passed over; none at all is said aloud."""
    told = {
        name: json.dumps({"dependencies": rows}) if rows else ""
        for name, rows in (("pypi", pypi), ("osv", osv))
    }
    program = tmp_path / "pip-audit"
    program.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"told = {told!r}[sys.argv[sys.argv.index('--vulnerability-service') + 1]]\n"
        "print(told)\nsys.exit(0 if told else 'ConnectionError: no way there')\n"
    )
    program.chmod(0o700)
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "audit.py", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (code, "")
    assert said in done.stdout
    assert ("NOTHING" in done.stdout) == ("NOTHING" in said)


def test_lint_exceptions_about_safety_give_their_reason() -> None:
    """Ruff's S rules, which are bandit's, are on; each exception says why on its own line."""
    tracked = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    bare = [
        f"{name}:{number}"
        for name in tracked.stdout.split()
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
        if "# noqa: S" in line and len(line.partition("# noqa: ")[2].split()) < 3
    ]
    assert bare == []
    settings = (ROOT / "pyproject.toml").read_text()
    assert '"S",' in settings
    rows = [
        line.strip()
        for line in settings.splitlines()
        if line.strip().startswith('"S') and line.strip()[2:5].isdigit()
    ]
    assert len(rows) > 5 and [row for row in rows if "#" not in row] == []
