"""`[ca]` of `signer.toml`: who signs, and which keys the clusters trust."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hpchub.core.toml_table import Table
from hpchub.errors import InvalidRequest
from hpchub.signer.agent_issuer import AgentIssuer
from hpchub.signer.ca_keys import load_ca_key, other_keys
from hpchub.signer.certificates import parse_public_key
from hpchub.signer.issuer import Issuer, KeyIssuer
from hpchub.signer.step_issuer import StepIssuer, StepSettings
from hpchub.signer.vault_issuer import VaultIssuer, VaultSettings

_URL = re.compile(
    r"https://[A-Za-z0-9.-]+(?::[0-9]{1,5})?/?|https://\[[0-9A-Fa-f:]+\](?::[0-9]{1,5})?/?", re.ASCII
)
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._-]{0,127}", re.ASCII)


class CaKind(StrEnum):
    """Where the private key is."""

    FILE = "file"
    AGENT = "agent"
    VAULT = "vault"
    STEP_CA = "step-ca"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaSettings:
    """`public_key` is the line that the clusters trust, of every kind but `file`, which knows its own.

    `also_trusted` are further ones, while sites go from one authority to another.
    """

    kind: CaKind = CaKind.FILE
    public_key: str = ""
    agent_socket: Path | None = None
    vault: VaultSettings | None = None
    step: StepSettings | None = None
    also_trusted: tuple[str, ...] = ()


def read_ca(table: Table, folder: Path) -> CaSettings:
    """The table's settings; relative paths count from `folder`."""
    kind = table.choice("kind", CaKind, CaKind.FILE)
    settings = CaSettings(
        kind=kind,
        public_key=_line(table, "public_key", table.text("public_key")) if kind is not CaKind.FILE else "",
        agent_socket=folder / table.text("agent_socket") if kind is CaKind.AGENT else None,
        vault=_read_vault(table, folder) if kind is CaKind.VAULT else None,
        step=_read_step(table, folder) if kind is CaKind.STEP_CA else None,
        also_trusted=tuple(
            _line(table, "also_trusted", text)
            for text in table.texts("also_trusted", re.compile(r"[ -~]{1,8192}"))
        ),
    )
    table.finish()
    return settings


def make_issuer(settings: CaSettings, state_dir: Path) -> Issuer:
    """The authority that the settings name, whether it answers or not. ConfigError where a file is wrong."""
    if settings.agent_socket is not None:
        return AgentIssuer(settings.agent_socket, settings.public_key)
    if settings.vault is not None:
        return VaultIssuer(settings.vault, settings.public_key)
    if settings.step is not None:
        return StepIssuer(settings.step, settings.public_key)
    return KeyIssuer(load_ca_key(state_dir))


def trusted_keys(settings: CaSettings, state_dir: Path, issuer: Issuer) -> tuple[str, ...]:
    """The lines for `TrustedUserCAKeys`, the one that signs first.

    Raises:
        ConfigError: A key in the state folder will not do.
    """
    lines = (issuer.public_key, *settings.also_trusted, *other_keys(state_dir))
    return tuple(f"{line} hpchub" for line in dict.fromkeys(lines))


def _read_vault(table: Table, folder: Path) -> VaultSettings:
    return VaultSettings(
        address=table.text("address", pattern=_URL),
        mount=table.text("mount", "ssh", _PATH),
        role=table.text("role", pattern=_NAME),
        token_file=folder / table.text("token_file"),
        namespace=table.text("namespace", "", _PATH),
        ca_file=folder / table.text("ca_file") if table.has("ca_file") else None,
    )


def _read_step(table: Table, folder: Path) -> StepSettings:
    return StepSettings(
        url=table.text("url", pattern=_URL),
        provisioner=table.text("provisioner", pattern=_NAME),
        key_file=folder / table.text("key_file"),
        ca_file=folder / table.text("ca_file"),
    )


def _line(table: Table, key: str, text: str) -> str:
    """The line without its comment; a fault where it is no key that may sign."""
    try:
        return parse_public_key(text).line
    except InvalidRequest as error:
        if text:  # a missing one has its fault already
            table.fault(key, error.message)
        return ""
