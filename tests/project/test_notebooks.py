"""The example notebooks as they are kept: without anything that a run leaves behind."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from support.tree import ROOT, files

_EXAMPLES = [path for path in files(".ipynb") if path.is_relative_to(ROOT / "docs")]


def _load(path: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def test_there_are_two() -> None:
    """The first day, and the sweep; both stand in the page about them."""
    page = (ROOT / "docs" / "examples" / "README.md").read_text()
    assert [path.stem for path in _EXAMPLES] == ["first-day", "parameter-sweep"]
    assert all(f"]({path.name})" in page for path in _EXAMPLES)


@pytest.mark.parametrize("path", _EXAMPLES, ids=lambda path: path.stem)
def test_notebooks_hold_no_run(path: Any) -> None:
    """No output, no execution count, no trace of a machine, of widgets or of an editor: nothing is stale."""
    notebook = _load(path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert notebook["metadata"]["language_info"] == {"name": "python"}
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code
    for cell in code:
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
    assert all(set(cell["metadata"]) <= {"tags"} for cell in notebook["cells"])


@pytest.mark.parametrize("path", _EXAMPLES, ids=lambda path: path.stem)
def test_notebooks_are_as_jupyterlab_would_save_them(path: Any) -> None:
    """Every cell has an id of its own, and saving the notebook unchanged changes no line."""
    notebook = _load(path)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", one) for one in ids)
    assert path.read_text() == json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    for cell in notebook["cells"]:
        assert cell["source"] == "".join(cell["source"]).splitlines(keepends=True)
