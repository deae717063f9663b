"""Take the pictures of the README and the tutorial, as alice of a running demo.

    make demo-up pictures

Writes docs/pictures/: form, progress and home, each also as it is in the dark, and notebook; of the example
notebooks first-day, in the dark, and parameter-sweep; of kernels kernel-cannot-start, kernel-died,
kernel-waits and kernel-resources. Needs Debian's chromium and chromium-driver, and that alice runs no server.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The browser tests' own hands and eyes.
sys.path.insert(0, str(ROOT / "tests"))

from browser.person import Person, chromium  # noqa: E402 - the path comes first
from selenium.webdriver.common.keys import Keys  # noqa: E402

from support.demo import Demo  # noqa: E402
from support.servers import until  # noqa: E402
from support.slurm import job_fields  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
_SIZE = (1280, 960)
_BUSY = ["sbatch", "--parsable", "--nodes=2", "--exclusive", "--chdir=/tmp", "--output=/dev/null"]
_PLOTS = ".jp-RenderedImage"
_LOW = (1280, 620)  # for windows with little in them
_KERNELS = "/opt/hpc/data/bin/hpchub"
# Slowly: Slurm looks every two seconds, and the machine's own memory must not be used up before.
_TOO_MUCH = "import time\nheld = []\nwhile True: held.append(b'x' * 2**20 + b'y'); time.sleep(0.005)"
_SPEC = {"kernelspec": {"name": "node", "display_name": "Python on a node", "language": "python"}}
_AT_REST = "return document.querySelector('.Toastify__toast').getAnimations().length === 0"
_NOTICES = ".jupyter/lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
_NO_NEWS = '{"checkForUpdates": false, "fetchNews": "false"}'
_CELL = "import socket\nprint('Hello from', socket.gethostname())\n!squeue --me"


def fill_form(alice: Person) -> None:
    """The form as alice fills it, in the light and in the dark."""
    alice.login(to="hub/spawn?placement=compute&partition=short&account=chemistry&time=00:30:00")
    alice.find("#hpchub-form")
    alice.choose("CPUs", "2")
    alice.choose("Memory", "2G")
    alice.choose("Environment", "Data analysis")
    alice.driver.execute_script("document.activeElement.blur()")
    save(alice, "form")


@contextmanager
def both_nodes_busy(demo: Demo) -> Iterator[None]:
    """With a job of somebody else's."""
    busy = demo.exec("login1", [*_BUSY, "--wrap=sleep 300"], user="bob", check=True).stdout.strip()
    try:
        until(lambda: job_fields(demo, busy)["JobState"] == "RUNNING", "both nodes are busy")
        yield
    finally:
        demo.exec("ctl", ["scancel", busy], check=True)


def wait_for_jupyterlab(alice: Person) -> None:
    """The progress page, with another job on both nodes for a moment so that there is something to see."""
    with both_nodes_busy(alice.demo):
        alice.start()
        alice.watch(["Pending: waiting"])
    alice.watch(["Starting Jupyter"])
    alice.wait("the badge", lambda: alice.text("#hpchub-servers .badge") == "starting")
    save(alice, "progress")
    alice.find(".jp-LabShell")


def silence_news(alice: Person) -> None:
    """JupyterLab neither asks whether it may fetch its news nor does so: it would stand in a corner."""
    write = ["sh", "-c", f"mkdir -p '{Path(_NOTICES).parent}' && cat >'{_NOTICES}'"]
    alice.demo.exec("login1", write, user=alice.user, stdin=_NO_NEWS, check=True)


def run_notebook(alice: Person) -> None:
    """JupyterLab with a cell that says where it runs."""
    alice.open_notebook()
    alice.run_cell(_CELL)
    alice.wait("a clean window", lambda: not alice.all(".Toastify__toast"))
    shutil.copyfile(alice.picture("notebook"), PICTURES / "notebook.png")


def open_example(alice: Person, name: str) -> None:
    """Open an example notebook, with the window for itself."""
    alice.open(f"user/alice/lab/workspaces/{name}/tree/examples/{name}.ipynb?reset")
    alice.wait("an idle kernel", lambda: "| Idle" in alice.text("#jp-main-statusbar"))
    alice.menu("View", "Appearance", "Show Left Sidebar")


def show(alice: Person, css: str, name: str) -> None:
    """Scroll until an element is near the top, and write what the window shows."""
    alice.driver.execute_script("arguments[0].scrollIntoView({block: 'start'})", alice.find(css))
    shutil.copyfile(alice.picture(name), PICTURES / f"{name}.png")


def run_examples(alice: Person) -> None:
    """The sweep's plot; then the first day's card while its job runs, in the dark."""
    open_example(alice, "parameter-sweep")
    alice.menu("Run", "Run All Cells")
    alice.wait("the last plot", lambda: len(alice.all(_PLOTS)) == 3)
    show(alice, f".jp-Cell:has({_PLOTS}) ~ .jp-Cell:has({_PLOTS})", "parameter-sweep")
    alice.dark_jupyterlab()
    open_example(alice, "first-day")
    next(cell for cell in alice.all(".jp-CodeCell .cm-content") if cell.text == "job").click()
    alice.menu("Run", "Run All Above Selected Cell")
    alice.chord(Keys.SHIFT, Keys.ENTER)
    alice.wait("the job's output", lambda: "Hello" in alice.text(".slurm-magics-card"))
    for _ in range(5):  # down to the plot of the queue
        alice.chord(Keys.SHIFT, Keys.ENTER)
    alice.wait("the plot", lambda: len(alice.all(_PLOTS)) == 2)
    show(alice, ".jp-Cell:has(.slurm-magics-card)", "first-day")
    alice.menu("Settings", "Theme", "JupyterLab Light")


def install_kernels(alice: Person) -> None:
    """Two kernels of alice's: one whose environment lacks ipykernel, one in a job with little memory."""

    def run(*argv: str) -> None:
        alice.demo.exec("login1", argv, user=alice.user, check=True)

    run("/usr/bin/python3.11", "-m", "venv", "--without-pip", "envs/torch")
    run(_KERNELS, "kernels", "install", "envs/torch", "--title", "PyTorch", "--no-check", "--replace")
    run(
        _KERNELS, "kernels", "install", "virtualenv", "--prefix", "/opt/hpc/data", "--replace",
        "--name", "node", "--title", "Python on a node", "--slurm", "time=00:10:00", "--slurm", "memory=500M",
    )  # fmt: skip


def choose_kernel(alice: Person, title: str) -> None:
    """An empty notebook with this kernel, from the launcher."""
    alice.open(f"user/{alice.user}/lab?reset")
    alice.menu("View", "Appearance", "Show Left Sidebar")
    alice.find(f".jp-LauncherCard[data-category=Notebook][title='{title}']").click()


def show_kernels(alice: Person) -> None:
    """The dialog for a kernel that cannot start; the words under a cell that took too much memory."""
    install_kernels(alice)
    alice.resize(_LOW)
    try:
        choose_kernel(alice, "PyTorch")
        alice.wait("the reason", lambda: "ipykernel is missing" in alice.text(".jp-Dialog"))
        shutil.copyfile(alice.picture("kernel-cannot-start"), PICTURES / "kernel-cannot-start.png")
        alice.keys(Keys.ENTER)
        choose_kernel(alice, "Python on a node")
        alice.wait("an idle kernel", lambda: "| Idle" in alice.text("#jp-main-statusbar"))
        alice.find(".jp-Notebook .cm-content").send_keys(_TOO_MUCH)
        alice.chord(Keys.SHIFT, Keys.ENTER)
        alice.wait("the reason", lambda: "is over" in alice.text(".jp-OutputArea-output"))
        alice.wait("its end", lambda: alice.text(".jp-Toolbar-kernelName") == "No Kernel")
        shutil.copyfile(alice.picture("kernel-died"), PICTURES / "kernel-died.png")
        show_waiting_kernel(alice)
    finally:
        alice.resize(_SIZE)
        remove = [_KERNELS, "kernels", "remove", "torch", "node"]
        alice.demo.exec("login1", remove, user=alice.user, check=True)


def show_waiting_kernel(alice: Person) -> None:
    """The notification about a kernel whose job waits; the form for its resources with Slurm's refusal."""
    text = json.dumps({"cells": [], "metadata": _SPEC, "nbformat": 4, "nbformat_minor": 5})
    alice.demo.exec("login1", ["tee", "train.ipynb"], user=alice.user, stdin=text, check=True)
    with both_nodes_busy(alice.demo):
        alice.open(f"user/{alice.user}/lab/tree/train.ipynb?reset")
        alice.find(".jp-Notebook")
        alice.wait("the reason", lambda: "waiting for resources" in alice.text(".Toastify"))
        alice.wait("a notification at rest", lambda: alice.driver.execute_script(_AT_REST))
        shutil.copyfile(alice.picture("kernel-waits"), PICTURES / "kernel-waits.png")
    alice.wait("an idle kernel", lambda: "| Idle" in alice.text("#jp-main-statusbar"))
    alice.menu("Kernel", "Resources of the Kernel's Job…")
    for field, value in (("cpus", "8"), ("memory", "64G")):
        alice.find(f"#hpchub-resources-{field}").clear()
        alice.find(f"#hpchub-resources-{field}").send_keys(value)
    alice.keys(Keys.ENTER)
    alice.wait("Slurm's words", lambda: alice.all(".hpchub-refused"))
    shutil.copyfile(alice.picture("kernel-resources"), PICTURES / "kernel-resources.png")
    alice.keys(Keys.ESCAPE)
    alice.menu("Kernel", "Shut Down Kernel")
    alice.wait("its end", lambda: alice.text(".jp-Toolbar-kernelName") == "No Kernel")


def show_home(alice: Person) -> None:
    """The home page, with the server that runs."""
    alice.open_home()
    alice.wait("the time left", lambda: "Time left" in alice.text("#hpchub-servers"))
    save(alice, "home")


def save(alice: Person, name: str) -> None:
    """Write a page of the hub, in the dark and in the light."""
    for theme, file in (("dark", f"{name}-dark.png"), ("light", f"{name}.png")):
        alice.theme(theme)
        shutil.copyfile(alice.picture(name), PICTURES / file)


def main() -> None:
    """Take them all, and leave alice without a server."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dir", type=Path, default=ROOT / ".demo", help="the demo's folder (default: .demo)")
    demo = Demo.load(parser.parse_args().dir.resolve())
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium(_SIZE) as driver:
        alice = Person(demo, driver, "alice", Path(folder))
        silence_news(alice)
        fill_form(alice)
        wait_for_jupyterlab(alice)
        run_notebook(alice)
        run_examples(alice)
        show_kernels(alice)
        show_home(alice)
        alice.stop_from_home()


if __name__ == "__main__":
    main()
