"""What the bridge must send to a launcher. Pure."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlsplit

from hpchub.errors import ConfigError
from hpchub.remote.launcher import EXTENSION, HUB, NOTEBOOK

# Those that JupyterHub fills with the hub's own addresses, unreachable from the cluster.
_REPLACED = ("JUPYTERHUB_API_URL", "JUPYTERHUB_ACTIVITY_URL", "JUPYTERHUB_SERVICE_URL")

# Paths on the hub's machine: the sockets need no TLS of their own.
_DROPPED = ("JUPYTERHUB_SSL_KEYFILE", "JUPYTERHUB_SSL_CERTFILE", "JUPYTERHUB_SSL_CLIENT_CA", "PATH")


def launcher_source() -> bytes:
    """The file to upload as `launcher.py`."""
    return _source("launcher.py")


def extension_source() -> bytes:
    """The JupyterLab extension to upload beside it as `time_left.js`."""
    return _source(EXTENSION)


def end_line(ends_at: float, warn_before_s: Sequence[int], successor: bool) -> bytes:
    """Tells a launcher when its job's time is up (Unix seconds), newline included.

    Args:
        ends_at: Unix seconds.
        warn_before_s: How many seconds before that the person is warned.
        successor: Whether the warning offers to start another server.
    """
    body = {"ends_at": ends_at, "warn_before_s": list(warn_before_s), "successor": successor}
    return json.dumps(body).encode() + b"\n"


def notebook_environ(environ: Mapping[str, str], *, runtime_dir: str) -> dict[str, str]:
    """The server's environment: the spawner's, its hub reached through `runtime_dir`/hub.sock.

    Args:
        environ: What JupyterHub's `Spawner.get_env()` made.
        runtime_dir: The launcher's folder on the node, `RUNTIME_DIR/hpchub-ID`.

    Raises:
        ConfigError: The folder's path has a capital: JupyterHub's HTTP client writes host names,
            and so the path in an `http+unix` URL, in lower case.
    """
    if runtime_dir != runtime_dir.lower():
        raise ConfigError(
            f"The runtime_dir {runtime_dir!r} has capital letters.",
            "JupyterHub's client writes socket paths in lower case: choose a path without capitals.",
        )
    hub = "http+unix://" + quote(f"{runtime_dir}/{HUB}", safe="")
    result = {key: value for key, value in environ.items() if key not in _DROPPED}
    for name in _REPLACED[:2]:
        if name in environ:
            result[name] = hub + _path(environ[name])
    # Jupyter writes the token into its runtime folder, by default in the home, which many nodes share.
    result["JUPYTER_RUNTIME_DIR"] = f"{runtime_dir}/jupyter"
    result["JUPYTERHUB_SERVICE_URL"] = "http+unix://" + quote(f"{runtime_dir}/{NOTEBOOK}", safe="")
    return result


def notebook_argv(*, runtime_dir: str) -> list[str]:
    """The argv of the single-user server, listening on `runtime_dir`/notebook.sock only.

    The port is said because Jupyter refuses a socket beside any port but 8888, and a person's own
    configuration file may name another.
    """
    return [
        "jupyterhub-singleuser",
        f"--ServerApp.sock={runtime_dir}/{NOTEBOOK}",
        "--ServerApp.sock_mode=0600",
        "--ServerApp.port=8888",
        # Kernels talk over sockets in the runtime folder too: a TCP port could be reached by anybody
        # on the node.
        "--KernelManager.transport=ipc",
    ]


def handover_line(
    hub_socket: str, environ: Mapping[str, str] | None = None, argv: Sequence[str] | None = None
) -> bytes:
    """One handover, newline included; the first carries `environ` and `argv`. Holds the token."""
    body: dict[str, object] = {"hub_socket": hub_socket}
    if environ is not None and argv is not None:
        body |= {"environ": dict(environ), "argv": list(argv)}
    return json.dumps(body).encode() + b"\n"


def _source(name: str) -> bytes:
    return importlib.resources.files("hpchub.remote").joinpath(name).read_bytes()


def _path(url: str) -> str:
    return urlsplit(url).path
