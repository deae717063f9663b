"""What a kernel's job asks for: `config` of the provisioner `hpchub-slurm` in kernel.json, checked.

Each key may be given for one start by a variable, `HPCHUB_KERNEL_TIME=02:00:00`.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from hpchub.core.shown import shown
from hpchub.core.slugs import SCHEDULER_NAME
from hpchub.core.toml_table import Table
from hpchub.core.units import parse_memory, parse_time
from hpchub.errors import ConfigError

_VARIABLE = "HPCHUB_KERNEL_"
# They make no job, several, one elsewhere, or an sbatch that returns at its end.
_NOT_OPTIONS = ("array", "clusters", "help", "test-only", "usage", "version", "wait", "wrap")
_OPTION = re.compile(r"--[a-z][a-z-]*(=[^\x00-\x1f\x7f]*)?", re.ASCII)
# sbatch(1), --partition: the first that has room.
_PARTITIONS = re.compile(rf"{SCHEDULER_NAME.pattern}(,{SCHEDULER_NAME.pattern})*", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
_PATH = re.compile(r"/[^\x00-\x1f\x7f]*")
_HALF_AN_HOUR_S = 1800


class Attach(StrEnum):
    """The way from the notebook server to the job: the agent's port on the node, or a step of the job."""

    TCP = "tcp"
    SRUN = "srun"


class Transport(StrEnum):
    """What the kernel listens on, on its own node."""

    IPC = "ipc"
    TCP = "tcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """One kernel's job. Seconds and bytes; 0 and empty leave it to Slurm.

    `keep_s`: how long the job stays without a notebook server that asks for its kernel. `wait_s`: the
    longest wait for its start. `python`: what runs the agent on the node; `sshd`: what attach `srun` runs
    there. `share`: kernels with the same word run in one job.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    time_s: int = 0
    cpus: int = 1
    memory_bytes: int = 0
    gpus: int = 0
    gpu_type: str = ""
    options: tuple[str, ...] = ()
    keep_s: int = _HALF_AN_HOUR_S
    wait_s: int = _HALF_AN_HOUR_S
    python: str = sys.executable
    transport: Transport = Transport.IPC
    attach: Attach = Attach.TCP
    sshd: str = "/usr/sbin/sshd"
    share: str = ""
    templates: Path | None = None


def read_settings(config: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> JobSettings:
    """The settings of kernel.json, and of the variables that are set.

    Raises:
        ConfigError: A key or value is wrong; `problems` lists all.
    """
    problems: list[tuple[str, str]] = []
    given = {
        name.removeprefix(_VARIABLE).lower(): _value(name, value)
        for name, value in (environ or {}).items()
        if name.startswith(_VARIABLE)
    }
    table = Table({**config, **given}, "", problems)
    usual = JobSettings()
    templates = table.text("templates", "", _PATH)
    settings = JobSettings(
        partition=table.text("partition", "", _PARTITIONS, "the name of a partition, or of several as a,b"),
        account=table.text("account", "", SCHEDULER_NAME),
        qos=table.text("qos", "", SCHEDULER_NAME),
        time_s=table.amount("time", parse_time, 0),
        cpus=table.integer("cpus", usual.cpus, low=1, high=65536),
        memory_bytes=table.amount("memory", parse_memory, 0),
        gpus=table.integer("gpus", 0, low=0, high=1024),
        gpu_type=table.text("gpu_type", "", SCHEDULER_NAME),
        options=table.texts("options", _OPTION),
        keep_s=table.amount("keep", parse_time, usual.keep_s),
        wait_s=table.amount("wait", parse_time, usual.wait_s),
        python=table.text("python", usual.python, _PATH),
        transport=table.choice("transport", Transport, usual.transport),
        attach=table.choice("attach", Attach, usual.attach),
        sshd=table.text("sshd", usual.sshd, _PATH),
        share=table.text("share", "", SCHEDULER_NAME),
        templates=Path(templates) if templates else None,
    )
    table.finish()
    for option in settings.options:
        if option.partition("=")[0].removeprefix("--") in _NOT_OPTIONS:
            problems.append(("options", f"{shown(option)} does not go with a kernel's job"))
    if problems:
        raise ConfigError(
            "What kernel.json or HPCHUB_KERNEL_… says of the kernel's job is wrong:",
            problems=[f"{where}: {what}" for where, what in problems],
        )
    return settings


def _value(name: str, value: str) -> str | int | list[str]:
    if name == f"{_VARIABLE}OPTIONS":
        try:
            return shlex.split(value)
        except ValueError:  # a quote that is not closed: the fault of a text where a list should be
            return value
    return number_or_text(value)


def number_or_text(value: str) -> str | int:
    """A number where it is written as one, as kernel.json would hold it."""
    return int(value) if _NUMBER.fullmatch(value) else value
