"""Reads `signer.toml` strictly: every fault is named, and an unknown key names the nearest valid one."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hpchub.core.slugs import is_safe_account_name
from hpchub.core.toml_table import Table, load_table
from hpchub.core.units import parse_time, render_time
from hpchub.local_api.metrics import LoopbackAddress, read_metrics_listen
from hpchub.logs import LogFormat
from hpchub.signer.policy import Policy

_LIFETIME_S = (5 * 60, 15 * 60)
_CEILING_S = (15 * 60, 7 * 24 * 3600)
_ADDRESS = re.compile(r"[0-9A-Fa-f.:]+(?:/[0-9]{1,3})?", re.ASCII)
_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


class ProofKind(StrEnum):
    """How people prove who they are."""

    PASSWORD_FILE = "password-file"  # noqa: S105  the name of a method
    PAM = "pam"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofSettings:
    """`file` belongs to `password-file`, `service` to `pam`."""

    kind: ProofKind
    file: Path | None = None
    service: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerSettings:
    """One `signer.toml`, checked. Relative paths count from the file's own folder."""

    socket: Path
    state_dir: Path
    audit_log: Path
    policy: Policy
    proof: ProofSettings
    metrics_listen: LoopbackAddress | None = None
    log_format: LogFormat = LogFormat.TEXT
    audit_rotate_mb: int = 0
    audit_syslog: Path | None = None
    krl_file: Path | None = None


def load_settings(path: Path) -> SignerSettings:
    """The settings in a file. ConfigError lists every fault in it."""
    folder = path.absolute().parent
    return load_table(path, lambda top: _read(top, folder), f"The signer's settings {path.name} are wrong:")


def _read(top: Table, folder: Path) -> SignerSettings | None:
    socket = folder / top.text("socket")
    state_dir = folder / top.text("state_dir")
    audit_log = folder / top.text("audit_log")
    lifetime_s = top.amount("certificate_lifetime", _time_within(*_LIFETIME_S), 10 * 60)
    ceiling_s = top.amount("login_ceiling", _time_within(*_CEILING_S), 12 * 3600)
    sources = _read_sources(top)
    metrics_listen = read_metrics_listen(top)
    log_format = top.choice("log_format", LogFormat, LogFormat.TEXT)
    query_accounts = _read_query_accounts(top)
    audit_rotate_mb = top.integer("audit_rotate_mb", 0, low=0, high=100_000)
    audit_syslog = folder / top.text("audit_syslog") if top.has("audit_syslog") else None
    krl_file = folder / top.text("krl_file") if top.has("krl_file") else None
    if not top.has("proof"):
        top.fault("proof", "is missing: write [proof] with kind")
        top.finish()
        return None
    proof = _read_proof(top.table("proof"), folder)
    top.finish()
    if not sources or not lifetime_s or not ceiling_s:
        return None
    return SignerSettings(
        socket=socket,
        state_dir=state_dir,
        audit_log=audit_log,
        policy=Policy(
            certificate_lifetime_s=lifetime_s,
            login_ceiling_s=ceiling_s,
            source_addresses=sources,
            query_accounts=query_accounts,
        ),
        proof=proof,
        metrics_listen=metrics_listen,
        log_format=log_format,
        audit_rotate_mb=audit_rotate_mb,
        audit_syslog=audit_syslog,
        krl_file=krl_file,
    )


def _read_sources(top: Table) -> tuple[str, ...]:
    """Networks in the form sshd wants; not empty, and none that is everywhere."""
    if not top.has("source_addresses"):
        top.fault("source_addresses", "is missing: write the bridge's own addresses")
        return ()
    texts = top.texts("source_addresses", _ADDRESS)
    networks = []
    for text in texts:
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            top.fault("source_addresses", str(error))
            continue
        if not network.prefixlen:
            top.fault("source_addresses", f"{text} is every address there is")
        networks.append(str(network))
    if not texts:
        top.fault("source_addresses", "is empty: a certificate could then be used from anywhere")
    return tuple(networks)


def _read_query_accounts(top: Table) -> tuple[str, ...]:
    """Service accounts; never root or another that runs the machine."""
    named = top.texts("query_accounts", re.compile(".*", re.DOTALL))
    for name in named:
        if not is_safe_account_name(name):
            top.fault("query_accounts", f"{name!r} is no account that may have a certificate")
    return tuple(name for name in named if is_safe_account_name(name))


def _read_proof(table: Table, folder: Path) -> ProofSettings:
    kind = table.choice("kind", ProofKind)
    if kind is ProofKind.PASSWORD_FILE:
        proof = ProofSettings(kind=kind, file=folder / table.text("file"))
    else:
        proof = ProofSettings(kind=kind, service=table.text("service", pattern=_SERVICE))
    table.finish()
    return proof


def _time_within(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        seconds = parse_time(text)
        if not low <= seconds <= high:
            raise ValueError(f"{text} is not from {render_time(low)} to {render_time(high)}")
        return seconds

    return parse
