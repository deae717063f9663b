"""The JupyterHub settings that a site with hpchub needs, so that its own file is a few lines."""

from __future__ import annotations

import functools
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from sqlalchemy import event
from sqlalchemy.engine import Engine
from tornado import netutil

from hpchub.hub.idle import SCOPES
from hpchub.hub.pages import page_templates
from hpchub.local_api.sockets import BACKLOG

_bind_unix_socket = netutil.bind_unix_socket


def configure(
    c: Any,
    *,
    clusters: Path | str,
    bridge_socket: Path | str,
    signer_socket: Path | str = "",
    hub_socket: Path | str,
    proxy_socket: Path | str | None = None,
    proxy_command: Sequence[str] | None = None,
    trusted_proxies: Sequence[str] = (),
    signer_tls: Path | str = "",
    public_url: str = "",
    subdomains: bool = False,
    check_idle_every_s: int = 300,
) -> None:
    """Set up JupyterHub for hpchub. What is set on `c` afterwards wins.

    Says nothing about who may log in: set `c.Authenticator.allow_all` or `allowed_users`.

    Args:
        c: The config object of a `jupyterhub_config.py`.
        clusters: The folder of cluster files.
        bridge_socket: The unix socket of `hpchub bridge`.
        signer_socket: The unix socket of `hpchub signer`, where it is on this machine.
        signer_tls: Else the file with its address, and the certificates for it.
        hub_socket: Where the hub's own API listens; the bridge's `hub_socket` names the same.
        proxy_socket: Where configurable-http-proxy's API listens. None leaves the proxy's API as
            it is (a TCP port of the loopback, unless the site's file says otherwise).
        proxy_command: The command of configurable-http-proxy, where it is not in the PATH.
        trusted_proxies: Addresses or networks of what stands before the hub's proxy, a web server with
            TLS, say: what it tells of browsers' addresses is believed.
        public_url: The hub's address as browsers know it, `https://hub.example.org/`. With `https`, cookies
            are for TLS alone, and browsers are told to come by TLS alone. Empty leaves it to be guessed
            from each request.
        subdomains: Each person's servers on a domain of their own below the one of `public_url`.
        check_idle_every_s: How often the servers are looked at that the cluster files' `idle_time` or
            `max_age` may end.
    """
    c.JupyterHub.authenticator_class = "hpchub"
    c.JupyterHub.spawner_class = "hpchub"
    c.JupyterHub.proxy_class = "hpchub"
    c.HpchubAuthenticator.bridge_socket = str(bridge_socket)
    c.HpchubAuthenticator.signer_socket = str(signer_socket)
    c.HpchubAuthenticator.signer_tls = str(signer_tls)
    c.HpchubAuthenticator.trusted_proxies = list(trusted_proxies)
    c.HpchubSpawner.bridge_socket = str(bridge_socket)
    c.HpchubSpawner.clusters = str(clusters)

    c.JupyterHub.hub_bind_url = _unix_url(hub_socket)
    c.JupyterHub.hub_connect_url = _unix_url(hub_socket)
    c.JupyterHub.hub_socket_mode = 0o600
    _let_a_crowd_wait()
    event.listen(Engine, "connect", _write_ahead)
    if proxy_socket is not None:
        c.ConfigurableHTTPProxy.api_url = _unix_url(proxy_socket)
        c.ConfigurableHTTPProxy.command_umask = 0o077
    if proxy_command is not None:
        c.ConfigurableHTTPProxy.command = list(proxy_command)

    _name_the_hub(c, public_url, subdomains)
    c.JupyterHub.allow_named_servers = True
    # By default JupyterHub refuses the 101st start at once (429). The bridge lets a few through at a
    # time and tells the rest how many are before them.
    c.JupyterHub.concurrent_spawn_limit = 0
    # The bridge keeps servers; a hub that restarts finds them again.
    c.JupyterHub.cleanup_servers = False
    # It looks for a queued one until that is ready; nobody's login should wait for that.
    c.JupyterHub.init_spawners_timeout = 1
    _cull_idle(c, clusters, bridge_socket, check_idle_every_s)
    # A token that nobody remembers ends by itself.
    c.JupyterHub.token_expires_in_max_seconds = 90 * 24 * 3600
    c.JupyterHub.template_paths = [str(page_templates())]
    # What a cluster says must not be able to forge a line. And every link that fills the form would
    # otherwise leave an error with a traceback in the log.
    c.JupyterHub.logging_config = {
        "formatters": {"console": {"class": "hpchub.logs.TextFormatter"}},
        "filters": {"hpchub_links": {"()": "hpchub.hub.form.LinksAreNoErrors"}},
        "handlers": {"console": {"filters": ["hpchub_links"]}},
    }


def _name_the_hub(c: Any, public_url: str, subdomains: bool) -> None:
    """What browsers call the hub, and whether people have domains of their own."""
    if public_url:
        c.JupyterHub.public_url = public_url
    if not subdomains:
        return
    parts = urlsplit(public_url)
    if not parts.netloc:
        raise ValueError("subdomains=True needs public_url=, the address whose subdomains they are")
    c.JupyterHub.subdomain_host = f"{parts.scheme}://{parts.netloc}"
    # A page of alice.hub.example.org could set a cookie for all of hub.example.org; not one of that name.
    c.JupyterHub.cookie_host_prefix_enabled = parts.scheme == "https"


def _cull_idle(c: Any, clusters: Path | str, bridge_socket: Path | str, every_s: int) -> None:
    """A service that stops idle servers. Added to what a site's file has set already."""
    name = "idle-culler"
    command = [sys.executable, "-m", "hpchub.hub.idle_culler", "--every-s", str(every_s)]
    command += ["--clusters", str(clusters), "--bridge-socket", str(bridge_socket)]
    c.JupyterHub.services.append({"name": name, "command": command})
    c.JupyterHub.load_roles.append({"name": name, "services": [name], "scopes": list(SCOPES)})


def _let_a_crowd_wait() -> None:
    """JupyterHub leaves its socket with tornado's backlog of 128, and has no setting for it.

    Beyond that a unix socket refuses at once, and people would see the proxy's 503.
    """
    netutil.bind_unix_socket = functools.partial(_bind_unix_socket, backlog=BACKLOG)


def _write_ahead(connection: object, _record: object) -> None:
    """SQLite's write-ahead log, which is written to the disk now and then.

    JupyterHub commits some thirty times for each start, on its event loop, and nobody is answered while
    the disk writes. A hub that dies loses nothing; a machine that loses its power may lose what JupyterHub
    wrote in the last moments (https://sqlite.org/wal.html). Sites that mind have PostgreSQL.
    """
    if not isinstance(connection, sqlite3.Connection):
        return
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode == "wal":  # some file systems cannot, and then it stays as it was
        connection.execute("PRAGMA synchronous=NORMAL")


def _unix_url(socket: Path | str) -> str:
    return f"http+unix://{quote(str(socket), safe='')}"
