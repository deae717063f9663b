"""What a person does with a kernel on a compute node: a real Jupyter server on a login node, by its REST API.

With `behind`, what they do where no port of a node can be reached. Prints what was seen as JSON on the last
line. Runs on the demo cluster, without the tests' own libraries.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import find_connection_file
from jupyter_client.manager import start_new_kernel

TOKEN = secrets.token_hex(16)
LOG = Path("server.log")
LIMIT_S = 60


RUNNING: list[subprocess.Popen[bytes]] = []


class Server:
    """A Jupyter server of our own on a loopback port."""

    def __init__(self) -> None:
        with LOG.open("ab") as log:
            self._process = subprocess.Popen(
                (sys.executable, "-m", "jupyter_server", "--ServerApp.port=0",
                 "--ServerApp.open_browser=False"),
                env={**os.environ, "JUPYTER_TOKEN": TOKEN}, stdout=log, stderr=log,
            )  # fmt: skip
        RUNNING.append(self._process)
        found = until(
            lambda: list(Path(os.environ["JUPYTER_RUNTIME_DIR"]).glob(f"jpserver-{self._process.pid}.json"))
        )
        until(lambda: found[0].read_text().endswith("}"))
        self._url = json.loads(found[0].read_text())["url"]
        until(self._answers)

    def _answers(self) -> bool:
        try:
            self.ask("status")
        except URLError:
            return False
        return True

    def ask(self, path: str, body: dict[str, object] | None = None, method: str | None = None) -> object:
        """Its answer."""
        request = Request(  # noqa: S310  to loopback
            f"{self._url}api/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {TOKEN}"},
            method=method,
        )
        with urlopen(request, timeout=LIMIT_S) as answer:  # noqa: S310  as above
            return json.loads(answer.read() or "null")

    def open_notebook(self) -> BlockingKernelClient:
        """A client of the kernel that is started for a.ipynb, or found again."""
        body = {"path": "a.ipynb", "name": "a.ipynb", "type": "notebook", "kernel": {"name": "node"}}
        self.kernel_id = self.ask("sessions", body)["kernel"]["id"]  # type: ignore[index, call-overload]
        client = BlockingKernelClient(connection_file=find_connection_file(self.kernel_id))
        client.load_connection_file()
        client.start_channels(hb=False)  # which takes a kernel for dead that is silent for a second
        client.wait_for_ready(timeout=LIMIT_S)
        return client

    def end_kernel(self) -> None:
        """As JupyterLab's list of running kernels does."""
        self.ask(f"kernels/{self.kernel_id}", method="DELETE")

    def stop(self, number: int) -> None:
        """By a signal."""
        self._process.send_signal(number)
        self._process.wait(LIMIT_S)


def until(what):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201  whatever it returns that is true
    """Wait for it."""
    deadline = time.monotonic() + LIMIT_S
    while not (found := what()):
        assert time.monotonic() < deadline, f"not in time:\n{LOG.read_text()}"
        time.sleep(0.1)
    return found


def cell(client: BlockingKernelClient, code: str) -> str:
    """What a cell prints, and its error."""
    said: list[str] = []

    def take(message: dict[str, dict[str, str]]) -> None:
        content = message["content"]
        said.append(content.get("text", "") or content.get("evalue", ""))

    client.execute_interactive(code, timeout=LIMIT_S, output_hook=take)
    return "".join(said)


def error_under(client: BlockingKernelClient, cell_id: str) -> str:
    """The next text on stderr under a cell; empty where something else comes, or nothing."""
    try:
        message = client.get_iopub_msg(timeout=1)
    except queue.Empty:
        return ""
    mine = message["parent_header"].get("msg_id") == cell_id and message["content"].get("name") == "stderr"
    return str(message["content"]["text"]) if mine else ""


def main() -> dict[str, object]:
    """From the first kernel to one that takes too much memory."""
    facts: dict[str, object] = {}
    where = "import os, socket; print(socket.gethostname(), os.environ['SLURM_JOB_ID'])"
    server = Server()
    began = time.monotonic()
    client = server.open_notebook()
    facts["first reply, s"] = round(time.monotonic() - began, 2)
    facts["first"] = cell(client, f"x = 42; {where}").split()
    client.stop_channels()
    server.stop(signal.SIGTERM)
    server = Server()
    client = server.open_notebook()
    facts["after a stop"] = cell(client, f"print(x); {where}").split()
    # Bit by bit: one long call would keep the kernel's other threads from saying that the cell began. And
    # slowly: Slurm looks every two seconds, in which this machine's own memory could be used up.
    cell_id = client.execute(
        "import time\nheld = []\nwhile True: held.append(b'x' * 2**20 + b'y'); time.sleep(0.005)"
    )
    facts["told"] = until(lambda: error_under(client, cell_id))
    client.stop_channels()
    until(lambda: server.kernel_id not in str(server.ask("kernels")))
    facts["restarts"] = LOG.read_text().count("restarting kernel")
    client = server.open_notebook()
    facts["anew"] = cell(client, where).split()
    client.stop_channels()
    server.end_kernel()
    server.stop(signal.SIGTERM)
    return facts


def behind() -> dict[str, object]:
    """A kernel that only a step of its job leads to."""
    facts: dict[str, object] = {}
    began = time.monotonic()
    manager, client = start_new_kernel(kernel_name="behind", startup_timeout=LIMIT_S)
    facts["first reply, s"] = round(time.monotonic() - began, 2)
    listen = "import os, socket; open_port = socket.create_server(('', 0)); "
    told = "print(socket.gethostname(), os.environ['SLURM_JOB_ID'], open_port.getsockname()[1])"
    node, facts["job"], port = cell(client, listen + told).split()
    try:
        socket.create_connection((node, int(port)), timeout=0.5).close()
    except TimeoutError:
        facts["ports are closed"] = True
    line = manager.provisioner._line
    line._step._process.kill()
    until(lambda: line.is_lost)
    until(lambda: not line.is_lost)
    cell_id = client.execute("import time; print('on'); time.sleep(600)")
    until(lambda: client.get_iopub_msg(timeout=LIMIT_S)["content"].get("text") == "on\n")
    manager.interrupt_kernel()
    facts["interrupted"] = until(lambda: error_of(client, cell_id))
    manager.restart_kernel()
    client.wait_for_ready(timeout=LIMIT_S)
    facts["job after a restart"] = cell(client, "import os; print(os.environ['SLURM_JOB_ID'])").strip()
    facts["port after a restart"] = cell(client, "print('open_port' in dir())")
    client.stop_channels()
    manager.shutdown_kernel()
    return facts


def error_of(client: BlockingKernelClient, cell_id: str) -> str:
    """The name of the error that a cell ended with, when its reply comes."""
    message = client.get_shell_msg(timeout=LIMIT_S)
    return str(message["content"].get("ename", "")) if message["parent_header"]["msg_id"] == cell_id else ""


if __name__ == "__main__":
    try:
        print(json.dumps(behind() if "behind" in sys.argv else main()))
    finally:
        for process in RUNNING:
            process.kill()
