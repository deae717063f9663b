"""Kernels in jobs that end, or never begin, in ways that nobody planned."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.asyncio
from jupyter_client.ioloop.manager import AsyncIOLoopKernelManager
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from traitlets.config import Configurable

from hpchub.cli import main
from hpchub.errors import ConfigError, HostUnreachable, StartFailed
from hpchub.kernels import allocation, slurm
from hpchub.kernels import line as line_module
from hpchub.kernels.allocation import Place
from hpchub.kernels.cells import Cells
from hpchub.kernels.claims import records
from hpchub.kernels.job_settings import read_settings
from hpchub.kernels.line import Line
from hpchub.remote import kernel_agent
from hpchub.remote.kernel_agent import PrivateFolder
from support.kernel_jobs import Notebook, OneJob, notebook, until
from support.tree import ROOT

from .conftest import Install


@pytest.mark.slow
async def test_a_kernel_that_ends_again_and_again_says_why_and_ends_its_job(
    job: OneJob, kernel: Install, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its environment broke after the first start, say: Jupyter gives up, and nothing is left."""
    kernel()
    manager = AsyncIOLoopKernelManager(kernel_name="node")
    await manager.start_kernel()
    one = Notebook()
    one.manager, one.client = manager, manager.client()
    one.client.start_channels()
    await one.client.wait_for_ready(timeout=60)
    try:
        assert manager.kernel_spec is not None
        manager.kernel_spec.argv[:] = ["/bin/sh", "-c", "echo the licence is gone >&2; exit 7"]
        await one.run("print(1)")
        manager._restarter.stop()
        manager._restarter.time_to_dead = 0.1
        manager._restarter.start()
        one.client.execute("import os; os._exit(7)")
        await until(lambda: not job.runs)
        await until(lambda: not list((home / ".hpchub/kernels").iterdir()))
    finally:
        one.client.stop_channels()
        await manager.shutdown_kernel(now=True)
    assert "The kernel ended with exit code 7: " in caplog.text
    assert "--existing" not in caplog.text
    assert "the licence is gone" in caplog.text


@pytest.mark.parametrize("what", ["folder", "interrupt"])
async def test_a_wait_that_is_broken_off_leaves_no_job(
    job: OneJob, kernel: Install, home: Path, what: str
) -> None:
    """Whatever breaks it off: the folder in the home is gone, or a program that starts kernels is stopped."""
    kernel()
    job.hold()
    starting = asyncio.create_task(Notebook().start())
    folder = home / ".hpchub/kernels"
    await until(lambda: bool(list(folder.glob("*/record.json"))))
    if what == "folder":
        shutil.rmtree(folder)
        with pytest.raises(StartFailed, match=r"cannot\sbe\sread"):
            await starting
    else:
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    assert [line.split()[-1] for line in job.cancelled] == ["4242"]
    assert "--keep 0" in job.script, "without a notebook nobody else could go on with it"


@pytest.mark.parametrize("how", ["cancelled", "again and again", "stopping", "full"])
async def test_a_start_that_is_broken_off_while_sbatch_runs_leaves_no_job_that_nobody_finds(
    job: OneJob, kernel: Install, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """sbatch goes on then, and its answer is waited for, even by a loop that ends. A server that stops leaves
    the job to the next one, unless the home is full and its number cannot be kept.
    """
    kernel()
    job.hold()
    sbatch = job.folder / "sbatch"
    waits = f"touch {job.folder}/began; until [ -e {job.folder}/goes ]; do sleep 0.02; done\necho 4242"
    sbatch.write_text(sbatch.read_text().replace("echo 4242", waits))
    monkeypatch.setattr(slurm, "server_is_stopping", lambda _: how in {"stopping", "full"})
    before = asyncio.all_tasks()
    starting = asyncio.create_task(Notebook().start("/home/a.ipynb"))
    await until(lambda: (job.folder / "began").exists())
    if how == "full":
        monkeypatch.setattr(allocation, "RECORD", "gone/record.json")
    starting.cancel()
    await asyncio.sleep(0)
    for _ in range(3 if how == "again and again" else 0):
        for task in asyncio.all_tasks() - before:
            task.cancel()
        await asyncio.sleep(0.01)
    (job.folder / "goes").touch()
    with pytest.raises(asyncio.CancelledError):
        await starting
    left = how == "stopping"
    assert [record["job"] for _, record in records()] == (["4242"] if left else [])
    assert [line.split()[-1] for line in job.cancelled] == ([] if left else ["4242"])


@pytest.mark.parametrize("option", ["--array=1-3", "--wait", "--wrap=rm", "--test-only"])
def test_what_makes_no_job_of_ours_is_refused(option: str) -> None:
    """Several jobs, none, or an sbatch that answers when the job is over."""
    with pytest.raises(ConfigError, match="does not go with a kernel's job"):
        read_settings({"options": [option]})


@pytest.mark.parametrize(
    ("name", "value"),
    [("OPTIONS", "'--hold"), ("CPUS", "9" * 5000), ("PARTITION", "-p; rm -rf"), ("CPUS", "0")],
)
def test_a_variable_that_is_wrong_is_named(name: str, value: str) -> None:
    """With its key, whatever stands in it."""
    with pytest.raises(ConfigError, match=f"(?m)^{name.lower()}: "):
        read_settings({}, {f"HPCHUB_KERNEL_{name}": value})


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[tuple[kernel_agent.Agent, Line]]:
    """An agent in this process, and a line to it."""
    (tmp_path / kernel_agent.KEY).write_text("ab" * 32)
    (tmp_path / kernel_agent.ADDRESS).touch()
    one = kernel_agent.Agent(tmp_path, 60)
    running = asyncio.create_task(one.run())
    await until(lambda: (tmp_path / kernel_agent.ADDRESS).read_text().endswith("}"))
    port = json.loads((tmp_path / kernel_agent.ADDRESS).read_text())["port"]
    line = Line(Place(address="127.0.0.1", port=port, node="here"), bytes.fromhex("ab" * 32), "kernel-1")
    try:
        await line.open()
        yield one, line
    finally:
        await asyncio.to_thread(line.close)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_a_node_where_no_file_can_be_made_says_so(agent: tuple[kernel_agent.Agent, Line]) -> None:
    """Its /tmp is full, say: the reason comes at once, and not that the node does not answer."""
    one, line = agent
    (one._runtime.path / "kernel-1").touch()
    with pytest.raises(StartFailed, match=r"cannot be started on here: .*File exists"):
        await line.start({"argv": ["true"], "env": {}})


def test_the_folder_of_a_process_that_was_killed_is_removed(tmp_path: Path) -> None:
    """By the next one on that machine; one that is in use stays."""
    used = PrivateFolder()
    left = PrivateFolder()
    (left.path / "key").touch()
    left._lock.close()  # as the kernel does for a process that ends
    fresh = PrivateFolder()
    assert (used.path.exists(), left.path.exists(), fresh.path.stat().st_mode & 0o777) == (True, False, 0o700)
    for one in (used, fresh):
        one.remove()
    assert not used.path.exists()


def test_a_log_that_grows_is_cut(tmp_path: Path) -> None:
    """A kernel that prints gigabytes fills no home: the log's end stays, and what comes later follows it."""
    code = (
        "import os, hpchub.remote.kernel_agent as a; a._LOG_BYTES, a._LOG_KEPT_BYTES = 1000, 100\n"
        "a.say('short'); a.trim_log(); os.write(2, b'x' * 5000 + b'end\\n'); a.trim_log(); a.say('more')"
    )
    with (tmp_path / "job.log").open("ab") as log:
        subprocess.run((sys.executable, "-c", code), stderr=log, check=True, timeout=60)
    lines = (tmp_path / "job.log").read_text().splitlines()
    assert lines == [
        "hpchub: this log was too long; what follows is its end",
        "x" * 96 + "end",
        "hpchub: more",
    ]


@asynccontextmanager
async def called(folder: Path, keep: str, log: str) -> AsyncIterator[Line]:
    """A line to an agent in a process of its own."""
    (folder / kernel_agent.KEY).write_text("ab" * 32)
    address = folder / kernel_agent.ADDRESS
    address.touch()
    argv = (sys.executable, kernel_agent.__file__, "--folder", str(folder), "--keep", keep)
    running = subprocess.Popen(  # noqa: ASYNC220  nobody else waits for this loop
        ("sh", "-c", 'log=$1; shift; exec "$@" 2>"$log"', "sh", log, *argv)
    )
    try:
        await until(lambda: address.read_text().endswith("}"))
        place = Place(address="127.0.0.1", port=json.loads(address.read_text())["port"], node="here")
        line = Line(place, bytes.fromhex("ab" * 32), "kernel-1")
        await line.open()
        yield line
        await asyncio.to_thread(line.close)
    finally:
        running.terminate()
        running.wait(30)


async def test_a_full_home_hides_no_end(tmp_path: Path) -> None:
    """Where the job's log cannot be written, a kernel's end is told all the same."""
    async with called(tmp_path, "60", "/dev/full") as line:
        await line.start({"argv": ["sh", "-c", "exit 7"], "env": {}})
        await until(lambda: line.exit_code == 7)


async def test_a_kernel_that_is_kept_for_no_time_still_starts(tmp_path: Path) -> None:
    """The first call is waited for: a notebook server needs some time to find the job."""
    async with called(tmp_path, "0", "/dev/null") as line:
        await line.start({"argv": ["sleep", "60"], "env": {}})
        assert line.runs


@pytest.mark.slow
async def test_what_a_kernel_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    """A killed kernel's own processes would hold the job's memory, and its restart would have less."""
    async with called(tmp_path, "60", "/dev/null") as line:
        code = f"sleep 600 & echo $! >{tmp_path}/pid; kill -9 $$"
        await line.start({"argv": ["sh", "-c", code], "env": {}})
        await until(lambda: line.exit_code == -signal.SIGKILL)
        child = int((tmp_path / "pid").read_text())
        await until(lambda: not _runs(child))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
async def test_a_job_that_was_found_again_is_waited_for_no_longer(
    job: OneJob, kernel: Install, home: Path
) -> None:
    """It waited in the queue when its notebook server died: after `wait` it is cancelled like any other."""
    kernel(wait="00:00:01")
    job.hold()
    code = (
        "import asyncio, os, pathlib, sys; sys.path.insert(0, sys.argv[1])\n"
        "from support.kernel_jobs import Notebook, until\n"
        "async def main():\n"
        "    starting = asyncio.create_task(Notebook().start('/home/a.ipynb'))\n"
        "    await until(lambda: list(pathlib.Path.home().glob('.hpchub/kernels/*/record.json')))\n"
        "    os._exit(9)\n"
        "asyncio.run(main())\n"
    )
    died = await asyncio.to_thread(
        subprocess.run, (sys.executable, "-c", code, str(ROOT / "tests")), timeout=60, check=False
    )
    assert died.returncode == 9
    with pytest.raises(StartFailed, match=r"did\snot\sstart\swithin\s1\ss"):
        await Notebook().start("/home/a.ipynb")
    assert (job.submitted, [line.split()[-1] for line in job.cancelled]) == (1, ["4242"])
    assert list((home / ".hpchub/kernels").iterdir()) == []


async def test_a_folder_without_a_job_goes_at_the_next_start(
    job: OneJob, kernel: Install, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A notebook server died while sbatch ran, or the disk was full: nothing stands in anybody's way."""
    kernel(wait="00:00:00")
    job.hold()
    folder = home / ".hpchub/kernels"
    for name, record in (("old", None), ("new", None), ("odd", "{}")):
        (folder / name).mkdir(parents=True, mode=0o700)
        if record:
            (folder / name / "record.json").write_text(record)
    (home / ".hpchub/kernels").chmod(0o700)
    os.utime(folder / "old", (0, 0))
    assert await asyncio.to_thread(main, ["kernels", "jobs"]) == 0
    assert capfd.readouterr().out == "No kernel of yours runs in a job.\n"
    with pytest.raises(StartFailed):
        await Notebook().start()
    assert sorted(path.name for path in folder.iterdir()) == ["new", "odd"]


async def test_who_goes_away_while_a_kernel_is_lost_is_not_waited_for() -> None:
    """ZeroMQ comes again every 30 s: for hours without the node, each would be one more that dials."""
    line = Line(Place(address="127.0.0.1", port=1, node="gone"), bytes(32), "kernel-1")
    await line.listen()
    await until(lambda: len(line._doors._held) == 1)  # ours, which follows the cells
    for _ in range(3):
        _, writer = await asyncio.open_unix_connection(f"{line.connection_info['ip']}-1")
        writer.write(b"a greeting")
        await until(lambda: len(line._doors._held) == 2)
        writer.close()
        await until(lambda: len(line._doors._held) == 1)
    await asyncio.to_thread(line.close)


@pytest.mark.slow
async def test_why_a_kernel_ended_reaches_all_who_listened(tmp_path: Path) -> None:
    """Also those whose socket is late to come back, as on a machine that has a lot to do."""
    cells = Cells(tmp_path / "k-2", b"key")
    cells._asked = {"msg_id": "1", "msg_type": "execute_request"}
    context = zmq.asyncio.Context()
    writing = asyncio.create_task(cells.write("the job is over", 2))
    heard = []
    for pause_s in (0.0, 0.8):
        await asyncio.sleep(pause_s)
        heard.append(context.socket(zmq.SUB))
        heard[-1].subscribe(b"")
        heard[-1].connect(f"ipc://{tmp_path}/k-2")
    await writing
    for one in heard:
        assert any(b"the job is over" in frame for frame in await asyncio.wait_for(one.recv_multipart(), 10))
    context.destroy(linger=0)
    cells.close()


@pytest.mark.slow
async def test_a_kernel_is_dead_to_jupyter_only_once_it_was_told_why(
    agent: tuple[kernel_agent.Agent, Line], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JupyterLab takes no word more from a dead kernel, and ZeroMQ's sockets need a moment on a busy machine.

    That holds for all who ask: a page that is loaded in that moment asks, too.
    """
    _, line = agent
    await line.start({"argv": ["sh", "-c", "exit 7"], "env": {}})
    await until(lambda: line.exit_code == 7)
    arrived: list[str] = []

    async def write(text: str) -> bool:
        await asyncio.sleep(0.1)
        asyncio.get_running_loop().call_later(0.2, arrived.append, text)
        return True

    monkeypatch.setattr(line, "write", write)
    provisioner = slurm.SlurmProvisioner()
    provisioner._line, provisioner._job = line, allocation.Allocation(tmp_path)

    async def ask() -> tuple[int | None, int]:
        return await provisioner.poll(), len(arrived)

    assert await asyncio.gather(ask(), ask()) == [(7, 1), (7, 1)]
    assert "ended with exit code 7" in arrived[0]


async def test_a_node_that_was_reached_before_needs_no_other_way(
    agent: tuple[kernel_agent.Agent, Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that has stopped to answer nobody is told to change how it is reached."""
    monkeypatch.setattr(line_module, "_START_S", 0.1)
    one, line = agent
    monkeypatch.setattr(one, "_follow", lambda *_: asyncio.sleep(60))
    with pytest.raises(HostUnreachable, match="does not answer") as caught:
        await line.start({"argv": ["true"], "env": {}})
    assert caught.value.hint == ""
    never = Line(Place(address="127.0.0.1", port=1, node="here"), bytes(32), "kernel-1")
    with pytest.raises(HostUnreachable) as caught:
        await never.open()
    assert "attach=srun" in caught.value.hint
    await asyncio.to_thread(never.close)


async def test_jobs_are_listed_while_slurm_is_away(
    job: OneJob, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With its words instead of a state; a file that was spoilt in a job's folder stops nothing."""
    folder = home / ".hpchub/kernels/one"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text('{"job": "4242", "share": ""}')
    (folder / "kernel-1.json").write_text("5")
    (folder / "kernel-2.json").write_text('{"kernel": 7}')
    job.say("away")
    assert main(["kernels", "jobs"]) == 0  # beside a loop that runs, as in a notebook
    said = "4242: Slurm did not answer squeue: Unable to contact slurm controller (connect failure). For 7.\n"
    assert capfd.readouterr().out == said


@pytest.mark.parametrize("stopping", [False, True])
async def test_a_kernel_that_waits_can_be_given_up(
    job: OneJob, kernel: Install, home: Path, stopping: bool
) -> None:
    """Shut down in JupyterLab, its job is cancelled; a server that stops leaves it to the next one."""
    kernel()
    job.hold()
    app = StoppingApp()
    make: Any = AsyncMappingKernelManager  # it has no types
    manager = make(use_pending_kernels=True, parent=app)
    kernel_id = await manager.start_kernel(
        kernel_name="node", env={**os.environ, "JPY_SESSION_NAME": "/home/a.ipynb"}
    )
    folder = home / ".hpchub/kernels"
    await until(lambda: bool(list(folder.glob("*/record.json"))))
    await until(lambda: "waiting for resources" in manager.get_kernel(kernel_id).reason)
    app._stopping = stopping
    ended, _ = await asyncio.wait({asyncio.ensure_future(manager.shutdown_kernel(kernel_id))}, timeout=20)
    assert ended, "it waits for the job"
    assert [line.split()[-1] for line in job.cancelled] == ([] if stopping else ["4242"])
    assert len(list(folder.iterdir())) == stopping


class StoppingApp(Configurable):
    """What the provisioner asks of Jupyter's server."""

    _stopping = False


@pytest.mark.slow
async def test_why_a_restart_failed_stands_under_the_cell(job: OneJob, kernel: Install) -> None:
    """Jupyter's dialog says only that there was an exception."""
    kernel()
    async with notebook() as one:
        assert await one.run("print(1)") == "1\n"
        said: list[str] = []

        async def hear() -> None:
            # As it comes, like Jupyter's server: ZeroMQ drops what is unread when it connects again.
            while True:
                said.append(str((await one.client.get_iopub_msg(timeout=60))["content"].get("text")))

        hearing = asyncio.create_task(hear())
        one.manager.kernel_spec.argv[:] = ["/nowhere/python3"]  # type: ignore[union-attr]
        with pytest.raises(StartFailed):
            await one.manager.restart_kernel(now=True)
        await until(lambda: any("The kernel cannot be restarted." in text for text in said))
        assert any("/nowhere/python3: No such file or directory." in text for text in said)
        hearing.cancel()
    await until(lambda: not job.runs)
