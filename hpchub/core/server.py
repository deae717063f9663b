"""Where a notebook server is on its way from a click to JupyterLab and back."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """A server's phase, in the order in which it passes through them."""

    CONNECTING = "connecting"
    SUBMITTED = "submitted"
    QUEUED = "queued"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    ENDED = "ended"
