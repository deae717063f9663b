"""A job as the scheduler sees it: what is asked for, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

JobId = NewType("JobId", str)


class JobState(StrEnum):
    """Our word for a job's state. The scheduler's own word is always kept beside it."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def is_final(self) -> bool:
        """Whether the job is over for good. UNKNOWN is not: doubt is never death."""
        return self in {JobState.FINISHED, JobState.FAILED, JobState.CANCELLED}


class Query(StrEnum):
    """What can be asked about jobs. All but the last take job ids; `pending` takes partitions."""

    STATUS = "status"
    HISTORY = "history"
    TIMES = "times"
    PENDING = "pending"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """One job's state. `native` and `reason` are the scheduler's own words, never a user's."""

    state: JobState
    native: str
    node: str = ""
    reason: str = ""
    exit_code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTimes:
    """When a job starts and ends, as far as the scheduler knows. Unix seconds.

    Of a job that waits, `starts_at` is the scheduler's guess.
    """

    native: str
    starts_at: int | None = None
    ends_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingJob:
    """A job in the queue, anybody's. A higher `priority` goes first; none at all is held."""

    job_id: JobId
    partitions: tuple[str, ...]
    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a job asks for: seconds, cores, bytes, GPUs."""

    partition: str
    account: str = ""
    time_s: int
    cpus: int
    memory_bytes: int
    gpus: int = 0
    gpu_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """An account a person may charge; `partition` is empty where any will do."""

    account: str
    partition: str = ""
    is_default: bool = False
