"""The magics in a real IPython, as a person on a login node and inside a job of hers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.demo import Demo
from support.magics_folder import FOLDER, install
from support.tree import ROOT

pytestmark = pytest.mark.live

_PYTHON = "/opt/hpc/data/bin/python"

# Cells of a notebook, and at the end what a test can compare, as JSON on the last line.
_CELLS = r"""
import json
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell()
def run(cell):
    result = shell.run_cell(cell)
    if not result.success:
        errors.append(str(result.error_in_exec))
    return result.result
errors = []
run("%load_ext slurm_magics")
shell.user_ns["odd"] = "odd\nname|x"
run("%%sbatch --as job -J {odd} -t 5 -o {folder}/%j.txt\necho out $SLURM_JOB_ID; sleep 2; echo end")
run("%%sbatch --as array --array=1-3 -o {folder}/a-%A_%a.txt\necho task $SLURM_ARRAY_TASK_ID")
run("%%sbatch --python --as python -t 5 -o /dev/null\nimport os\nodd.upper(), os.environ['SLURM_JOB_ID']")
run("queue = %squeue --me\nnodes = %sinfo -N\nsteps = %sacct -X -j {job.id}")
run("accounts = %sacctmgr show assoc user=alice\nshares = %sshare -u alice\ntop = %sreport user top")
run("%squeue -j 99999")
run("%%sbatch -p nope\ntrue")
facts = {
    "dtypes": {name: str(kind) for name, kind in shell.user_ns["queue"].dtypes.items()},
    "names": list(shell.user_ns["queue"]["NAME"]),
    "nodes": sorted(set(shell.user_ns["nodes"].slurm.expand_nodes()["NODELIST"])),
    "accounts": sorted(shell.user_ns["accounts"]["Account"]),
    "shares": str(shell.user_ns["shares"]["FairShare"].dtype),
    "title": shell.user_ns["top"].attrs["title"],
    "ended": run("job.wait(60, progress=False)"),
    "output": run("job.output"),
    "array": run("await array"),
    "third": run("array.array[3].output"),
    "again": run("again = job.resubmit(); again.cancel(); again.wait(60, progress=False)"),
    "accounting": run("job.efficiency().cpus"),
    "python": run("python.id, python.result(60)"),
    "record": run("%scontrol show job {job.id}"),
    "errors": errors,
}
print(json.dumps(facts))
"""


def _check(facts: dict[str, Any]) -> None:
    assert facts["dtypes"]["SUBMIT_TIME"].startswith("datetime64[s, ")
    assert facts["dtypes"]["TIME_LIMIT"] == "timedelta64[ms]"
    assert facts["dtypes"]["STATE"] == "category"
    assert "odd\nname|x" in facts["names"]
    assert facts["nodes"] == ["c1", "c2"]
    assert facts["accounts"] == ["chemistry", "physics"]
    assert facts["shares"] == "Float64"
    assert facts["title"].startswith("Top 10 Users 20")
    assert facts["ended"] == facts["array"] == "COMPLETED"
    assert facts["output"].startswith("out ")
    assert facts["output"].endswith("\nend\n")
    assert facts["third"] == "task 3\n"
    assert facts["again"] == "CANCELLED"
    assert facts["accounting"] == 1
    number, result = facts["python"]
    assert result == ["ODD\nNAME|X", number]
    assert facts["record"]["JobName"] == "odd\nname|x"
    assert len(facts["errors"]) == 2, facts["errors"]
    assert "Invalid job id" in facts["errors"][0]
    assert "invalid partition" in facts["errors"][1].lower()


@pytest.mark.parametrize("where", ["login node", "job"])
def test_a_notebooks_first_cells(demo: Demo, where: str) -> None:
    """Frames, a job and its output, an array, a refusal: the same on a login node and inside a job."""
    install(demo, "cells.py", _CELLS.replace("{folder}", FOLDER))
    argv = ["env", f"PYTHONPATH={FOLDER}", "HOME=/home/alice", f"IPYTHONDIR={FOLDER}/ipython"]
    if where == "job":
        argv = ["srun", "--quiet", "--time=5", "--mem=2G", *argv]
    done = demo.exec("login1", [*argv, _PYTHON, f"{FOLDER}/cells.py"], user="alice", check=True)
    _check(json.loads(done.stdout.splitlines()[-1]))


# On a laptop, outside of the cluster: the hub's host reaches the login nodes and nothing else.
_OUTSIDE = r"""
import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell()
def run(cell):
    return shell.run_cell(cell).result
shell.run_cell("%load_ext slurm_magics").raise_error()
config, facts = sys.argv[1], {}
for host in ("login1", "behind"):
    shell.run_cell(f"%slurm connect -F {config} {host}").raise_error()
    run("%%sbatch --as job -t 5 -o %j.txt\nhostname; sleep 1; echo end")
    run("queue = %squeue --me\nnodes = %sinfo -N")
    facts[host] = {
        "zone": str(run("queue.SUBMIT_TIME.dtype")),
        "nodes": sorted(set(run("nodes.NODELIST"))),
        "here": run("str(job.id) in set(queue.JOBID)"),
        "ended": run("job.wait(60, progress=False)"),
        "output": run("job.output"),
        "path": str(run("job.output_path")),
    }
drawn = [run(f"%{tool} --plot")._repr_png_()[:4] == b"\x89PNG" for tool in ("squeue", "sinfo", "sacct")]
shell.run_cell("%slurm disconnect").raise_error()
print(json.dumps({"hosts": facts, "drawn": drawn}))
"""


def test_a_laptop(demo: Demo, tmp_path: Path) -> None:
    """The same magics over SSH, straight to a login node and through it to the other one; plots, too."""
    tmp_path.chmod(0o755)
    key, config, script = tmp_path / "key", tmp_path / "config", tmp_path / "outside.py"
    subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)), check=True)
    (known,) = demo.directory.resolve().rglob("*.known_hosts")
    config.write_text(
        f"Host *\n  User alice\n  IdentityFile {key}\n  UserKnownHostsFile {known}\n"
        "Host login1\n  HostName 10.78.0.11\nHost behind\n  HostName login2\n  ProxyJump login1\n"
    )
    script.write_text(_OUTSIDE)
    public = key.with_name("key.pub").read_text()
    put = "mkdir -p -m 700 ~/.ssh && cat >>~/.ssh/authorized_keys"
    demo.exec("login1", ["sh", "-c", put], user="alice", stdin=public, check=True)
    try:
        argv = ["env", f"HOME={tmp_path}", f"PYTHONPATH={ROOT}", sys.executable, str(script), str(config)]
        done = demo.exec("hub", argv, check=True)
    finally:
        demo.exec("login1", ["rm", "-r", "/home/alice/.ssh"], check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["drawn"] == [True] * 3
    for facts in found["hosts"].values():
        assert facts.pop("zone").startswith("datetime64[s, ")
        assert facts.pop("output") in {"c1\nend\n", "c2\nend\n"}
        assert facts.pop("path").startswith("/home/alice/")
        assert facts == {"nodes": ["c1", "c2"], "here": True, "ended": "COMPLETED"}


# The commands of docs/howto/use-slurm-in-a-notebook.md; the key of the host is compared by the test.
_KEYS = """
mkdir -p -m 700 ~/.ssh
ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519
cat ~/.ssh/id_ed25519.pub >> ~/.ssh/authorized_keys
cat >~/.ssh/known_hosts
"""
_CONNECT = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell()
for cell in ("%load_ext slurm_magics", "%slurm connect login2", "%sinfo --as nodes"):
    shell.run_cell(cell).raise_error()
print(shell.user_ns["nodes"].PARTITION.tolist())
"""


def test_a_notebook_of_the_demo_connects(demo: Demo) -> None:
    """From its environment for data, with a key that the person has made there."""
    (known,) = demo.directory.resolve().rglob("*.known_hosts")
    demo.exec("login1", ["sh", "-ec", _KEYS], user="alice", stdin=known.read_text(), check=True)
    try:
        done = demo.exec("c1", [_PYTHON, "-c", _CONNECT], user="alice", check=True)
    finally:
        demo.exec("login1", ["rm", "-r", "/home/alice/.ssh"], check=True)
    assert done.stdout.splitlines()[-1] == "['cpu', 'short', 'gpu']"
