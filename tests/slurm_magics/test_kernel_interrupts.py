"""The stop button in cells that await: a real kernel, whose own handler would keep it for its loop."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from support.slurm_commands import Commands
from support.tree import ROOT

_CELLS = (
    "%load_ext slurm_magics",
    "%%sbatch --as job\ntrue",
    """
import asyncio, os, signal, sys, threading, time, traceback
import slurm_magics.job
slurm_magics.job.fresh_s = lambda _waited_s: 600.0

def press(within):
    "As a terminal does, once the main thread is in that function."
    main = threading.main_thread().ident
    def names():
        return {frame.f_code.co_qualname for frame, _ in traceback.walk_stack(sys._current_frames()[main])}
    def wait():
        while within not in names():
            time.sleep(0.01)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=wait, daemon=True).start()
""",
    "press('EpollSelector.select')\nawait job",
    "await asyncio.sleep(0)\npress('Job.wait')\nprint(job.wait(progress=False))",
    "await asyncio.sleep(0)\npress('_talk')\n%srun ./program\nawait asyncio.sleep(600)",
)


@pytest.mark.slow
def test_the_stop_button_in_cells_that_await(commands: Commands, tmp_path: Path) -> None:
    """Comes at once, at an `await` and in what blocks beside one; each is a line that says what goes on.

    One that was kept back would come after ten minutes: the cell takes too long then.
    """
    commands.answer("sbatch", "42\n")
    commands.answer("scontrol")
    commands.answer("squeue", "42\x1fRUNNING\x1fc1\x1fNone\x1f1795259154\x1f4102444800\n")
    program = commands.folder / "srun"
    program.write_text("#!/bin/sh\nexec /bin/sleep 600\n")
    program.chmod(0o755)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in _CELLS])
    client = NotebookClient(notebook, timeout=90, kernel_name="python3", allow_errors=True)
    client.execute(cwd=str(tmp_path), env={**os.environ, "PYTHONPATH": str(ROOT)})
    *_, awaited, waited, ran = (cell.outputs for cell in notebook.cells)
    assert [output.traceback for output in awaited] == [["Not waiting any more. Job 42 goes on."]]
    assert {(output.name, output.text) for output in waited} == {
        ("stderr", "Not waiting any more. Job 42 goes on; `cancel()` would end it.\n"),
        ("stdout", "RUNNING\n"),
    }
    words = "Interrupted: srun was ended, and what it had begun in the cluster is cancelled."
    assert [output.traceback for output in ran] == [[words]]
