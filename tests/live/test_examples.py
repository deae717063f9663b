"""The example notebooks, run by nbclient as alice on a login node, with what the demo offers her."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from support.demo import Demo
from support.tree import ROOT

pytestmark = pytest.mark.live

# Reads a notebook and writes it with its outputs. Its jobs leave their files in a folder that goes again.
_RUN = """
import sys, tempfile
import nbformat
from nbclient import NotebookClient
notebook = nbformat.reads(sys.stdin.read(), as_version=4)
nbformat.validate(notebook)
with tempfile.TemporaryDirectory(dir="/home/alice") as folder:
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": folder}}).execute()
nbformat.write(notebook, sys.stdout)
"""

# Expressions that are worth something after the last cell.
_FACTS = {
    "first-day": """{
        "job": [job.id, job.state, job.efficiency().cpus],
        "output": job.output,
        "later": later.state,
    }""",
    "parameter-sweep": """{
        "failed": failed,
        "states": sorted(states.values()),
        "again": again.state,
        "table": table.to_dict("list"),
        "spent": spent.state.to_list(),
    }""",
}


class Ran(NamedTuple):
    """What each cell printed, by the cell's id, and the facts."""

    said: dict[str, str]
    facts: dict[str, Any]


@pytest.fixture(scope="module")
def ran(demo: Demo) -> dict[str, Ran]:
    """Both notebooks, run at the same time: mostly they wait."""
    with ThreadPoolExecutor() as pool:
        return dict(zip(_FACTS, pool.map(lambda name: _run(demo, name), _FACTS), strict=True))


def _run(demo: Demo, name: str) -> Ran:
    path = f"/home/alice/examples/{name}.ipynb"
    offered = demo.exec("login1", ["cat", path], user="alice", check=True).stdout
    assert offered == (ROOT / "docs" / "examples" / f"{name}.ipynb").read_text()
    notebook = json.loads(offered)
    last = {"cell_type": "code", "id": "facts", "metadata": {}, "outputs": [], "execution_count": None}
    notebook["cells"].append(last | {"source": f"import json\nprint(json.dumps({_FACTS[name]}))"})
    done = demo.exec(
        "login1", ["env", "HOME=/home/alice", "/opt/hpc/data/bin/python", "-c", _RUN],
        user="alice", stdin=json.dumps(notebook), timeout_s=120, check=True,
    )  # fmt: skip
    cells = json.loads(done.stdout)["cells"]
    said = {cell["id"]: "".join(map(_text, cell.get("outputs", []))) for cell in cells}
    return Ran(said, json.loads(said["facts"]))


def _text(output: dict[str, Any]) -> str:
    """An output as text; of a figure its type."""
    data = output.get("data", {})
    words = output.get("text") or data.get("text/plain") or output.get("evalue") or ""
    return "".join(words) + ("<image/png>" if "image/png" in data else "")


def test_a_first_day(ran: dict[str, Ran]) -> None:
    """A job runs and its output is there, one is cancelled, one refused; tables and plots are shown."""
    said, facts = ran["first-day"]
    number, *job = facts["job"]
    assert job == ["COMPLETED", 2]
    assert facts["output"].startswith("Hello from c")
    assert "The sum is 19999999900000000\nDone.\n" in facts["output"]
    assert facts["later"] == "CANCELLED"
    assert "I am alice, on login1." in said["who-am-i"]
    assert "chemistry" in said["accounts"]
    # How cards change is seen in the browser: nbclient loses what a thread shows between two cells.
    assert f"Job {number}: " in said["card"]
    assert f"Job {number} " in said["wait"]
    assert "Ended (COMPLETED)." in said["wait"]
    assert "(BeginTime)" in said["later"] or "Cancelled" in said["later"]
    assert "Cancelled (CANCELLED)." in said["cancel"]
    assert "invalid partition" in said["refused"]
    assert f"Job {number}, COMPLETED: CPU" in said["efficiency"]
    for name in ("sinfo-plot", "squeue-plot", "sacct-plot"):
        assert "<image/png>" in said[name]


def test_a_parameter_sweep(ran: dict[str, Ran]) -> None:
    """Nine tasks, of which one fails and is run again; the table has a row for each, and percolation."""
    said, facts = ran["parameter-sweep"]
    assert facts["failed"] == [5]
    assert facts["states"] == ["COMPLETED"] * 8 + ["FAILED"]
    assert facts["again"] == "COMPLETED"
    assert facts["spent"] == ["COMPLETED"] * 9
    assert "a density is between 0 and 1; this one is 6.3" in said["why"]
    table = facts["table"]
    assert table["density"] == [0.45, 0.5, 0.54, 0.57, 0.6, 0.63, 0.66, 0.7, 0.75]
    assert table["crossed"][0] == 0
    assert table["crossed"][-1] == 1
    assert table["crossed"] == sorted(table["crossed"])
    slowest = table["density"][table["minutes"].index(max(table["minutes"]))]
    assert 0.57 <= slowest <= 0.63
    assert "9 of 9 tasks have ended" in said["wait"]
    assert ", FAILED: CPU" in said["efficiency"]
    for name in ("look", "plot", "history"):
        assert "<image/png>" in said[name]
