"""Stand-ins for Slurm's commands on PATH: each prints what it is told, and keeps how it was called."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

_PROGRAM = """#!{python}
import json, os, pathlib, sys
here = pathlib.Path({folder!r})
name = pathlib.Path(sys.argv[0]).name
environ = {{name: value for name, value in os.environ.items() if name.startswith("SLURM_")}}
call = {{"argv": [name, *sys.argv[1:]], "stdin": sys.stdin.read(), "cwd": os.getcwd(), "environ": environ}}
with (here / "calls").open("a") as calls:
    calls.write(json.dumps(call) + "\\n")
answer = json.loads((here / (name + ".json")).read_text())
text = answer["stdout"]
mark = os.environ.get("SQUEUE_FORMAT", "").split("\\x1f")[0]
sys.stdout.write(text.replace("MARK", mark))
sys.stderr.write(answer["stderr"])
sys.exit(answer["exit_code"])
"""


class Commands:
    """A folder for PATH; `python` for an account that may not enter the folder of this one."""

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        self.folder = folder
        self._python = python

    def answer(self, name: str, stdout: str = "", *, stderr: str = "", exit_code: int = 0) -> None:
        """From now on the command answers so. MARK stands for the mark of squeue's query."""
        body = {"stdout": stdout, "stderr": stderr, "exit_code": exit_code}
        (self.folder / f"{name}.json").write_text(json.dumps(body))
        program = self.folder / name
        program.write_text(_PROGRAM.format(python=self._python, folder=str(self.folder)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def calls(self, name: str = "") -> list[dict[str, Any]]:
        """Every call so far, or every call of one command; `environ` has Slurm's own variables."""
        path = self.folder / "calls"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [call for call in found if not name or call["argv"][0] == name]
