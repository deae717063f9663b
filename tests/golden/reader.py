"""Reads and writes golden output: what a real command answered, byte for byte, and how it was asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpchub.core.command import CommandResult

FOLDER = Path(__file__).parent
SLURM = FOLDER / "slurm-22.05"
VERSIONS = sorted(FOLDER.glob("slurm-*"))


def golden(name: str, folder: Path = SLURM) -> CommandResult:
    """One captured answer."""
    body = record(name, folder)
    return CommandResult(
        exit_code=body["exit_code"], stdout="\n".join(body["stdout"]), stderr="\n".join(body["stderr"])
    )


def record(name: str, folder: Path = SLURM) -> dict[str, Any]:
    """One capture with everything that is known of it: argv, user, version, jobs."""
    body: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return body


def names(prefix: str, folder: Path = SLURM) -> list[str]:
    """Captures whose name begins so."""
    return sorted(path.stem for path in folder.glob(f"{prefix}*.json"))


def write(
    name: str, result: CommandResult, *, argv: Sequence[str], folder: Path = SLURM, **facts: object
) -> None:
    """Store a capture; its text as lines, because JSON has no lines of its own."""
    body = {
        **facts,
        "argv": list(argv),
        "exit_code": result.exit_code,
        "stdout": result.stdout.split("\n"),
        "stderr": result.stderr.split("\n"),
    }
    text = json.dumps(body, indent=1, ensure_ascii=True) + "\n"
    (folder / f"{name}.json").write_text(text, encoding="utf-8")
