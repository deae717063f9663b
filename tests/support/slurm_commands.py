"""Stand-ins for Slurm's commands on PATH: each prints what it is told, and keeps how it was called."""

from __future__ import annotations

import ast
import stat
import sys
from pathlib import Path
from typing import Any

# Each call starts a Python: without site and json that takes a third of the time.
_PROGRAM = """#!{python} -IS
import os, sys
name = os.path.basename(sys.argv[0])
environ = {{name: value for name, value in os.environ.items() if name.startswith("SLURM_")}}
call = {{"argv": [name, *sys.argv[1:]], "stdin": sys.stdin.read(), "cwd": os.getcwd(), "environ": environ}}
with open({calls!a}, "a") as calls:
    calls.write(ascii(call) + "\\n")
mark = os.environ.get("SQUEUE_FORMAT", "").split("\\x1f")[0]
sys.stdout.write({stdout!a}.replace("MARK", mark))
sys.stderr.write({stderr!a})
sys.exit({exit_code})
"""


class Commands:
    """A folder for PATH; `python` for an account that may not enter the folder of this one."""

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        self.folder = folder
        self._calls = folder / "calls"
        self._python = python

    def answer(self, name: str, stdout: str = "", *, stderr: str = "", exit_code: int = 0) -> None:
        """From now on the command answers so. MARK stands for the mark of squeue's query."""
        draft = self.folder / f"{name}.draft"  # a call that runs meanwhile has the whole of one answer
        draft.write_text(
            _PROGRAM.format(
                python=self._python, calls=str(self._calls), stdout=stdout, stderr=stderr, exit_code=exit_code
            )
        )
        draft.chmod(draft.stat().st_mode | stat.S_IXUSR)
        draft.rename(self.folder / name)

    def calls(self, name: str = "") -> list[dict[str, Any]]:
        """Every call so far, or every call of one command; `environ` has Slurm's own variables."""
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        found = [ast.literal_eval(line) for line in lines]
        return [call for call in found if not name or call["argv"][0] == name]
