"""A kernel behind a step of its job: where no port of a node can be reached."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpchub.errors import ConfigError, StartFailed
from hpchub.kernels.job_settings import read_settings
from hpchub.kernels.step import Step, StepWay, step_files
from hpchub.remote import kernel_agent
from hpchub.schedulers.render import render_kernel_script
from support.kernel_jobs import OneJob, notebook, until
from support.tree import ROOT

from .conftest import Install

_REFUSES = ("sh", "-c", "echo >>began; echo 'srun: error: Requested nodes are busy' >&2; exit 1")


@pytest.mark.slow
async def test_a_kernel_behind_a_step(job: OneJob, kernel: Install, home: Path) -> None:
    """It answers without a port, outlives the step's loss, is interrupted and restarted; nothing is left."""
    kernel(attach="srun")
    async with notebook() as one:
        line = one.manager.provisioner._line  # type: ignore[union-attr]  # what the test is about
        assert await one.run("x = 1; print(x)") == "1\n"
        (place,) = (home / ".hpchub/kernels").glob("*/agent.json")
        assert set(json.loads(place.read_text())) == {"socket", "sshd", "node"}
        assert job.steps == 1
        first = line._step._process
        job.refuse_steps()
        first.kill()
        await until(lambda: line.is_lost and job.steps == 2)
        assert await one.manager.is_alive()
        job.allow_steps()
        await until(lambda: not line.is_lost)
        waiting = asyncio.create_task(one.run("import time\nprint(x + 1)\ntime.sleep(60)"))
        await until(lambda: one.said == ["2\n"])
        await one.manager.interrupt_kernel()
        assert (await waiting).endswith("KeyboardInterrupt")
        await one.manager.restart_kernel()
        await one.client.wait_for_ready(timeout=60)
        assert await one.run("x") == "NameError"
        last = line._step._process
    assert last.returncode is not None
    await until(lambda: not job.runs)
    assert job.cancelled == []
    assert list((home / ".hpchub/kernels").iterdir()) == []


async def test_slurms_own_words_are_told_and_not_asked_for_again_at_once(tmp_path: Path) -> None:
    """A step that is refused is begun anew after a rest: Slurm may be away."""
    step_files(tmp_path)
    step = Step(StepWay(folder=tmp_path, srun=_REFUSES, socket="/nowhere"), tmp_path / "here")
    for _ in range(3):
        with pytest.raises(OSError, match=r"^srun: error: Requested nodes are busy$"):
            await step.connect(1024)
    assert (tmp_path / "began").read_text() == "\n"
    await step.close()


@pytest.mark.slow
def test_a_server_that_is_killed_leaves_no_step(tmp_path: Path) -> None:
    """Nobody closes it: ssh ends by itself, and with it what it began."""
    step_files(tmp_path)
    code = (
        "import asyncio, sys; from pathlib import Path; from hpchub.kernels.step import Step, StepWay\n"
        "folder = Path(sys.argv[1])\n"
        "srun = ('sh', '-c', 'echo $$ >pid; exec cat >/dev/null')\n"
        "async def main():\n"
        "    way = StepWay(folder=folder, srun=srun, socket='/nowhere')\n"
        "    await Step(way, folder / 'here').connect(1024)\n"
        "asyncio.run(main())\n"
    )
    server = subprocess.Popen((sys.executable, "-c", code, str(tmp_path)))
    note = tmp_path / "pid"
    deadline = time.monotonic() + 60
    while not note.exists() or not note.read_text().endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    step = Path("/proc", note.read_text().strip(), "cmdline")
    server.kill()
    server.wait()
    while step.exists() and step.read_bytes() == b"cat\0":
        assert time.monotonic() < deadline, "the step is still there"
        time.sleep(0.02)


def test_what_a_step_needs_is_the_accounts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and settings, mode 0600; a folder or machine that cannot have them is named."""
    step_files(tmp_path)
    assert {
        path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir() if path.suffix != ".pub"
    } == dict.fromkeys(
        ("host_key", "client_key", "known_hosts", "authorized_keys", "sshd_config"), oct(0o600)
    )
    with pytest.raises(ConfigError, match="cannot stand in an sshd_config"):
        step_files(tmp_path / 'a"b')
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(StartFailed, match=r"ssh-keygen, which attach srun needs here, failed: .*No such"):
        step_files(tmp_path / "another")


def test_a_node_without_sshd_is_named(tmp_path: Path) -> None:
    """In the job's log, and so in what Jupyter says; the script asks for it only with attach srun."""
    (tmp_path / kernel_agent.KEY).write_text("ab" * 32)
    agent = (sys.executable, kernel_agent.__file__, "--folder", str(tmp_path), "--keep", "0")
    done = subprocess.run(
        (*agent, "--sshd", "/nowhere/sshd"), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 5
    assert "attach srun needs /nowhere/sshd on " in done.stderr
    settings = read_settings({"attach": "srun", "sshd": "/opt/ssh 9/sshd", "python": "/usr/bin/python3"})
    script = render_kernel_script(None, settings=settings, job_name="hpchub-kernel-1", folder="/home/a/1")
    assert script.endswith("/agent.py --folder /home/a/1 --keep 1800 --sshd '/opt/ssh 9/sshd'\n")
    assert "--sshd" not in (ROOT / "tests/golden/kernel_script.sh").read_text()


async def test_an_srun_that_will_not_end_keeps_nobody_from_the_next_step(tmp_path: Path) -> None:
    """One that a killed ssh left behind; whoever waits for a step may give up without harm."""
    step_files(tmp_path)
    stubborn = ("sh", "-c", "trap '' TERM HUP; echo $$ >>pids; exec sleep 60")
    step = Step(StepWay(folder=tmp_path, srun=stubborn, socket="/nowhere"), tmp_path / "here")
    pids = tmp_path / "pids"
    waiting = asyncio.create_task(step.connect(1024))
    try:
        await until(lambda: pids.exists() and pids.read_text().endswith("\n"))
        waiting.cancel()
        assert step._process is not None
        step._process.kill()
        await step._process.wait()
        with pytest.raises(OSError, match="ssh ended with -9"):
            await step.connect(1024)
        step._not_before = 0.0
        waiting = asyncio.create_task(step.connect(1024))
        await until(lambda: len(pids.read_text().splitlines()) == 2)
    finally:
        waiting.cancel()
        await step.close()
        for pid in pids.read_text().split():
            os.kill(int(pid), signal.SIGKILL)
