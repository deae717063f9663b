"""docs/explanation/promises.md promises nothing that no test holds."""

from __future__ import annotations

import re

import pytest

from support.tree import ROOT

PAGE = (ROOT / "docs" / "explanation" / "promises.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


@pytest.mark.parametrize(("file", "test"), NAMED, ids=lambda part: part.rpartition("/")[2])
def test_named_tests_exist(file: str, test: str) -> None:
    """Each promise names a test that is there."""
    assert re.search(rf"^(?:async )?def {test}\(", (ROOT / file).read_text(), re.M)


def test_every_promise_names_a_test() -> None:
    """No row of a table is without one, and every test of outages belongs to a promise."""
    rows = [
        line for line in PAGE.splitlines() if line.startswith("|") and not line.startswith(("|---", "| What"))
    ]
    assert rows and [row for row in rows if "`tests/" not in row] == []
    outages = (ROOT / "tests" / "live" / "test_outages.py").read_text()
    assert set(re.findall(r"^def (test_\w+)", outages, re.M)) <= {test for _, test in NAMED}
