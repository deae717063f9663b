"""A job's card in a real kernel, which runs something else meanwhile; Slurm's commands are stand-ins."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from support.slurm_commands import Commands
from support.tree import ROOT

ROW = "{id}\x1f{state}\x1fc1\x1fNone\x1f1795259154\x1f4102444800\n"
# The last cell is busy until the cards have heard of the job's end, or a minute is over.
CELLS = (
    "%load_ext slurm_magics",
    "%%sbatch --as first -t 10\ntrue",
    "first",
    "import sys; sys.modules['ipywidgets'] = None; first",
    "import pathlib, shutil, time\n"
    "path = pathlib.Path({squeue!r})\n"
    "time.sleep(0.1)\n"
    "draft = pathlib.Path(shutil.copy(path, 'draft'))\n"
    "draft.write_text(path.read_text().replace('RUNNING', 'FAILED'))\n"
    "draft.rename(path)\n"
    "jobs = first._jobs\n"
    "deadline = time.monotonic() + 60\n"
    "while jobs.board._live and time.monotonic() < deadline:\n"
    "    time.sleep(0.05)\n",
)


def run(cells: list[str], folder: Path, environ: dict[str, str]) -> list[nbformat.NotebookNode]:
    """The cells' outputs after a run of the whole notebook."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(notebook, timeout=90, kernel_name="python3")
    client.execute(cwd=str(folder), env={**os.environ, "PYTHONPATH": str(ROOT), **environ})
    return [cell.outputs for cell in notebook.cells]


@pytest.mark.slow
def test_a_card_follows_its_job(commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It changes while another cell runs, and has no buttons: nobody is there to press one."""
    commands.answer("sbatch", "42\n")
    commands.answer("scontrol", f"JobId=42 JobName=x\n   StdOut={tmp_path}/out.txt\n")
    commands.answer("squeue", ROW.format(id=42, state="RUNNING"))
    commands.answer("sacct", "42\x1fFAILED\x1fc1\x1f7:0\n")
    (tmp_path / "out.txt").write_text("one\n\x1b[31m<two>\x1b[0m\n 10%\r 20%\n")
    squeue = str(commands.folder / "squeue")
    _, _, card, without, busy = run(
        [cell.replace("{squeue!r}", repr(squeue)) for cell in CELLS], tmp_path, {}
    )
    assert [output.get("ename") for output in busy] == []
    (shown,) = card
    assert sorted(shown["data"]) == ["text/html", "text/plain"]
    assert "Failed with exit code 7" in shown["data"]["text/html"]
    assert "&lt;two&gt;\n 20%</pre>" in shown["data"]["text/html"]
    assert "Job 42: Failed" in shown["data"]["text/plain"]
    assert [output["data"] for output in without] == [shown["data"]], "the same, where there are no widgets"
