"""What a certificate of ours may be for."""

from __future__ import annotations

from enum import StrEnum


class Profile(StrEnum):
    """Commands and tunnels need certificates of their own: sshd's `force-command` stops neither
    kind of forwarding, so a certificate that may do both could not be confined to one.
    """

    CONTROL = "control"
    TUNNEL = "tunnel"
