"""One kernel on node c1, from asking for it to its first reply, on a login node: kernel_once.py ours|srun.

Prints what it took as JSON on the last line.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

NODE, LIMIT_S, TRIPS = "c1", 60, 50
ARGV = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
# As large as each other, and on the same node.
ASKED = ("--time=00:05:00", "--mem=500M", f"--nodelist={NODE}")


@contextmanager
def ours() -> Iterator[BlockingKernelClient]:
    """Through hpchub-slurm."""
    folder = Path(os.environ["JUPYTER_DATA_DIR"], "kernels", "node")
    folder.mkdir(parents=True, exist_ok=True)
    config = {"time": "00:05:00", "memory": "500M", "options": [f"--nodelist={NODE}"]}
    metadata = {"kernel_provisioner": {"provisioner_name": "hpchub-slurm", "config": config}}
    body = {"argv": ARGV, "display_name": "node", "language": "python", "metadata": metadata}
    (folder / "kernel.json").write_text(json.dumps(body))
    manager = KernelManager(kernel_name="node")
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    yield client
    client.stop_channels()
    manager.shutdown_kernel()


@contextmanager
def srun() -> Iterator[BlockingKernelClient]:
    """By hand: a connection file with ports that are hoped to be free, and srun."""
    ports = {
        f"{name}_port": 40000 + secrets.randbelow(20000)
        for name in ("shell", "iopub", "stdin", "control", "hb")
    }
    info = {
        "transport": "tcp",
        "ip": _address(),
        "key": secrets.token_hex(16),
        "signature_scheme": "hmac-sha256",
    }
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder:
        path = Path(folder, "connection.json")
        path.write_text(json.dumps({**info, **ports}))
        argv = [word.replace("{connection_file}", str(path)) for word in ARGV]
        running = subprocess.Popen(("srun", "--quiet", *ASKED, *argv), stderr=subprocess.DEVNULL)
        client = BlockingKernelClient(connection_file=str(path))
        client.load_connection_file()
        client.start_channels()
        yield client
        client.shutdown()
        running.wait(LIMIT_S)
        client.stop_channels()


def _address() -> str:
    """The node's address, as the cluster's own names have it."""
    done = subprocess.run(("getent", "hosts", NODE), capture_output=True, text=True, check=True)
    return done.stdout.split()[0]


def main() -> dict[str, float]:
    """Seconds to the first reply, and milliseconds of a round trip."""
    began = time.monotonic()
    with {"ours": ours, "srun": srun}[sys.argv[1]]() as client:
        client.wait_for_ready(timeout=LIMIT_S)
        client.execute_interactive("x = 1", timeout=LIMIT_S)
        first = time.monotonic() - began
        trips = time.monotonic()
        for _ in range(TRIPS):
            client.execute_interactive("x = 1", timeout=LIMIT_S)
        trip_ms = 1000 * (time.monotonic() - trips) / TRIPS
    return {"first reply, s": first, "round trip, ms": trip_ms}


if __name__ == "__main__":
    print(json.dumps(main()))
