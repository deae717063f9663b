"""Which processes staff's commands ask: bridge and signer as in bridge.toml, or a signer alone."""

from __future__ import annotations

import argparse
import tomllib
from dataclasses import dataclass
from pathlib import Path

from hpchub.bridge.client import BridgeClient
from hpchub.bridge.settings import load_settings as load_bridge_settings
from hpchub.signer.client import SignerClient
from hpchub.signer.settings import load_settings as load_signer_settings

DEFAULT_CONFIG = Path("/etc/hpchub/bridge.toml")
SIGNER_CONFIG = Path("/etc/hpchub/signer.toml")


@dataclass(frozen=True, slots=True)
class Processes:
    """Whom to ask. No bridge where the settings are the signer's: it is on another host then."""

    signer: SignerClient
    bridge: BridgeClient | None


def configure_config(parser: argparse.ArgumentParser) -> None:
    """The argument `--config`."""
    parser.add_argument(
        "--config",
        type=Path,
        help="bridge.toml, or signer.toml on a signer's own host; "
        f"default: {DEFAULT_CONFIG}, else {SIGNER_CONFIG}",
    )


def find_processes(config: Path | None) -> Processes:
    """Those of the settings in a file, whichever of the two it is. ConfigError lists every fault in it."""
    path = config or _usual()
    if _is_signers(path):
        return Processes(SignerClient(load_signer_settings(path).socket), None)
    settings = load_bridge_settings(path)
    return Processes(SignerClient(settings.signer_socket), BridgeClient(settings.socket))


def _usual() -> Path:
    only_signer = SIGNER_CONFIG.exists() and not DEFAULT_CONFIG.exists()
    return SIGNER_CONFIG if only_signer else DEFAULT_CONFIG


def _is_signers(path: Path) -> bool:
    """Whether it has what every signer.toml has, and no bridge.toml; False too where it cannot be read."""
    try:
        return "state_dir" in tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # what is wrong with it, its own reader says
        return False
