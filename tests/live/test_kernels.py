"""Kernels on compute nodes, for a person whose Jupyter server runs on a login node."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import time
from collections.abc import Callable

import pytest

from hpchub.demo.info import find_host
from hpchub.demo.layout import Layout
from support.demo import Demo
from support.faults import ports_closed
from support.inside import named
from support.tree import ROOT

pytestmark = pytest.mark.live

_PYTHON = "/opt/hpc/lab/bin/python"
_FOLDER = "/home/alice/kernels-test"
_METADATA = "Metadata-Version: 2.1\nName: hpchub\nVersion: 0\n"
_POINTS = "[jupyter_client.kernel_provisioners]\nhpchub-slurm = hpchub.kernels.slurm:SlurmProvisioner\n"


def _install(demo: Demo) -> None:
    """The package in alice's home, as `pip install --target` would put it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        places = {
            "hpchub": "hpchub",
            "templates": "hpchub/_data/templates",
            "kernels": "hpchub/_data/kernels",
            "tests/live/person_with_kernels.py": "person.py",
        }
        for source, target in places.items():
            archive.add(
                ROOT / source, target, filter=lambda entry: None if "__pycache__" in entry.name else entry
            )
        for name, text in (("METADATA", _METADATA), ("entry_points.txt", _POINTS)):
            entry = tarfile.TarInfo(f"hpchub-0.dist-info/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    script = f"rm -rf {_FOLDER} && mkdir {_FOLDER} && tar -x --no-same-owner -C {_FOLDER}"
    # With bytes for standard input, which `demo.exec` does not take.
    argv = find_host(Layout(demo.directory), "login1").enter(("sh", "-c", script), "alice")
    subprocess.run(argv, input=packed.getvalue(), check=True, timeout=60)


@pytest.fixture(scope="module")
def on_login_node(demo: Demo) -> Callable[..., str]:
    """A function that runs a command as alice where she has installed the package, and returns its output."""
    _install(demo)
    # JUPYTER_NO_CONFIG: without JupyterLab, which takes seconds of each start.
    environ = ("JUPYTER_NO_CONFIG=1", f"PYTHONPATH={_FOLDER}", "HOME=/home/alice",
               f"JUPYTER_DATA_DIR={_FOLDER}/data", f"JUPYTER_RUNTIME_DIR={_FOLDER}/runtime")  # fmt: skip

    def run(*argv: str) -> str:
        inside = ("sh", "-c", f'cd {_FOLDER} && exec "$@"', "sh", "env", *environ, *argv)
        return demo.exec("login1", inside, user="alice", check=True, timeout_s=240).stdout

    run(
        _PYTHON, "-m", "hpchub.cli", "kernels", "install", "virtualenv", "--prefix", "/opt/hpc/lab",
        "--name", "node", "--slurm", "memory=500M", "--slurm", "time=00:10:00",
    )  # fmt: skip
    return run


def test_a_kernel_on_a_compute_node(on_login_node: Callable[..., str]) -> None:
    """It outlives its server, in one job; a memory limit is named under the cell; nothing is left."""
    facts = json.loads(on_login_node(_PYTHON, "person.py").splitlines()[-1])
    node, job = facts["first"]
    assert node in {"c1", "c2"}
    assert facts["after a stop"] == ["42", node, job]
    assert facts["told"].startswith(
        f"The job {job} of this kernel is over. Ended, because it used more memory"
    )
    assert facts["restarts"] == 0, "people were told that the kernel restarts by itself"
    assert facts["anew"][1] != job
    assert (
        on_login_node("squeue", "--me", "--noheader", "--states=PENDING,RUNNING", f"--job={facts['anew'][1]}")
        == ""
    )
    assert on_login_node("ls", "/home/alice/.hpchub/kernels") == ""


def test_a_kernel_where_no_port_can_be_reached(demo: Demo, on_login_node: Callable[..., str]) -> None:
    """A step of its job leads to it, and is begun again where it was lost; nothing is left of it."""
    on_login_node(
        _PYTHON, "-m", "hpchub.cli", "kernels", "install", "node", "--name", "behind", "--no-check",
        "--slurm", "attach=srun",
    )  # fmt: skip
    with ports_closed(demo, "login1"):
        facts = json.loads(on_login_node(_PYTHON, "person.py", "behind").splitlines()[-1])
    assert facts["ports are closed"]
    assert facts["interrupted"] == "KeyboardInterrupt"
    assert (facts["job after a restart"], facts["port after a restart"]) == (facts["job"], "False\n")
    deadline = time.monotonic() + 10
    while named(demo, "login1", "srun"):
        assert time.monotonic() < deadline, "the step is still there"
        time.sleep(0.05)
    assert on_login_node("ls", "/home/alice/.hpchub/kernels") == ""
