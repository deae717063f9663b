"""What a certificate of ours may be for."""

from __future__ import annotations

from enum import StrEnum


class Profile(StrEnum):
    """Commands and tunnels need certificates of their own: sshd's `force-command` stops neither
    kind of forwarding, so a certificate that may do both could not be confined to one.

    `query` is for a site's service account alone: it asks for the states of jobs, and does nothing else.
    `terminal` is for a person's own machine, outside the hub, where the site gives such certificates.
    """

    CONTROL = "control"
    TUNNEL = "tunnel"
    QUERY = "query"
    TERMINAL = "terminal"
