"""docs/explanation/security.md claims no property that no test shows."""

from __future__ import annotations

import re

import pytest

from support.tree import ROOT

PAGE = (ROOT / "docs" / "explanation" / "security.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.partition("## The properties")[2].splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| Property"))
]

# What a security officer will look for, by a word of its row.
_EXPECTED = (
    "Expired", "own account", "wildcard", "no account's", "source", "foreign authority", "stolen certificate",
    "Least privilege", "revoked", "ceiling", "cannot forge", "tokens", "authority's key", "Hosts", "XSRF",
    "Guessing", "Time", "code works once", "log is whole", "Neighbours", "Limits", "scripts",
    "domains", "allowed",
)  # fmt: skip


@pytest.mark.parametrize(("file", "test"), NAMED, ids=lambda part: part.rpartition("/")[2])
def test_named_tests_exist(file: str, test: str) -> None:
    """Each property names tests that are there."""
    assert re.search(rf"^(?:async )?def {test}\(", (ROOT / file).read_text(), re.M)


def test_every_property_has_both_halves() -> None:
    """No row is without a test, and none of its two halves is empty."""
    assert len(ROWS) >= len(_EXPECTED)
    for row in ROWS:
        assert len(row) == 3 and all(row), row
        assert any("`tests/" in half for half in row[1:]), row


@pytest.mark.parametrize("words", _EXPECTED)
def test_no_property_is_missing(words: str) -> None:
    """Each has a row of its own."""
    assert [row[0] for row in ROWS if words in row[0]], words


def test_every_takeover_says_three_things() -> None:
    """What is lost, what is not, and what to do; and none of the parts that face somebody is left out."""
    section = PAGE.partition("## When something is taken over")[2].partition("\n## ")[0]
    parts = re.split(r"^### ", section, flags=re.M)[1:]
    for part in parts:
        assert all(f"*{words}*" in part for words in ("Lost", "Not lost", "Do")), part[:60]
    named = " ".join(part.splitlines()[0] for part in parts)
    for who in (
        "account",
        "browser",
        "JupyterHub",
        "bridge",
        "signer",
        "proxy",
        "login node",
        "compute node",
    ):
        assert who in named
