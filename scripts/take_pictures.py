"""Take the pictures of the README and the tutorial, as alice of a running demo.

    make demo-up
    .venv/bin/python scripts/take_pictures.py [--dir .demo]

Writes docs/pictures/: form.png, form-dark.png, progress.png and notebook.png. Needs Debian's chromium
and chromium-driver, and that alice runs no server.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The browser tests' own hands and eyes.
sys.path.insert(0, str(ROOT / "tests"))

from browser.person import Person, chromium  # noqa: E402 - the path comes first

from support.demo import Demo  # noqa: E402
from support.servers import until  # noqa: E402
from support.slurm import job_fields  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
_SIZE = (1280, 920)
_BUSY = ["sbatch", "--parsable", "--nodes=2", "--exclusive", "--chdir=/tmp", "--output=/dev/null"]
_CELL = "import socket\nprint('Hello from', socket.gethostname())\n!squeue --me"


def fill_form(alice: Person) -> None:
    """The form as alice fills it, in the light and in the dark."""
    alice.login(to="hub/spawn?placement=compute&partition=short&account=chemistry&time=00:30:00")
    alice.find("#hpchub-form")
    alice.choose("CPUs", "2")
    alice.choose("Memory", "2G")
    alice.choose("Environment", "Data analysis")
    alice.driver.execute_script("document.activeElement.blur()")
    save(alice, "form-dark", "dark")
    save(alice, "form", "light")


def wait_for_jupyterlab(alice: Person) -> None:
    """The progress page, with another job on both nodes for a moment so that there is something to see."""
    busy = alice.demo.exec("login1", [*_BUSY, "--wrap=sleep 300"], user="bob", check=True).stdout.strip()
    try:
        until(lambda: job_fields(alice.demo, busy)["JobState"] == "RUNNING", "both nodes are busy")
        alice.start()
        alice.watch(["Pending: waiting"])
    finally:
        alice.demo.exec("ctl", ["scancel", busy], check=True)
    alice.watch(["Starting Jupyter"])
    save(alice, "progress", "light")
    alice.find(".jp-LabShell")


def run_notebook(alice: Person) -> None:
    """JupyterLab with a cell that says where it runs."""
    alice.open_notebook()
    alice.run_cell(_CELL)
    for button in alice.all(".Toastify__close-button, .jp-toast-button"):
        if button.text in {"", "No"}:
            button.click()
            break
    alice.wait("a clean window", lambda: not alice.all(".Toastify__toast"))
    save(alice, "notebook")


def save(alice: Person, name: str, theme: str = "") -> None:
    """Write one picture of the window."""
    if theme:
        alice.theme(theme)
    shutil.copyfile(alice.picture(name), PICTURES / f"{name}.png")


def main() -> None:
    """Take them all, and leave alice without a server."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dir", type=Path, default=ROOT / ".demo", help="the demo's folder (default: .demo)")
    demo = Demo.load(parser.parse_args().dir.resolve())
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium(_SIZE) as driver:
        alice = Person(demo, driver, "alice", Path(folder))
        fill_form(alice)
        wait_for_jupyterlab(alice)
        run_notebook(alice)
        alice.stop_from_home()


if __name__ == "__main__":
    main()
