"""The bridge's settings, from bridge.toml."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from hpchub.core.toml_table import Table, load_table
from hpchub.errors import ConfigError
from hpchub.local_api.accounts import read_group, read_uids
from hpchub.local_api.metrics import LoopbackAddress, read_metrics_listen
from hpchub.local_api.tls import TlsPeer, load_peer
from hpchub.logs import LogFormat
from hpchub.ssh.limits import Limits

# A unix socket's path holds 107 bytes (unix(7)); a server's adds `/s/` and 41 more.
_LONGEST_RUNTIME_DIR = 60

# The keys of [ssh], each with the most that makes sense; `Limits` says what they are.
_SSH = {
    "connect_timeout_s": 120,
    "login_timeout_s": 120,
    "command_timeout_s": 600,
    "keepalive_interval_s": 600,
    "keepalive_tries": 20,
    "node_rest_s": 3600,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeSettings:
    """Where everything is. docs/reference/processes.md says what each key means.

    `signer_socket` is a host with TLS where the file has `signer_tls` in its place. `group` may reach our
    sockets, and the accounts of `hub_uids` may call us, where the hub does not run as our own account.
    """

    runtime_dir: Path
    socket: Path
    signer_socket: Path | TlsPeer
    agent_socket: Path
    hub_socket: Path
    clusters: Path
    database: str = field(repr=False)  # may hold a password
    metrics_listen: LoopbackAddress | None = None
    log_format: LogFormat = LogFormat.TEXT
    limits: Limits = field(default_factory=Limits)
    keep_tunnels: bool = False
    group: int | None = None
    hub_uids: frozenset[int] = frozenset()


def load_settings(path: Path) -> BridgeSettings:
    """Read the settings; relative paths start at the file's folder. ConfigError lists every fault."""

    def read(table: Table) -> BridgeSettings:
        folder = path.parent
        named = table.text("runtime_dir")
        runtime_dir = (folder / named).absolute()
        if named and len(os.fsencode(runtime_dir)) > _LONGEST_RUNTIME_DIR:
            table.fault("runtime_dir", f"is longer than {_LONGEST_RUNTIME_DIR} characters: {runtime_dir}")
        if named and str(runtime_dir) != str(runtime_dir).lower():
            # JupyterHub lower-cases the socket's path in a server's URL.
            table.fault("runtime_dir", f"must be all lower case: {runtime_dir}")
        group, hub_uids = _callers(table.table("callers"))
        settings = BridgeSettings(
            runtime_dir=runtime_dir,
            socket=folder / table.text("socket", str(runtime_dir / "bridge.sock")),
            signer_socket=_signer(table, folder),
            agent_socket=folder / table.text("agent_socket"),
            hub_socket=folder / table.text("hub_socket"),
            clusters=folder / table.text("clusters"),
            database=table.text("database"),
            metrics_listen=read_metrics_listen(table),
            log_format=table.choice("log_format", LogFormat, LogFormat.TEXT),
            limits=_limits(table.table("ssh")),
            keep_tunnels=table.boolean("keep_tunnels", False),
            group=group,
            hub_uids=hub_uids,
        )
        try:
            make_url(settings.database or "sqlite://")
        except ArgumentError:
            table.fault("database", "is not an SQLAlchemy URL, such as sqlite:////var/lib/hpchub/bridge.db")
        table.finish()
        return settings

    return load_table(path, read, f"The bridge's settings in {path} are wrong:")


def _signer(table: Table, folder: Path) -> Path | TlsPeer:
    if not table.has("signer_tls"):
        return folder / table.text("signer_socket")
    if table.has("signer_socket"):
        table.fault("signer_tls", "is there besides signer_socket: which of the two?")
    try:
        return load_peer(folder / table.text("signer_tls"))
    except ConfigError as error:
        table.fault("signer_tls", str(error))
        return folder


def _callers(table: Table) -> tuple[int | None, frozenset[int]]:
    group, hub = read_group(table), read_uids(table, "hub")
    if hub and group is None:
        table.fault("group", "is missing: write the group of those who may reach the sockets")
    table.finish()
    return group, hub


def _limits(table: Table) -> Limits:
    given = {key: table.integer(key, low=1, high=high) for key, high in _SSH.items() if table.has(key)}
    table.finish()
    return Limits(**given)
