"""Runs a notebook's cell in a batch job: `python python_runner.py FOLDER`. A program of its own.

What `python_cell` stored is in the folder; the cell's last value, or its exception, is left there.
"""

from __future__ import annotations

import ast
import json
import os
import pickle
import sys
import traceback
from pathlib import Path
from typing import Any


def result_name(job_id: str) -> str:
    """The file that a job's, or an array task's, result is left in."""
    return f"result-{job_id}.pickle"


def run(cell: str, names: dict[str, Any]) -> Any:
    """Run the cell; the value of its last expression, None where it ends otherwise."""
    tree = ast.parse(cell, "<cell>")
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)  # noqa: S102  the person's own cell, in the person's own job
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)  # noqa: S307  as above


def cell_traceback(error: BaseException) -> str:
    """The traceback as text, from the cell on: our own frames above it say nothing to the person."""
    whole = traceback.TracebackException.from_exception(error)
    theirs = [frame for frame in whole.stack if frame.filename != __file__]
    if theirs:
        whole.stack = traceback.StackSummary.from_list(theirs)
    return "".join(whole.format())


def outcome(folder: Path) -> dict[str, Any]:
    """`value` as a pickle, or `error` as a text with `exception` as a pickle, where that can travel.

    A cell that calls `sys.exit` leaves neither, and `exit_code`.
    """
    import cloudpickle

    try:
        names = pickle.loads((folder / "names.pickle").read_bytes())  # noqa: S301  only its owner can write it
        value = run((folder / "cell.py").read_text(encoding="utf-8"), {"__name__": "__main__", **names})
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        code = 0 if error.code is None else error.code if isinstance(error.code, int) else 1
        return {"error": f"Its cell ended with sys.exit({error.code!r}).", "exit_code": code}
    except BaseException as error:  # also an interrupt: the person is told in any case
        text = cell_traceback(error)
        print(text, file=sys.stderr)
        if not isinstance(error, Exception):  # raised in a notebook it would end more than a cell
            return {"error": text}
        try:
            return {"error": text, "exception": cloudpickle.dumps(error)}
        except Exception:
            return {"error": text}
    try:
        return {"value": cloudpickle.dumps(value)}
    except Exception as error:
        return {"error": f"The result, of type {type(value).__name__}, cannot travel: {error}"}


def main() -> int:
    """The exit code: the cell's own, else 1 where there is no value."""
    folder = Path(sys.argv[1])
    sys.path[:] = json.loads((folder / "path.json").read_text(encoding="utf-8"))
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job_id = f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]
    found = outcome(folder)
    path = folder / result_name(job_id)
    new = path.with_suffix(".new")
    new.write_bytes(pickle.dumps(found))
    new.replace(path)
    return int(found.get("exit_code", 0 if "value" in found else 1))


if __name__ == "__main__":
    sys.exit(main())
