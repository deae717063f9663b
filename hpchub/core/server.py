"""Where a notebook server is on its way from a click to JupyterLab and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from hpchub.errors import HpchubError, from_wire, to_wire


class Phase(StrEnum):
    """A server's phase, in the order in which it passes through them."""

    CONNECTING = "connecting"
    SUBMITTED = "submitted"
    QUEUED = "queued"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    ENDED = "ended"


# A start that has come to its end, one way or the other.
SETTLED = frozenset({Phase.READY, Phase.ENDED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the progress page. `at` is in Unix seconds."""

    at: float
    phase: Phase
    message: str
    percent: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Event:
        """What `as_dict` wrote."""
        return cls(**{**body, "phase": Phase(body["phase"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerView:
    """A server as the bridge tells of it. `socket` is empty until it is ready.

    While its job waits: `reason` is why, in plain words with the scheduler's own in brackets,
    `queue_place` how many jobs of its partition go first, `expected_start` when the scheduler thinks
    that it starts. While it runs: `ends_at` is when its time is up, and `reason` why it cannot be
    reached, where that is so. Unix seconds; None is unknown.
    """

    id: str
    user: str
    server_name: str
    cluster: str
    placement: str
    phase: Phase
    job_id: str
    node: str
    native_state: str
    socket: str
    error: HpchubError | None
    created_at: float
    reason: str = ""
    queue_place: int | None = None
    expected_start: int | None = None
    ends_at: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` reads it back."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "error": None if self.error is None else to_wire(self.error)}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> ServerView:
        """What `as_dict` wrote."""
        error = None if body["error"] is None else from_wire(body["error"])
        return cls(**{**body, "phase": Phase(body["phase"]), "error": error})


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionView:
    """An open SSH connection to a login node. `use` is commands, sessions or tunnels.

    `sessions` are commands that run on it, `channels` what is forwarded through it; `idle_s` is 0
    while either is in use.
    """

    user: str
    cluster: str
    node: str
    use: str
    sessions: int
    channels: int
    idle_s: float
