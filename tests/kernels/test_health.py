"""`hpchub kernels check`, and kernels that are really started, or say why they are not."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from hpchub.cli import main
from hpchub.errors import StartFailed
from hpchub.kernels.health import check, last_words
from hpchub.kernels.kernelspec import Kernelspec
from support.kernel_jobs import until
from support.require import programs

Install = Callable[..., Kernelspec]
Printed = pytest.CaptureFixture[str]


@asynccontextmanager
async def kernel(name: str) -> AsyncIterator[Any]:
    """A client of a running kernel, of Jupyter's own manager, which is the client's parent."""
    from jupyter_client.manager import AsyncKernelManager

    # Without a file's name Jupyter calls the sockets of every kernel `kernel-ipc-N`, in the current folder:
    # one that starts meanwhile, of this process or another, takes them over, and removes them.
    with TemporaryDirectory() as folder:
        manager = AsyncKernelManager(
            kernel_name=name, transport="ipc", connection_file=f"{folder}/kernel.json"
        )
        await manager.start_kernel()
        client = manager.client()
        client.start_channels()
        try:
            await client.wait_for_ready(timeout=60)
            yield client
        finally:
            client.stop_channels()
            await manager.shutdown_kernel(now=True)


async def run(client: Any, code: str) -> str:
    """What a cell prints."""
    said: list[str] = []
    await client.execute_interactive(
        code, timeout=60, output_hook=lambda message: said.append(message["content"].get("text", ""))
    )
    return "".join(said)


async def printed_by(name: str, code: str) -> str:
    """What a cell prints that is a kernel's only one."""
    async with kernel(name) as client:
        return await run(client, code)


@pytest.fixture
def sparing(environment: Path) -> Path:
    """An environment without ipykernel."""
    shutil.rmtree(environment / "lib")
    return environment


@pytest.fixture(autouse=True)
def _ours(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Jupyter starts kernels through our provisioner, as a site would configure it."""
    from jupyter_client.provisioning import KernelProvisionerFactory

    monkeypatch.setenv("JUPYTER_DEFAULT_PROVISIONER_NAME", "hpchub-local")
    KernelProvisionerFactory.clear_instance()


@pytest.mark.slow
async def test_an_installed_environment_is_a_kernel(environment: Path, installed: Install) -> None:
    """A real kernel, started by jupyter_client from the installed spec, runs in that environment."""
    installed(environment, "--name", "mine")
    assert await printed_by("mine", "import sys; print(sys.prefix)") == f"{environment}\n"


@pytest.mark.slow
@pytest.mark.usefixtures("modules")
async def test_a_module_is_a_kernel(environment: Path, installed: Install) -> None:
    """With the machine's own module system, from `module load` to the first reply."""
    installed("modules", "--module", "py/1", "--name", "mod")
    code = "import os, sys; print(os.environ['FROM_MODULE'], sys.prefix)"
    assert await printed_by("mod", code) == f"yes {environment}\n"


@pytest.mark.slow
def test_r_has_its_kernel(installed: Install) -> None:
    """The check finds IRkernel in this machine's R."""
    programs("R")
    installed("r", "--name", "mine")
    assert main(["kernels", "check", "mine"]) == 0


@pytest.mark.slow
async def test_r_runs_and_is_interrupted_and_ends(
    tmp_path: Path, environment: Path, installed: Install
) -> None:
    """R's kernel does what Jupyter asks, beside one of Python that starts at the same time."""
    programs("R")
    installed(environment, "--name", "python", "--no-check")
    installed("r", "--name", "r", "--no-check")
    async with asyncio.TaskGroup() as group:
        python = group.create_task(printed_by("python", "print(6 * 7)"))
        async with kernel("r") as client:
            assert await run(client, "cat(R.version$language, 6 * 7)") == "R 42"
            begun = tmp_path / "begun"
            sleeps = asyncio.create_task(run(client, f"{{ file.create('{begun}'); Sys.sleep(300) }}"))
            await until(lambda: begun.exists() or sleeps.done())
            await client.parent.interrupt_kernel()
            await sleeps
            assert await run(client, "cat('still here')") == "still here"
            client.shutdown()
            process = client.parent.provisioner.process
            await until(lambda: process.poll() is not None)
            assert process.returncode == 0
    assert python.result() == "42\n"


async def test_a_kernel_that_ends_at_once_says_why(sparing: Path, installed: Install) -> None:
    """Instead of a dead kernel: what is missing, and how to get it."""
    installed(sparing, "--name", "mine", "--no-check")
    with pytest.raises(StartFailed, match=r"ipykernel\sis\smissing") as caught:
        await printed_by("mine", "1")
    assert f"{sparing}/bin/python3 -m pip install ipykernel" in str(caught.value)


async def test_an_environment_that_is_gone_is_named_before_launch(
    environment: Path, installed: Install
) -> None:
    """Nothing is started for it."""
    installed(environment, "--name", "mine", "--no-check")
    environment.rename(environment.parent / "elsewhere")
    with pytest.raises(StartFailed, match=r"is\snot\sthere"):
        await printed_by("mine", "1")


@pytest.mark.usefixtures("modules", "containers")
@pytest.mark.slow
def test_check_names_what_is_missing(
    environment: Path, installed: Install, tmp_path: Path, capfd: Printed
) -> None:
    """Each kernel's own fault, and the good ones beside them; exit code 1."""
    (tmp_path / "x.sif").touch()
    installed(environment, "--name", "good")
    installed(environment, "--name", "gone")
    installed(tmp_path / "x.sif", "--no-check")
    installed("modules", "--module", "py/9", "--no-check", "--name", "module")
    installed("r", "--no-check")
    shutil.copytree(environment, tmp_path / "broken", symlinks=True)
    broken = tmp_path / "broken/lib" / f"python3.{sys.version_info[1]}/site-packages/ipykernel/kernelapp.py"
    broken.parent.mkdir()
    (broken.parent / "__init__.py").touch()
    broken.write_text("import a_library_that_is_gone\n")
    installed(tmp_path / "broken", "--no-check")
    gone, lacking = load(installed, "gone"), load(installed, "r")
    lacking.write_text(lacking.read_text().replace('"R", "--slave"', '"R-99", "--slave"'))
    (tmp_path / "x.sif").unlink()
    gone.write_text(gone.read_text().replace("my env", "no env"))
    capfd.readouterr()
    assert main(["kernels", "check", "--json", "--environment", str(tmp_path / "none")]) == 1
    found = {row["name"]: row["problem"] for row in json.loads(capfd.readouterr().out)}
    assert found["good"] == ""
    assert "no env is not there" in found["gone"]
    assert found["x"] == f"the image {tmp_path}/x.sif is not there"
    assert "the module py/9 cannot be loaded" in found["module"]
    assert "there is no R-99 on" in found["r"]
    assert "a_library_that_is_gone" in found["broken"]


def load(installed: Install, name: str) -> Path:
    """An installed kernel's kernel.json."""
    return Path.home() / ".local/share/jupyter/kernels" / name / "kernel.json"


def test_wrong_settings_of_a_job_are_found(environment: Path, installed: Install) -> None:
    """Before anything is submitted."""
    spec = installed(environment, "--slurm", "time=00:10:00")
    stanza = {"provisioner_name": "hpchub-slurm", "config": {"memroy": "4G"}}
    wrong = spec.changed(metadata={"kernel_provisioner": stanza})
    assert "did you mean 'memory'" in check(wrong).problem


@pytest.mark.slow
def test_a_check_does_not_wait_for_ever(environment: Path, installed: Install) -> None:
    """A module system or image that hangs is said to."""
    spec = installed(environment)
    (spec.folder / "launch").write_text("#!/bin/sh\nexec sleep 60\n")
    assert check(spec, limit_s=0.2).problem == "it was not ready after 0.2 s"


def test_the_last_words_are_the_launchers_own() -> None:
    """With what the module system or the container program said right before."""
    text = "noise\n" * 50 + "ERROR: Unable to locate a modulefile\nhpchub: the module x cannot be loaded\n"
    assert last_words(text).endswith("ERROR: Unable to locate a modulefile; the module x cannot be loaded")
    assert last_words("") == ""
    assert "\x1b" not in last_words("\x1b[31mred\x1b[0m")


_SBATCH = """#!/bin/sh
case " $* " in
    *" --test-only "*) ;;
    *) echo "a job would have been submitted" >&2; exit 2 ;;
esac
case " $* " in
    *" --partition=nope "*) echo "sbatch: error: invalid partition specified: nope
allocation failure: Invalid partition name specified" >&2; exit 1 ;;
    *" --partition=away "*) echo "sbatch: error: Unable to contact slurm controller" >&2; exit 1 ;;
esac
echo "sbatch: Job 2 to start at 2026-11-21T19:51:30 using 1 processors on nodes c1 in partition cpu" >&2
"""


@pytest.mark.parametrize(
    ("partition", "problem"),
    [
        ("nope", "Slurm would refuse its job: Invalid partition name specified"),
        ("cpu", ""),
        ("away", ""),
    ],
)
@pytest.mark.slow
def test_a_job_that_slurm_would_refuse_is_found(
    partition: str,
    problem: str,
    environment: Path,
    installed: Install,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Slurm is asked, and nothing submitted. Where it cannot be asked nothing is said of the job."""
    program = tmp_path / "slurm" / "sbatch"
    program.parent.mkdir()
    program.write_text(_SBATCH)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    stanza = {"provisioner_name": "hpchub-slurm", "config": {"partition": partition}}
    spec = installed(environment)
    assert check(spec.changed(metadata={"kernel_provisioner": stanza})).problem == problem


def test_variables_may_name_others(tmp_path: Path) -> None:
    """A kernel whose program is on a PATH of its own, `/opt/bin:${PATH}`, is not refused."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3.99").write_text('#!/bin/sh\nexec env echo "$LIBS" >"$OUT"\n')
    (tmp_path / "bin" / "python3.99").chmod(0o755)
    body = {
        "argv": ["python3.99"], "language": "python",
        "env": {"PATH": f"{tmp_path}/bin:${{PATH}}", "OUT": f"{tmp_path}/out", "LIBS": "/lib:${LIBS}"},
    }  # fmt: skip
    spec = Kernelspec(name="own", folder=tmp_path, body=body)
    assert check(spec, {"PATH": "/usr/bin:/bin", "LIBS": "/opt"}).is_good
    assert (tmp_path / "out").read_text() == "/lib:/opt\n"
