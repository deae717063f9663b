"""Slurm's tables and the words in them: what is read, and what may be written into a command."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from hpchub.core.job import JobId
from hpchub.errors import InvalidRequest, UnexpectedOutput

_log = logging.getLogger(__name__)

SEPARATOR = "\x1f"
NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)
NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*", re.ASCII)
# 42, an array's 42_7 and 42_[1-9%2], a heterogeneous job's 42+1.
_JOB_ID = re.compile(r"[0-9]{1,10}(?:_[0-9]+|_\[[0-9,:%.-]+\]|\+[0-9]+)?", re.ASCII)
# A comma would ask for a list of names.
_JOB_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


def joined(ids: Sequence[JobId]) -> str:
    """Ids for one option. Never none: squeue and sacct would then list everybody's jobs."""
    if not ids:
        raise InvalidRequest("No job was named.")
    for job_id in ids:
        if not _JOB_ID.fullmatch(job_id):
            raise InvalidRequest(f"{job_id[:40]!r} is no job id of Slurm's.")
    return ",".join(ids)


def checked_name(job_name: str) -> str:
    """A name that one of our jobs can have."""
    if not _JOB_NAME.fullmatch(job_name):
        raise InvalidRequest(f"{job_name[:40]!r} is no name of a job of ours.")
    return job_name


def named(job_names: Sequence[str]) -> tuple[str, ...]:
    """The option that leaves out jobs of other names; none where there are no names."""
    return (f"--name={','.join(map(checked_name, job_names))}",) if job_names else ()


def ids_alone(tool: str, text: str) -> list[JobId]:
    """The lines that are an id alone, once each.

    Raises:
        UnexpectedOutput: There is text and no id: that would not prove that there is no job.
    """
    lines = [line.strip() for line in text.split("\n")]
    lines = [line for line in lines if line and not line.startswith("CLUSTER: ")]
    ids = [JobId(line) for line in lines if _JOB_ID.fullmatch(line)]
    if lines and not ids:
        raise UnexpectedOutput(tool, lines[0])
    return list(dict.fromkeys(ids))


def rows(tool: str, text: str, width: int, separator: str = SEPARATOR) -> list[list[str]]:
    """The rows of a table. Lines without a separator are a site's notices, and logged.

    Raises:
        UnexpectedOutput: A row has another number of fields, or there are notices and no row.
    """
    found, notices = [], []
    for line in text.split("\n"):  # splitlines() also breaks at \x1e and \x85
        if separator in line:
            fields = line.split(separator)
            if len(fields) != width:
                raise UnexpectedOutput(tool, line)
            found.append([field.strip() for field in fields])
        elif line.strip() and not line.startswith("CLUSTER: "):
            notices.append(line)
    if notices and not found:
        raise UnexpectedOutput(tool, notices[0])
    if notices:
        _log.warning("slurm.notice tool=%s lines=%d", tool, len(notices))
    return found


def checked_id(tool: str, text: str) -> JobId:
    """A job id of Slurm's, or UnexpectedOutput."""
    if not _JOB_ID.fullmatch(text):
        raise UnexpectedOutput(tool, text)
    return JobId(text)


def unix_time(text: str) -> int | None:
    """None for N/A, Unknown and the like."""
    return int(text) if re.fullmatch(r"[0-9]{1,12}", text, re.ASCII) else None


def told(reason: str) -> str:
    """A reason; empty for the words with which Slurm says that there is none."""
    return "" if reason in {"None", "(null)"} else reason


def single_node(text: str) -> str:
    """A node's name; empty for Slurm's `n/a`, `None assigned`, and lists of several nodes."""
    return text if NODE.fullmatch(text) else ""
