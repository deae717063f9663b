"""The magics in surroundings that change what Slurm prints, and without what they like to have."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from support.demo import Demo
from support.magics_folder import FOLDER, install

pytestmark = pytest.mark.live

_NAME = "a name that is longer than twenty columns | " * 5
_PYTHON = "/opt/hpc/data/bin/python"

_SURROUNDINGS: dict[str, dict[str, str]] = {
    "plain": {},
    # Slurm knows no locale. This is for what else is asked: Python, the shell, a site's wrapper.
    "a locale that is installed": {"LC_ALL": "C.utf8", "LC_TIME": "C.utf8"},
    "locales that may not be": {"LC_ALL": "de_DE.UTF-8", "LC_TIME": "ar_SA.UTF-8", "LANG": "ja_JP.UTF-8"},
    "standard times": {"SLURM_TIME_FORMAT": "standard"},
    "relative times": {"SLURM_TIME_FORMAT": "relative"},
    "seconds": {"SLURM_TIME_FORMAT": "%s"},
    "times that are none": {"SLURM_TIME_FORMAT": "%%garbage \x1f %n%Q"},
    "20 columns": {"COLUMNS": "20", "LINES": "3", "TERM": "dumb"},
    "a zone as POSIX writes them": {"TZ": "CET-1CEST,M3.5.0,M10.5.0/3"},
    "a zone that is none": {"TZ": "No/Such_Zone"},
    "another zone": {"TZ": "Asia/Kathmandu"},
    "formats": {"SINFO_FORMAT": "%n", "SQUEUE_FORMAT": "%i %j %V %L", "SACCT_FORMAT": "JobID,Submit,Elapsed"},
}
# The job is held: nothing of it changes while it is looked at.
_CELLS = r"""
import json, os, sys, time
sys.modules["ipywidgets"] = None
from IPython.core.interactiveshell import InteractiveShell
surroundings = json.loads(sys.argv[1])
shell = InteractiveShell()
def run(cell):
    result = shell.run_cell(cell)
    result.raise_error()
    return result.result
run("%load_ext slurm_magics")
run("%slurm fresh 0")
shell.user_ns["name"] = sys.argv[2]
run("%%sbatch --as job --hold -t 2:03:00 -J {name} -o /dev/null\ntrue")
deadline = time.monotonic() + 30
while run("%sacct -X -j {job.id}").empty and time.monotonic() < deadline:
    time.sleep(0.2)  # until the accounting has heard of it
facts = {"card": repr(shell.user_ns["job"])}
for name, changes in surroundings.items():
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        queue = run("%squeue -j {job.id} -o '%i %j %V %l'")
        own = run("%squeue -j {job.id}")
        rows = run("%sacct -X -j {job.id} --format JobID,Submit,Timelimit,Start")
        node = run("%scontrol show node c1")
        record = run("%scontrol show job {job.id}")
        sinfo = run("%sinfo -N -O NodeList,Memory")
    finally:
        os.environ.clear()
        os.environ.update(before)
    facts[name] = {
        "name": queue["NAME"][0],
        "submit": int(queue["SUBMIT_TIME"][0].timestamp()),
        "zone": str(queue["SUBMIT_TIME"].dt.tz),
        "limit_s": queue["TIME_LIMIT"][0].total_seconds(),
        "own": str(own["JOBID"][0]),
        "accounting": [
            int(rows["Submit"][0].timestamp()),
            rows["Timelimit"][0].total_seconds(),
            bool(rows["Start"].isna()[0]),
        ],
        "boot": int(node["BootTime"][0].timestamp()),
        "memory": int(sinfo["MEMORY"][0]),
        "record": {key: record[key] for key in ("SubmitTime", "JobName", "TimeLimit")},
    }
run("%scancel {job.id}")
print(json.dumps(facts))
"""


def test_what_surrounds_a_notebook_changes_no_value(demo: Demo) -> None:
    """Locales, SLURM_TIME_FORMAT, a terminal of 20 columns, TZ, formats: the same instants and names."""
    install(demo, "bad_input.py", _CELLS)
    argv = ["env", f"PYTHONPATH={FOLDER}", "HOME=/home/alice", f"IPYTHONDIR={FOLDER}/ipython"]
    argv += [_PYTHON, f"{FOLDER}/bad_input.py", json.dumps(_SURROUNDINGS), _NAME]
    done = demo.exec("login1", argv, user="alice", check=True)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    card = facts.pop("card")
    assert card.startswith("Job "), card
    zones = {name: seen.pop("zone") for name, seen in facts.items()}
    assert zones["another zone"] == "Asia/Kathmandu"
    plain = facts.pop("plain")
    assert plain["name"] == _NAME
    assert plain["limit_s"] == plain["accounting"][1] == 2 * 3600 + 3 * 60
    assert plain["submit"] == plain["accounting"][0]
    assert plain["accounting"][2]
    # `show job` gives Slurm's own words: the clock of the zone, but the same format.
    clocks = {name: seen["record"].pop("SubmitTime") for name, seen in facts.items()}
    assert clocks["relative times"] == plain["record"].pop("SubmitTime")
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", clock) for clock in clocks.values())
    assert facts == dict.fromkeys(facts, plain)
