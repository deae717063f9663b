"""What hpchub is compared with: a JupyterHub inside the demo cluster, on login1, as root.

It runs on the cluster's own lab environment, so both sides start the very same JupyterLab.
batchspawner is installed beside it, from the pins in requirements/bench.txt.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import pins
from bench.private_demo import CHECKOUT, Demo
from bench.web import Hub, Place

_LOGIN1 = "10.77.0.11"
_START_LIMIT_S = 60.0
_FOLDER = "/home/.bench"
_LAB = "/opt/hpc/lab"
_SITE_PACKAGES = "lib/python3.11/site-packages"

BATCHSPAWNER = f"""
import batchspawner
c.JupyterHub.spawner_class = "batchspawner.SlurmSpawner"
# Its default is sudo, which the demo does not have.
c.SlurmSpawner.exec_prefix = "runuser -u {{username}} --"
c.SlurmSpawner.batchspawner_singleuser_cmd = "{_FOLDER}/env/bin/python3 -m batchspawner.singleuser"
c.SlurmSpawner.req_partition = "cpu"
c.SlurmSpawner.req_runtime = "01:00:00"
c.SlurmSpawner.req_memory = "1G"
c.SlurmSpawner.req_nprocs = "1"
"""
LOCAL_PROCESS = 'c.JupyterHub.spawner_class = "jupyterhub.spawner.LocalProcessSpawner"\n'

_CONFIG = """
c = get_config()
c.JupyterHub.bind_url = "http://{address}:{port}/"
c.JupyterHub.hub_bind_url = "http://{address}:{hub_port}/"
c.JupyterHub.db_url = "sqlite:///{folder}/hub/{port}.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/hub/cookie_secret"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.ConfigurableHTTPProxy.command = ["node", "{folder}/node_modules/configurable-http-proxy/bin/configurable-http-proxy"]
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.ConfigurableHTTPProxy.pid_file = "{folder}/hub/proxy-{port}.pid"
c.Spawner.cmd = ["{lab}/bin/jupyterhub-singleuser"]
c.JupyterHub.services = [{{"name": "bench", "api_token": "{token}"}}]
c.JupyterHub.load_roles = [
    {{"name": "bench", "services": ["bench"], "scopes": ["admin:users", "admin:servers", "list:services"]}}
]
{spawner}
"""  # noqa: E501  one setting a line


def install() -> Path:
    """batchspawner in a folder of the cache; the rest of what it needs is in the lab environment."""
    return pins.install("bench", without="cluster")


def lay_out(demo: Demo, packages: Path) -> None:
    """Give the hosts an environment on top of lab, and the proxy, in a folder of their /home."""
    folder = demo.homes / ".bench"
    (folder / "hub").mkdir(mode=0o700, parents=True)
    folder.chmod(0o755)
    shutil.copytree(CHECKOUT / "node_modules", folder / "node_modules", symlinks=True)
    demo.run("login1", ["/usr/bin/python3.11", "-m", "venv", "--without-pip", f"{_FOLDER}/env"])
    site = folder / "env" / _SITE_PACKAGES
    shutil.copytree(packages, site, dirs_exist_ok=True)
    (site / "lab.pth").write_text(f"{_LAB}/{_SITE_PACKAGES}\n", encoding="ascii")
    for part in ("share/jupyter", "etc/jupyter"):
        link = folder / "env" / part
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(f"{_LAB}/{part}")
    command = f"chmod -R a+rX {_FOLDER}/env; {_FOLDER}/env/bin/python3 -m compileall -q {_FOLDER}/env/lib"
    demo.run("login1", ["sh", "-c", command])


@contextmanager
def rival_hub(demo: Demo, spawner: str, port: int, user: str) -> Iterator[Hub]:
    """A hub on login1 with this spawner and user, for as long as the block runs."""
    token = secrets.token_hex(32)
    config = demo.homes / ".bench" / "hub" / f"{port}.py"
    config.touch(mode=0o600)
    config.write_text(
        _CONFIG.format(address=_LOGIN1, port=port, hub_port=port + 1, api_port=port + 2, folder=_FOLDER,
                       lab=_LAB, token=token, spawner=spawner),
        encoding="utf-8",
    )  # fmt: skip
    inside = f"{_FOLDER}/hub/{port}.py"
    paths = f"PATH={_FOLDER}/env/bin:{_LAB}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    argv = ["env", f"--chdir={_FOLDER}/hub", paths, "python3", "-m", "jupyterhub", "-f", inside]
    log = demo.folder / "logs" / f"rival-{port}.log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            demo.argv("login1", argv), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    hub = Hub(Place(_LOGIN1, port, demo.host_pid("login1")), token)
    try:
        deadline = time.monotonic() + _START_LIMIT_S
        while not hub.is_up():
            if child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"the rival's hub did not start:\n{log.read_text(encoding='utf-8')[-3000:]}"
                )
            time.sleep(0.1)
        hub.call("POST", f"/users/{user}")
        yield hub
    finally:
        # Its end is the end of what it started: the demo's hosts go with the demo.
        child.kill()
        child.wait()
