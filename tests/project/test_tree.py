"""What no file of the project may hold."""

from __future__ import annotations

import re
from pathlib import Path

from hpchub.demo.accounts import PEOPLE
from support.tree import ROOT, files, shown

# Written in two halves, or this file would find itself.
_INDEX_HOSTS = tuple(
    ".".join(host)
    for host in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("yarnpkg", "com"),
    )
)
# People of the demo and of examples. Any other home is on somebody's own machine.
_EXAMPLE_HOMES = "|".join((*(re.escape(person.name) for person in PEOPLE), "[a-z]", "USER", "NAME"))
_MACHINE_PATH = re.compile(
    rf"(?<![\w.~}}-])/(?:work|root|Users)/[\w.]|(?<![\w.~}}-])/home/(?!(?:{_EXAMPLE_HOMES})/)[\w.-]+/"
)
_LOCAL_SETTING = re.compile(r"extra-index-url|find-links=|trusted-host=|index-url=")


def _texts() -> list[tuple[Path, str]]:
    found = []
    for path in files():
        content = path.read_bytes()
        if b"\0" not in content:
            found.append((path, content.decode(errors="replace")))
    return found


def test_no_file_names_a_package_index() -> None:
    """Which registry to ask is each machine's own setting; a site may have only a mirror."""
    named = [f"{shown(path)}: {host}" for path, text in _texts() for host in _INDEX_HOSTS if host in text]
    assert named == []


def test_no_file_sets_where_packages_come_from() -> None:
    """No pip option that chooses an index or a folder of wheels, in any file that pip reads."""
    read_by_pip = (ROOT / "requirements").iterdir()
    named = [shown(path) for path in read_by_pip if _LOCAL_SETTING.search(path.read_text())]
    assert named == []


def test_no_file_names_a_path_of_one_machine() -> None:
    """A checkout works wherever it lies: nothing points into a developer's home or build folder."""
    named = [
        f"{shown(path)}: {hit.group()}"
        for path, text in _texts()
        if shown(path) != "tests/project/test_tree.py"
        for hit in _MACHINE_PATH.finditer(text)
    ]
    assert named == []


def test_scripts_are_executable_and_name_their_interpreter() -> None:
    """What people and make call by its path can be called by its path."""
    scripts = [path for path in (ROOT / "scripts").iterdir() if path.is_file() and path.suffix == ""]
    for path in (*scripts, ROOT / ".ci" / "run"):
        assert path.stat().st_mode & 0o111 == 0o111, shown(path)
        assert path.read_text().startswith("#!"), shown(path)


def test_every_module_has_a_docstring() -> None:
    """Each module says what it is for in its first line."""
    bare = []
    for path in (*(ROOT / "hpchub").rglob("*.py"), *(ROOT / "slurm_magics").rglob("*.py")):
        text = path.read_text()
        if text and not text.startswith(('"""', "#!")):
            bare.append(shown(path))
    assert bare == []
