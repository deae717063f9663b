"""The launcher: a real module system, real environments, stand-ins for container programs."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hpchub.paths import kernels_dir

LAUNCH = kernels_dir() / "launch"


def launched(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """What the launcher does with some words."""
    return subprocess.run(
        (LAUNCH, *words), capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL
    )


def test_a_prefix_comes_first_and_is_told_to_programs(environment: Path) -> None:
    """The kernel's own python3, PATH and VIRTUAL_ENV; PYTHONHOME of the server's is gone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONHOME", "/nowhere")
        done = launched(
            "--prefix", environment, "--", "python3", "-c",
            "import os, shutil, sys; print(sys.prefix); print(os.environ['VIRTUAL_ENV']); "
            "print(shutil.which('python3'))",
        )  # fmt: skip
    assert done.stdout.splitlines() == [str(environment), str(environment), f"{environment}/bin/python3"]


def test_a_conda_environment_is_activated(environment: Path) -> None:
    """CONDA_PREFIX, and the hooks that packages have put there."""
    (environment / "conda-meta").mkdir()
    hooks = environment / "etc" / "conda" / "activate.d"
    hooks.mkdir(parents=True)
    (hooks / "lib.sh").write_text("export FROM_HOOK=$CONDA_PREFIX\n")
    done = launched(
        "--prefix", environment, "--", "python3", "-c", "import os; print(os.environ['FROM_HOOK'])"
    )
    assert done.stdout == f"{environment}\n"


@pytest.mark.usefixtures("modules")
def test_modules_are_loaded(environment: Path) -> None:
    """With the machine's own module system: what a module puts on PATH is what runs."""
    code = "import os, sys; print(os.environ['FROM_MODULE'], sys.prefix)"
    done = launched("--module", "py/1", "--", "python3", "-c", code)
    assert done.stdout == f"yes {environment}\n", done.stderr


@pytest.mark.usefixtures("modules")
def test_a_module_that_no_longer_loads_is_named() -> None:
    """The module system's words, ours, and exit code 3; the kernel is not started without it."""
    done = launched("--module", "py/9", "--", "echo", "started")
    assert (done.returncode, done.stdout) == (3, "")
    assert "hpchub: the module py/9 cannot be loaded on " in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--prefix", "/nowhere", "--", "python3"), "the environment /nowhere is not there on"),
        (("--prefix", "/usr", "--", "nothing"), "the environment /usr has no nothing"),
        (("--", "hpchub-no-such-program"), "there is no hpchub-no-such-program on"),
        (("--container", "apptainer", "--image", "/no.sif", "--", "x"), "the image /no.sif is not there"),
        (
            ("--container", "docker", "--image", "x", "--", "x"),
            "launch does not know the container program docker",
        ),
        (("--frobnicate", "--", "x"), "launch does not know --frobnicate"),
        (("--prefix", "/usr", "--"), "launch was given no command"),
        (("--prefix", "/usr", "--module"), "launch was given --module without a value"),
    ],
)
@pytest.mark.usefixtures("containers")
def test_what_is_missing_is_said(words: tuple[str, ...], said: str) -> None:
    """One line that begins with `hpchub:`, exit code 3."""
    done = launched(*words)
    assert done.returncode == 3
    assert f"hpchub: {said}" in done.stderr


@pytest.mark.parametrize("container", ["apptainer", "podman-hpc", "shifter"])
def test_an_image_sees_the_connection_file(
    container: str, tmp_path: Path, containers: Callable[[], list[str]]
) -> None:
    """The file's folder, which may hold the kernel's sockets, and what else is to be bound."""
    folder = Path("/run/user/runtime")  # not in the home or /tmp, which shifter shows anyway
    done = launched(
        "--container", container, "--image", "image.sif", "--bind", "/data:/data",
        "--connection-file", folder / "kernel-1.json", "--", "echo", "in the image",
    )  # fmt: skip
    assert done.stdout == "in the image\n", done.stderr
    option = "--bind" if container == "apptainer" else "--volume"
    shown = [word for word in containers() if word.startswith(f"{option}=")]
    assert f"{option}=/data:/data" in shown
    assert any(word.split("=")[1].split(":")[0] == str(folder) for word in shown)


@pytest.mark.parametrize(
    ("container", "bind", "shown"),
    [
        ("apptainer", "/data,/scratch:/s", "--bind=/data,/scratch:/s"),
        ("podman-hpc", "/data", "--volume=/data:/data"),
        ("podman-hpc", "/data:/d:ro", "--volume=/data:/d:ro"),
        ("shifter", "/data", "--volume=/data:/data"),
    ],
)
def test_a_path_alone_is_shown_under_its_own_name(
    container: str, bind: str, shown: str, containers: Callable[[], list[str]]
) -> None:
    """podman takes a path alone for a new and empty volume; apptainer's notation is apptainer's."""
    launched("--container", container, "--image", "image.sif", "--bind", bind, "--", "true")
    assert shown in containers()


def test_the_folder_of_the_notebook_is_shown(
    tmp_path: Path, home: Path, containers: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """podman ends at once where it is not in the image: a notebook in /scratch had no kernel. Not twice."""
    words = ("--container", "podman-hpc", "--image", "image.sif")
    for folder, bind, shown in (
        (tmp_path, "/d:/d", [f"{tmp_path}:{tmp_path}"]),
        (tmp_path, f"{tmp_path}:{tmp_path}:ro", []),
        (home, "/d:/d", []),
        (Path("/"), "/d:/d", []),
    ):
        monkeypatch.chdir(folder)
        launched(*words, "--bind", bind, "--", "true")
        volumes = [word.removeprefix("--volume=") for word in containers() if word.startswith("--volume=")]
        assert volumes == [bind, *shown]


@pytest.fixture
def server(home: Path, containers: Callable[[], list[str]]) -> Iterator[Callable[[str], tuple[int, int]]]:
    """A function that starts a process, which starts a kernel in a container; the numbers of both."""
    started: list[int] = []

    def start(container: str) -> tuple[int, int]:
        words = (str(LAUNCH), "--container", container, "--image", "image.sif", "--", "sleep", "60")
        shell = 'export JPY_PARENT_PID=$$; setsid "$@" & wait'
        server = subprocess.Popen(("bash", "-c", shell, "-", *words), start_new_session=True)
        wait_for(lambda: (home / "called").exists() and containers()[-1:] == ["60"])
        started.append(server.pid)
        started.append(int(Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()))
        threading.Thread(target=server.wait, daemon=True).start()
        return server.pid, started[1]

    yield start
    for group in started:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["server", "kernel"])
def test_a_container_ends_with_what_is_killed(
    who: str, server: Callable[[str], tuple[int, int]], home: Path, containers: Callable[[], list[str]]
) -> None:
    """It is no child of podman-hpc, which can pass nothing on when it is killed."""
    number, kernel = server("podman-hpc")
    name = next(word.removeprefix("--name=") for word in containers() if word.startswith("--name="))
    os.killpg(number if who == "server" else kernel, signal.SIGKILL)
    removed = home / "removed"
    wait_for(lambda: removed.exists() and removed.read_text().endswith("\n"))
    assert removed.read_text() == f"{name}\n"


@pytest.mark.slow
def test_a_kernel_in_apptainer_ends_with_its_server(server: Callable[[str], tuple[int, int]]) -> None:
    """Its parent is apptainer, so it never sees that the server has died."""
    number, kernel = server("apptainer")
    os.killpg(number, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{kernel}/exe").exists())


def wait_for(condition: Callable[[], object], limit_s: float = 30) -> None:
    """Returns once it holds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


@pytest.mark.usefixtures("containers")
def test_an_image_that_is_gone_is_not_looked_for_elsewhere(containers: Callable[[], list[str]]) -> None:
    """podman-hpc would otherwise ask registries for it while somebody waits."""
    launched("--container", "podman-hpc", "--image", "image.sif", "--", "true")
    assert "--pull=never" in containers()


@pytest.mark.parametrize("words", [("--module",), ("--prefix",), (), ("--",)])
def test_what_is_not_whole_is_refused(words: tuple[str, ...]) -> None:
    """An option without its value, or no command; it once went round for ever."""
    done = launched(*words)
    assert done.returncode == 3
    assert done.stderr.startswith("hpchub: launch was given ")
