"""A notebook on a login node, and one outside, while parts of Slurm and the way to it go away."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import faults
from support.demo import Demo
from support.magics_folder import FOLDER, install
from support.notebook_on import Notebook, notebook_on
from support.servers import until
from support.slurm import processes_of
from support.tree import ROOT

pytestmark = pytest.mark.live

_PYTHON = "/opt/hpc/data/bin/python"
_DRIVER = ROOT / "tests" / "support" / "notebook_driver.py"
_CARDS = 50
# Slurm's own patience, MessageTimeout, is 10 s; in the notebook's own slurm.conf it is 2 s.
_PREPARE = (
    f"cd {FOLDER} && mkdir bin && {{ cat /etc/slurm/slurm.conf; echo MessageTimeout=2; }} >slurm.conf && "
    "printf '%s\\n' '#!/bin/sh' 'echo + >>\"$0.calls\"' '/usr/bin/squeue \"$@\"; s=$?' "
    "'echo - >>\"$0.calls\"; exit $s' >bin/squeue && chmod 755 bin/squeue && : >bin/squeue.calls"
)
# A cell that needs the kernel's loop and notes how long that was kept from it.
_TICKS = """
import asyncio, time
worst, before = 0.0, time.monotonic()
for _ in range(60):
    await asyncio.sleep(0.02)
    worst, before = max(worst, time.monotonic() - before), time.monotonic()
print("worst", worst)
"""


@pytest.fixture(scope="module")
def notebook(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """Alice's, on a login node."""
    install(demo, "driver.py", _DRIVER.read_text())
    demo.exec("login1", ["sh", "-ec", _PREPARE], user="alice", check=True)
    variables = {
        "PYTHONPATH": FOLDER, "HOME": "/home/alice", "IPYTHONDIR": f"{FOLDER}/ipython",
        "SLURM_CONF": f"{FOLDER}/slurm.conf", "PATH": f"{FOLDER}/bin:/usr/local/bin:/usr/bin:/bin",
    }  # fmt: skip
    argv = ["env", "-C", FOLDER, *(f"{name}={value}" for name, value in variables.items())]
    log = tmp_path_factory.mktemp("notebook") / "log"
    try:
        with notebook_on(demo, "login1", "alice", [*argv, _PYTHON, f"{FOLDER}/driver.py"], log) as one:
            one.well("%load_ext slurm_magics\n%slurm fresh 0")
            yield one
    finally:
        demo.exec("login1", ["scancel", "--user=alice"], user="alice")


def _jobs(demo: Demo, *words: str) -> list[str]:
    """Names of Alice's jobs that are in the queue, as Slurm itself says."""
    argv = ["squeue", "--me", "--noheader", "--format=%j", *words]
    return demo.exec("login1", argv, user="alice", check=True).stdout.split()


def _running(demo: Demo, name: str) -> None:
    until(lambda: name in _jobs(demo, "--states=RUNNING"), f"{name} runs")


def _calls(demo: Demo) -> list[str]:
    path = f"{FOLDER}/bin/squeue.calls"
    return demo.exec("login1", ["cat", path], user="alice", check=True).stdout.split()


def _refused(notebook: Notebook, code: str, *words: str, within_s: float = 20.0) -> None:
    """The cell fails soon, with a line or two that have these words."""
    cell = notebook.run(code)
    assert cell.error == "SlurmError", cell.text
    assert cell.took_s < within_s
    assert len(cell.text.strip().splitlines()) <= 2, cell.text
    for word in words:
        assert word in cell.text


def test_the_stop_button(demo: Demo, notebook: Notebook) -> None:
    """Ends srun and salloc with all that they have begun; a batch job goes on, watched or not."""
    notebook.well("%%sbatch --as batch -J batch -t 10 -o /dev/null\nsrun sleep 600")
    _running(demo, "batch")
    for code, name in (
        ("%srun -J step -t 5 sleep 600", "step"),
        ("%salloc -J shell -t 5 sleep 600", "shell"),
        ("%sattach {batch.id}.0", ""),
        ("%%sbatch --wait -J watched -t 5 -o /dev/null\nsleep 600", "watched"),
    ):
        number = notebook.begin(code)
        if name:
            _running(demo, name)
        else:  # it has no job of its own
            until(lambda: "sattach" in str(processes_of(demo, "login1", "alice")), "sattach runs")
        notebook.interrupt()
        cell = notebook.end(number)
        assert "Traceback" not in cell.text
        if name == "watched":
            assert (cell.error, "goes on" in cell.text) == ("", True)
        else:
            *before, last = cell.text.strip().splitlines()
            assert (cell.error, last.startswith("Interrupted: ")) == ("Interrupted", True), cell.text
            assert all(line.startswith("salloc: Granted job allocation") for line in before), cell.text
    assert sorted(_jobs(demo, "--states=PENDING,RUNNING")) == ["batch", "watched"]
    notebook.well("!scancel --user=alice")


def test_the_stop_button_waits_for_sbatch(demo: Demo, notebook: Notebook) -> None:
    """Pressed twice while the controller is busy: the cell ends with the number of the job, which is kept."""
    notebook.well("import os\nimpatient = os.environ.pop('SLURM_CONF')")
    with faults.daemon_frozen(demo, "slurmctld"):
        number = notebook.begin("%%sbatch --as slow -J slow --hold -o /dev/null\ntrue")
        until(lambda: "sbatch" in str(processes_of(demo, "login1", "alice")), "sbatch runs")
        notebook.interrupt()
        notebook.interrupt()
    cell = notebook.end(number)
    job = notebook.well("print(slow.id)").strip()
    assert cell.error == "Interrupted", cell.text
    assert f"Interrupted: Job {job} has been submitted and goes on; %scancel {job} ends it." in cell.text
    assert "slow" in _jobs(demo, "--states=PENDING")
    notebook.well("slow.cancel()\nos.environ['SLURM_CONF'] = impatient")


def test_slurm_goes_away(demo: Demo, notebook: Notebook) -> None:
    """Each failure is said in a line or two; what can answer does; nothing is taken for ended or lost."""
    notebook.well("%%sbatch --as quick -J quick -o /dev/null\ntrue")
    notebook.well("%%sbatch --as long -J long -t 10 -o long.txt\necho begun; sleep 600")
    notebook.well(f"%%sbatch --as held -J held --hold --array=1-{_CARDS} -o /dev/null\ntrue")
    submitted = time.monotonic()
    assert "COMPLETED" in notebook.well("quick.wait(30, progress=False)")
    _running(demo, "long")
    _without_the_database(demo, notebook)
    cards = f"Job {notebook.well('print(held.id)').strip()}_"
    notebook.well(f"for task in range(1, {_CARDS + 1}): held.array[task]._ipython_display_()")
    once = f"once-{time.time_ns()}"
    with faults.daemon_frozen(demo, "slurmctld"):
        _refused(notebook, "%squeue", "controller (slurmctld) did not answer squeue", "%sacct answers")
        assert "COMPLETED" in notebook.well("%sacct -X -j {quick.id} --format=JobID,State")
        _refused(notebook, f"%%sbatch -J {once} -o /dev/null\ntrue", "may be in the queue all the same")
        notebook.until_shown("Not up to date", cards=cards, count=_CARDS)
        assert float(notebook.well(_TICKS).split()[-1]) < 1.0
    until(lambda: once not in _jobs(demo, "--states=PENDING,RUNNING"), "what was asked for is done")
    assert _jobs(demo, "--states=all").count(once) <= 1
    time.sleep(max(0.0, submitted + faults.SLURM_SAVES_WITHIN_S - time.monotonic()))
    waiting = notebook.begin("long.wait()")
    before = len(_calls(demo))
    with faults.daemon_dead(demo, "slurmctld", at_once=True):
        began = time.monotonic()
        pages = notebook.until_shown("(RUNNING). Not up to date")
        assert not any("Ended" in page for page in pages)
        time.sleep(4)
        calls = _calls(demo)[before:]
        lasted_s = time.monotonic() - began
    assert "++" not in "".join(calls), "one at a time"
    assert calls.count("+") <= 3 + lasted_s / 2, calls
    demo.exec("login1", ["scancel", "--name=long", "--user=alice"], user="alice", check=True)
    assert "CANCELLED" in notebook.end(waiting).text
    notebook.well("held.cancel()")
    notebook.until_shown("Cancelled (CANCELLED", cards=cards, count=_CARDS)


def _without_the_database(demo: Demo, notebook: Notebook) -> None:
    with faults.daemon_dead(demo, "slurmdbd"):
        assert "long" in notebook.well("%squeue --me")
        for code in ("%sacct", "quick.efficiency()"):
            _refused(notebook, code, "accounting (slurmdbd) did not answer sacct", "%squeue answers")
        assert "COMPLETED" in notebook.well("quick.state")
        assert "RUNNING" in notebook.well("long.state")
    assert "COMPLETED" in notebook.well("str(quick.efficiency())")


@dataclass
class Outside:
    """A notebook outside of the cluster, and what stands in its folder for ssh."""

    notebook: Notebook
    demo: Demo
    folder: Path

    def sign(self, validity: str) -> None:
        """A certificate of the cluster's authority, as `hpchub login` brings one; `ssh-keygen -V`."""
        authority = str(self.demo.directory / "hub/signer/ca_key")
        sign = ("ssh-keygen", "-q", "-s", authority, "-I", "a test", "-n", "hpchub:alice", "-V", validity)
        subprocess.run((*sign, str(self.folder / "key.pub")), check=True)

    def connect(self, *more: str) -> str:
        """The cell that connects."""
        return f"%slurm connect -F {self.folder}/config {' '.join(more)} login1"


@pytest.fixture
def outside(demo: Demo, tmp_path: Path) -> Iterator[Outside]:
    """On the hub's host, from which only the login nodes can be reached."""
    tmp_path.chmod(0o755)
    key = tmp_path / "key"
    subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)), check=True)
    known = Path(demo.info["clusters_folder"]) / "demo.known_hosts"
    (tmp_path / "config").write_text(
        f"Host login1\n  HostName 10.78.0.11\n  User alice\n  IdentityFile {key}\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {known}\n  GlobalKnownHostsFile none\n"
    )
    variables = (f"HOME={tmp_path}", f"PYTHONPATH={ROOT}", f"IPYTHONDIR={tmp_path}/ipython")
    argv = ["env", "-C", str(tmp_path), *variables, sys.executable, str(_DRIVER)]
    with notebook_on(demo, "hub", "", argv, tmp_path / "log") as notebook:
        notebook.well("%load_ext slurm_magics\n%slurm fresh 0")
        yield Outside(notebook, demo, tmp_path)


def test_the_way_to_the_cluster_fails(demo: Demo, outside: Outside) -> None:
    """Each failure is said, nothing is trusted that was not before, and the next cell connects anew."""
    notebook = outside.notebook
    outside.sign("+10m")
    unknown = outside.connect("-o UserKnownHostsFile=/dev/null")
    _refused(notebook, unknown, "is not known: ", "SHA256:", "connect once with: ssh login1")
    other = outside.folder / "other"
    other.write_text(f"10.78.0.11 {outside.folder.joinpath('key.pub').read_text()}")
    changed = outside.connect(f"-o UserKnownHostsFile={other}")
    _refused(notebook, changed, "another key than the known one", "Known is ssh-ed25519 SHA256:")
    notebook.well(outside.connect())
    number = notebook.begin("%srun -J cut -t 5 sleep 600")
    _running(demo, "cut")
    faults.end_sessions(demo, "login1")
    cell = notebook.end(number)
    assert cell.error == "SlurmError"
    assert "The connection to login1 was lost while srun ran." in cell.text
    until(lambda: "cut" not in _jobs(demo, "--states=RUNNING"), "srun has cancelled its job")
    notebook.well("%%sbatch --as job -J far -t 10 -o /dev/null\nsleep 600")
    outside.sign("-2h:-1h")
    _running(demo, "far")
    number = notebook.begin("job.wait()")
    notebook.until_shown("Running on ")
    notebook.interrupt()
    assert "goes on" in notebook.end(number).text
    assert "RUNNING" in notebook.well("job.state")
    faults.end_sessions(demo, "login1")
    _refused(notebook, "%squeue --me", "does not let alice in", "expired on ", "hpchub login")
    outside.sign("+10m")
    assert "far" in notebook.well("%squeue --me")
    notebook.well("job.cancel()")
