"""Kernels in jobs: the real agent and real kernels, with stand-ins for Slurm's commands."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hpchub.cli import main
from hpchub.errors import ConfigError, HostUnreachable, StartFailed, SubmitRejected
from hpchub.kernels import slurm as slurm_module
from hpchub.kernels.allocation import Place
from hpchub.kernels.job_settings import read_settings
from hpchub.kernels.line import Line
from hpchub.remote import kernel_agent
from hpchub.schedulers.render import render_kernel_script
from support.kernel_jobs import Notebook, OneJob, notebook, until
from support.tree import ROOT

from .conftest import Install


@pytest.mark.slow
async def test_a_kernels_whole_life(job: OneJob, kernel: Install, home: Path) -> None:
    """First reply, interrupt, restart in the same job, end of the job with the kernel, nothing left."""
    kernel(time="00:05:00", memory="500M", cpus=2)
    async with notebook() as one:
        began = job.pid
        told = await one.run("import os; x = 1; print(os.environ['FROM_SPEC'], os.environ['SLURM_JOB_ID'])")
        assert told == "yes 4242\n"
        waiting = asyncio.create_task(one.run("import time\nprint('on')\ntime.sleep(60)"))
        await until(lambda: one.said == ["on\n"])
        await one.manager.interrupt_kernel()
        assert (await waiting).endswith("KeyboardInterrupt")
        await one.manager.restart_kernel()
        await one.client.wait_for_ready(timeout=60)
        assert await one.run("x") == "NameError"
        assert job.pid == began
    await until(lambda: not job.runs)
    assert job.cancelled == []
    assert list((home / ".hpchub/kernels").iterdir()) == []
    assert {"#SBATCH --time=00:05:00", "#SBATCH --mem=500M", "#SBATCH --cpus-per-task=2"} <= set(
        job.script.splitlines()
    )


@pytest.mark.slow
async def test_a_notebook_server_that_dies_finds_its_kernel_again(
    job: OneJob, kernel: Install, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same notebook and kernel: variables are there, and there is no second job."""
    kernel()
    code = (
        "import asyncio, os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from support.kernel_jobs import Notebook\n"
        "async def main():\n"
        "    one = Notebook(); await one.start('/home/a.ipynb'); await one.run('x = 42'); os._exit(9)\n"
        "asyncio.run(main())\n"
    )
    died = subprocess.run((sys.executable, "-c", code, str(ROOT / "tests")), timeout=60, check=False)
    assert died.returncode == 9
    before = job.pid
    async with notebook("/home/a.ipynb") as one:
        assert await one.run("print(x)") == "42\n"
        assert await asyncio.to_thread(main, ["kernels", "jobs"]) == 0
        assert capfd.readouterr().out == "4242: Running on node1 (RUNNING). For /home/a.ipynb.\n"
        assert job.pid == before
        await one.manager.restart_kernel()
        await one.client.wait_for_ready(timeout=60)
        assert await one.run("x") == "NameError"


@pytest.mark.slow
async def test_only_slurm_says_that_a_job_is_over_and_why(
    job: OneJob, kernel: Install, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No answer is doubt, and the kernel stays; a final state is told, and not restarted into a new job."""
    monkeypatch.setattr(slurm_module, "_DOUBT_S", 0.0)
    monkeypatch.setattr(slurm_module, "_ASK_AGAIN_S", 0.0)
    kernel()
    async with notebook() as one:
        line = one.manager.provisioner._line  # type: ignore[union-attr]  # what the test is about
        cell = asyncio.create_task(one.run("import time; print('here'); time.sleep(600)"))
        await until(lambda: one.said == ["here\n"])
        job.say("away")
        os.kill(job.pid, signal.SIGTERM)  # as Slurm does before it kills
        await until(lambda: line.is_lost)
        assert await one.manager.is_alive()
        assert "does not answer. Job 4242: Running on node1 (RUNNING)." in caplog.text
        job.say("TIMEOUT")
        assert not await one.manager.is_alive()
        told = "The job 4242 of this kernel is over. Ended, because its time was up (TIMEOUT).\n"
        await until(lambda: one.said == ["here\n", told])
        cell.cancel()
        with pytest.raises(StartFailed, match=r"its\stime\swas\sup"):
            await one.manager.restart_kernel(now=True)
    assert "The job 4242 of this kernel is over. Ended, because its time was up (TIMEOUT)." in caplog.text
    assert job.submitted == 1


@pytest.mark.slow
async def test_a_kernel_that_is_killed_can_be_restarted_in_its_job(
    job: OneJob, kernel: Install, caplog: pytest.LogCaptureFixture
) -> None:
    """Its end is noticed at once, with what it probably died of."""
    kernel()
    async with notebook() as one:
        before = job.pid
        one.client.execute("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        assert await asyncio.wait_for(one.manager.provisioner.wait(), 30) == -signal.SIGKILL  # type: ignore[union-attr]
        assert "ended by signal 9 (SIGKILL). That is mostly for want of memory." in caplog.text
        await one.manager.restart_kernel(now=True)
        await one.client.wait_for_ready(timeout=60)
        assert await one.run("print(1)") == "1\n"
        assert job.pid == before


@pytest.mark.usefixtures("home")
async def test_a_wait_shows_its_reason_and_ends(
    job: OneJob, kernel: Install, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After `wait` the job is cancelled, so that it does not start for nobody."""
    kernel(wait="00:00:00")
    job.hold()
    with pytest.raises(
        StartFailed, match=r"did\snot\sstart\swithin\s0\ss\.\sPending:\swaiting\sfor\sresources"
    ):
        await Notebook().start()
    assert "Job 4242: Pending: waiting for resources to become free (Resources)." in caplog.text
    assert job.cancelled == ["--name=" + job.script.split("--job-name=")[1].split("\n")[0] + " 4242"]
    assert list((home / ".hpchub/kernels").iterdir()) == []


@pytest.mark.slow
async def test_a_job_that_ends_at_once_says_so(job: OneJob, kernel: Install, home: Path) -> None:
    """With the last words of its log."""
    kernel(python="/nowhere/python3")
    said = r"(?s)ended\sbefore\sthe\skernel\sbegan.*nowhere/python3.*No\ssuch\sfile"
    with pytest.raises(StartFailed, match=said):
        await Notebook().start()


async def test_slurms_refusal_is_told(job: OneJob, kernel: Install, home: Path) -> None:
    """In its own words; nothing is left in the home."""
    kernel(partition="nope")
    (job.folder / "sbatch").write_text(
        "#!/bin/sh\n"
        "echo 'sbatch: error: Batch job submission failed: Invalid partition name specified' >&2; exit 1\n"
    )
    with pytest.raises(SubmitRejected, match=r"Invalid\spartition\sname"):
        await Notebook().start()
    assert list((home / ".hpchub/kernels").iterdir()) == []


async def test_a_command_that_the_node_lacks_is_named(job: OneJob, kernel: Install) -> None:
    """And the job is ended."""
    folder = kernel()
    body = json.loads((folder / "kernel.json").read_text())
    (folder / "kernel.json").write_text(json.dumps({**body, "argv": ["/nowhere/R", "{connection_file}"]}))
    with pytest.raises(StartFailed, match=r"/nowhere/R:\sNo\ssuch\sfile"):
        await Notebook().start()
    await until(lambda: not job.runs)


async def test_variables_change_the_settings_of_one_start(
    job: OneJob, kernel: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HPCHUB_KERNEL_… wins over kernel.json; what neither knows is named, with what was meant."""
    kernel(cpus=2)
    monkeypatch.setenv("HPCHUB_KERNEL_CPUS", "6")
    monkeypatch.setenv("HPCHUB_KERNEL_PARTITON", "gpu")
    with pytest.raises(ConfigError, match=r"did\syou\smean\s'partition'"):
        await Notebook().start()
    monkeypatch.delenv("HPCHUB_KERNEL_PARTITON")
    assert read_settings({"cpus": 2}, os.environ).cpus == 6


def test_the_script_is_this() -> None:
    """Whole, as sbatch gets it: no secret is in it."""
    settings = read_settings(
        {"partition": "gpu", "account": "physics", "qos": "high", "time": "02:00:00", "cpus": 4,
         "memory": "8G", "gpus": 1, "gpu_type": "a100",
         "options": ["--constraint=a b"], "python": "/opt/jupyter/bin/python3"}
    )  # fmt: skip
    script = render_kernel_script(
        None, settings=settings, job_name="hpchub-kernel-9f3a", folder="/home/alice/.hpchub/kernels/9f3a"
    )
    assert script == (ROOT / "tests/golden/kernel_script.sh").read_text()


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[tuple[Place, bytes]]:
    """An agent without a job: its place and key."""
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / kernel_agent.KEY).write_text("ab" * 32)
    running = subprocess.Popen(  # noqa: ASYNC220  nobody else waits for this loop
        (sys.executable, kernel_agent.__file__, "--folder", str(folder), "--keep", "60")
    )
    try:
        await until(lambda: (folder / kernel_agent.ADDRESS).exists())
        await until(lambda: (folder / kernel_agent.ADDRESS).read_text().endswith("}"))
        body = json.loads((folder / kernel_agent.ADDRESS).read_text())
        yield Place(address="127.0.0.1", port=body["port"], node="here"), bytes.fromhex("ab" * 32)
    finally:
        running.terminate()
        running.wait(30)


async def test_who_does_not_know_the_key_gets_nowhere(agent: tuple[Place, bytes]) -> None:
    """Neither to the agent nor to a kernel's sockets; a greeting is all there is."""
    place, key = agent
    stranger = Line(place, bytes(32), "kernel-1")
    with pytest.raises(HostUnreachable):
        await stranger.open()
    stranger.close()
    for words in (b"kernel-1/shell x y\n", b"\xff\n", b"x" * 2000 + b"\n", b"\n"):
        with socket.create_connection((place.address, place.port), timeout=10) as raw:
            stream = raw.makefile("rwb")
            assert stream.readline().startswith(b"hpchub-kernel-1 ")
            stream.write(words)
            stream.flush()
            assert stream.read() == b""
    friend = Line(place, key, "kernel-1")
    await friend.open()
    assert not friend.runs
    friend.close()


@pytest.mark.slow
def test_an_agent_that_nobody_calls_ends_its_job(tmp_path: Path) -> None:
    """After `keep`, and says why in the job's log; one without a key ends at once."""
    # Otherwise the first call is waited for, a minute at least.
    code = "import sys, hpchub.remote.kernel_agent as a; a._FIRST_CALL_S = 0.0; sys.exit(a.main())"
    argv = (sys.executable, "-c", code, "--folder", str(tmp_path), "--keep", "0")
    without = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (without.returncode, "cannot be served" in without.stderr) == (5, True)
    (tmp_path / kernel_agent.KEY).write_text("ab" * 32)
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (
        0,
        "hpchub: nobody has asked for a kernel for 0 s: the job ends\n",
    )


async def test_an_agent_that_is_none_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever got the node's port next learns nothing of the key, and is refused."""
    heard = []

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hpchub-kernel-1 00\n")
        heard.append(await reader.readline())
        writer.write(b"ok 00\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(pretend, "127.0.0.1", 0)
    place = Place(address="127.0.0.1", port=server.sockets[0].getsockname()[1], node="here")
    line = Line(place, b"k" * 32, "kernel-1")
    with pytest.raises(HostUnreachable, match="does not know the key"):
        await line.open()
    line.close()
    server.close()
    assert (b"k" * 32).hex().encode() not in heard[0]


@pytest.mark.slow
async def test_a_kernel_may_listen_on_loopback_ports(agent: tuple[Place, bytes]) -> None:
    """For kernels that know no unix sockets: its line is the same."""
    place, key = agent
    line = Line(place, key, "kernel-1")
    await line.open()
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    await line.start({"argv": argv, "env": {}, "cwd": "/", "transport": "tcp"})
    await line.listen()
    from jupyter_client.asynchronous import AsyncKernelClient

    client = AsyncKernelClient()
    client.load_connection_info(line.connection_info)  # type: ignore[arg-type]
    client.start_channels(hb=False)  # which takes a kernel for dead that is silent for a second
    await client.wait_for_ready(timeout=60)
    client.stop_channels()
    assert await line.end()
    line.close()
    assert kernel_agent.message_key(key, "kernel-1").encode() == line.connection_info["key"]


@pytest.mark.slow
async def test_kernels_of_one_word_share_a_job(job: OneJob, kernel: Install, home: Path) -> None:
    """Started together, they submit once; the job ends with the last of them, whichever that is."""
    kernel(share="team")
    async with notebook() as second:
        async with notebook() as first:
            assert job.submitted == 1
            assert await first.run("x = 1; print(x)") == "1\n"
            assert await second.run("x") == "NameError"
        assert await second.run("print(2)") == "2\n"
        assert job.runs
    await until(lambda: not job.runs)
    assert job.cancelled == []
    assert [path.name for path in (home / ".hpchub/kernels").iterdir()] == ["share-team.lock"]
