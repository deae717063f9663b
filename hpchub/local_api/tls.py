"""TLS with certificates on both sides, for a process on a host of its own.

Each side trusts one authority, named in its settings, and no other: neither the system's nor a browser's.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpchub.core.toml_table import Table, load_table
from hpchub.errors import ConfigError
from hpchub.private_files import check_private_file

_ADDRESS = re.compile(r"(?P<host>\[[0-9a-f:]+\]|[A-Za-z0-9.-]+):(?P<port>[1-9][0-9]{0,4})", re.ASCII)
_HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsListen:
    """Where to listen, as whom, and whose certificates callers must have."""

    host: str
    port: int
    certificate: Path
    key: Path
    client_ca: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsPeer:
    """Whom to call, as whom, and whose certificate the other side must have, for that host's name."""

    host: str
    port: int
    certificate: Path
    key: Path
    ca: Path

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def read_listen(table: Table, folder: Path) -> TlsListen:
    """`listen`, `certificate`, `key` and `client_ca`; the caller finishes the table."""
    host, port = _read_address(table, "listen")
    return TlsListen(
        host=host,
        port=port,
        certificate=folder / table.text("certificate"),
        key=folder / table.text("key"),
        client_ca=folder / table.text("client_ca"),
    )


def load_peer(path: Path) -> TlsPeer:
    """A file with `address`, `certificate`, `key` and `ca`. ConfigError lists every fault in it."""

    def read(table: Table) -> TlsPeer:
        folder = path.absolute().parent
        host, port = _read_address(table, "address")
        peer = TlsPeer(
            host=host,
            port=port,
            certificate=folder / table.text("certificate"),
            key=folder / table.text("key"),
            ca=folder / table.text("ca"),
        )
        table.finish()
        return peer

    return load_table(path, read, f"The settings {path.name} are wrong:")


def server_context(listen: TlsListen) -> ssl.SSLContext:
    """Refuses whoever has no certificate of the authority, or one that has expired.

    Raises:
        ConfigError: A file is missing, loose, or does not fit the others.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    _load(context, listen.certificate, listen.key, listen.client_ca)
    return context


def client_context(peer: TlsPeer) -> ssl.SSLContext:
    """Refuses a host whose certificate is not for its name, of another authority, or has expired.

    Raises:
        ConfigError: A file is missing, loose, or does not fit the others.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which checks the name and the chain
    _load(context, peer.certificate, peer.key, peer.ca)
    return context


def peer_names(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """The DNS names in a certificate that was verified, as `SSLSocket.getpeercert` has it."""
    names = (certificate or {}).get("subjectAltName", ())
    return frozenset(value.lower() for kind, value in names if kind == "DNS")


def _load(context: ssl.SSLContext, certificate: Path, key: Path, authority: Path) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    check_private_file(key)
    try:
        # A password would be asked for at the terminal, and there is none.
        context.load_cert_chain(certificate, key, password=lambda: b"")
        context.load_verify_locations(cafile=authority)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(
            f"TLS cannot be set up with {certificate}, {key} and {authority}: {error}."
        ) from error


def _read_address(table: Table, key: str) -> tuple[str, int]:
    text = table.text(key)
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > _HIGHEST_PORT:
        if text:
            table.fault(key, f'{text!r} is not a host and a port, such as "signer.example.org:8443"')
        return "", 0
    return match["host"].strip("[]"), int(match["port"])
