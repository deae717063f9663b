"""The partitions of a cluster as Slurm tells them to one person: what to run, and how to read the answer.

All of it is Slurm's own and the site's: no user writes any of these fields. Checked on 22.05.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from hpchub.core.command import Command, CommandResult
from hpchub.core.slugs import is_scheduler_name
from hpchub.errors import UnexpectedOutput
from hpchub.schedulers.slurm_errors import failure
from hpchub.schedulers.slurm_rows import NUMBER, SEPARATOR, rows

_log = logging.getLogger(__name__)

# sinfo(1), --format: name, name with a star where it is the default, availability, longest and default time,
# the most CPUs of a node that jobs get, a node's CPUs, its memory in MB, its generic resources.
_FIELDS = ("%R", "%P", "%a", "%l", "%L", "%B", "%c", "%m", "%G")
# A person waits for it.
_LIMIT_S = 5.0
_TIME = re.compile(r"(?:(?:([0-9]+)-)?([0-9]+):)?([0-9]+):([0-9]+)", re.ASCII)
_GPUS = re.compile(r"(?:^|,)gpu(?::([A-Za-z0-9_.-]+))?:([0-9]+)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionLimits:
    """A partition: `state` is `up`, `down`, `drain` or `inact`; of its nodes, the most that one has.

    Seconds and bytes; a time of 0 is without limit. `gpus` maps their type, or an empty text, to a number.
    """

    name: str
    is_default: bool
    state: str
    max_time_s: int
    default_time_s: int
    cpus: int = 0
    memory_bytes: int = 0
    gpus: Mapping[str, int] = field(default_factory=dict)


def partitions_command() -> Command:
    """sinfo; it leaves out partitions that are hidden, or not for the person's groups.

    `--exact`: a row for each kind of node; otherwise it would tell the least of them. To be run without
    SINFO_ALL and SINFO_PARTITION, which people may have set for themselves.
    """
    argv = ("sinfo", "--noheader", "--exact", f"--format={SEPARATOR.join(_FIELDS)}")
    return Command(argv=argv, timeout_s=_LIMIT_S)


def parse_partitions(result: CommandResult) -> list[PartitionLimits]:
    """The partitions in Slurm's order. Names that no form could offer are left out, and logged.

    Raises:
        SchedulerUnavailable: Slurm did not answer.
        UnexpectedOutput: Nobody can read it.
    """
    if result.exit_code != 0:
        raise failure("sinfo", result)
    found: dict[str, PartitionLimits] = {}
    for row in rows("sinfo", result.stdout, len(_FIELDS)):
        one = _partition(row)
        if not is_scheduler_name(one.name):
            _log.warning("slurm.odd_partition name=%r", one.name)
            continue
        found[one.name] = _together(found[one.name], one) if one.name in found else one
    return list(found.values())


def _partition(row: list[str]) -> PartitionLimits:
    """One row's: of one kind of node."""
    name, starred, state, longest, default, most, cpus, memory_mb, resources = row
    gpus: dict[str, int] = {}
    for kind, number in _GPUS.findall(resources):
        gpus[kind] = gpus.get(kind, 0) + int(number)
    max_time_s = _seconds(longest, 0)
    return PartitionLimits(
        name=name, is_default=starred == f"{name}*", state=state,
        max_time_s=max_time_s, default_time_s=_seconds(default, max_time_s),
        cpus=min(_number(cpus), int(most)) if NUMBER.fullmatch(most) else _number(cpus),
        memory_bytes=_number(memory_mb) * 1024**2, gpus=gpus,
    )  # fmt: skip


def _together(one: PartitionLimits, other: PartitionLimits) -> PartitionLimits:
    """The most of both kinds of node."""
    kinds = [*one.gpus, *(kind for kind in other.gpus if kind not in one.gpus)]
    return PartitionLimits(
        name=one.name, is_default=one.is_default, state=one.state,
        max_time_s=one.max_time_s, default_time_s=one.default_time_s,
        cpus=max(one.cpus, other.cpus), memory_bytes=max(one.memory_bytes, other.memory_bytes),
        gpus={kind: max(one.gpus.get(kind, 0), other.gpus.get(kind, 0)) for kind in kinds},
    )  # fmt: skip


def _seconds(text: str, otherwise: int) -> int:
    """`8:00:00`, `30:00`, `1-00:00:00`; `otherwise` for `n/a`; 0 for `infinite`."""
    if text in {"infinite", "n/a"}:
        return 0 if text == "infinite" else otherwise
    match = _TIME.fullmatch(text)
    if not match:
        raise UnexpectedOutput("sinfo", text)
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _number(text: str) -> int:
    if not NUMBER.fullmatch(text):
        raise UnexpectedOutput("sinfo", text)
    return int(text)
