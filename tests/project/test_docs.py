"""Pages that lead somewhere, and snippets that can be read by what they are for."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from support.tree import ROOT, files, shown

PAGES = list(files(".md"))
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w+-]*)[^\n]*\n(?P<body>.*?)^(?P=indent)```", re.M | re.S
)
_LINK = re.compile(r"(?<!`)\[[^\]\[]*(?:!\[[^\]]*\]\([^)]*\))?[^\]\[]*\]\(([^)\s]+)[^)]*\)")
_MAKE = re.compile(r"`make ([a-z][a-z-]*)|^make ([a-z][a-z-]*)", re.M)


class Snippet(NamedTuple):
    """A fenced block: where, in which language, and what it says."""

    page: Path
    language: str
    body: str


def _snippets() -> list[Snippet]:
    found = []
    for page in PAGES:
        for fence in _FENCE.finditer(page.read_text()):
            indent = len(fence["indent"])
            body = "".join(line[indent:] for line in fence["body"].splitlines(keepends=True))
            found.append(Snippet(page, fence["language"], body))
    return found


def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text())


@cache
def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#{1,6} +(.+?) *$", _prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_relative_links_lead_somewhere(page: Path) -> None:
    """Each relative link names a file of the checkout, and its anchor a heading in it."""
    dead = []
    for target in _LINK.findall(_prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        if not place.exists() or (anchor and place.suffix == ".md" and anchor not in _anchors(place)):
            dead.append(target)
    assert dead == []


def _read_as(snippet: Snippet) -> None:
    match snippet.language:
        case "python":
            ast.parse(snippet.body)
        case "toml":
            tomllib.loads(snippet.body)
        case "json":
            json.loads(snippet.body)
        case "sh" | "bash":
            result = subprocess.run(
                ("bash", "-n"), input=snippet.body, capture_output=True, text=True, check=False
            )
            assert result.returncode == 0, result.stderr
        case _:
            assert snippet.language in {"", "text", "console", "ini", "yaml", "html", "diff", "nginx"}


@pytest.mark.parametrize(
    "snippet", _snippets(), ids=lambda snippet: f"{shown(snippet.page)}:{snippet.language}"
)
def test_snippets_can_be_read(snippet: Snippet) -> None:
    """Python parses, TOML and JSON load, shell text is a shell's: no page teaches a typing error."""
    _read_as(snippet)


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_make_targets_exist(page: Path) -> None:
    """Whatever a page tells people to make, the Makefile can make."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
    named = {first or second for first, second in _MAKE.findall(page.read_text())}
    assert named - targets == set()


def test_the_changelog_has_a_place_for_the_next_entry() -> None:
    """Keep a Changelog's Unreleased section stands first."""
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == "[Unreleased]"


def test_decisions_are_numbered_listed_and_say_what_was_rejected() -> None:
    """ADRs count up without a gap, the index names each, and each has the options not taken."""
    records = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    index = (ROOT / "docs" / "index.md").read_text()
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    for path in records:
        assert f"adr/{path.name}" in index, path.name
        assert "## Rejected" in path.read_text(), path.name


def test_every_page_can_be_reached_from_the_index() -> None:
    """No page under docs/ is an orphan: links from docs/index.md lead to all of them."""
    seen: set[Path] = set()
    waiting = [ROOT / "docs" / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or not page.is_file() or page.suffix != ".md":
            continue
        seen.add(page)
        links = (link.partition("#")[0] for link in _LINK.findall(_prose(page)) if ":" not in link)
        waiting += [(page.parent / link).resolve() for link in links if link]
    orphans = {shown(page) for page in (ROOT / "docs").rglob("*.md")} - {shown(page) for page in seen}
    assert orphans == set()


def test_the_glossary_is_sorted() -> None:
    """A reader finds a word where the alphabet puts it."""
    words = re.findall(r"^\*\*(.+?)\*\*", (ROOT / "docs" / "glossary.md").read_text(), re.M)
    assert words == sorted(words, key=str.casefold)
