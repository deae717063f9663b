"""How much of a cluster one hub may use. Numbers from measurements in docs/reference/ssh.md."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds and counts.

    Attributes:
        sessions_per_connection: Commands at once on one connection; sshd's MaxSessions is 10.
        handshakes_per_node: Logins in flight to one node; sshd's MaxStartups drops some above 10.
        handshake_tries: How often a handshake that sshd dropped is tried.
        connect_timeout_s: For TCP to answer.
        login_timeout_s: For the handshake after that.
        command_timeout_s: The most that any command gets, whatever it asks for.
        keepalive_interval_s: A silent peer is asked this often ...
        keepalive_tries: ... and given up after this many questions without answer.
        channels_per_connection: Forwarded channels; sshd has 1,016 file descriptors for them.
        idle_s: After this an unused connection is closed.
        node_rest_s: For this long a node that failed is tried last.
        output_bytes: The most that a command may print.
    """

    sessions_per_connection: int = 8
    handshakes_per_node: int = 4
    handshake_tries: int = 4
    connect_timeout_s: float = 10.0
    login_timeout_s: float = 20.0
    command_timeout_s: float = 60.0
    keepalive_interval_s: float = 15.0
    keepalive_tries: int = 3
    channels_per_connection: int = 500
    idle_s: float = 600.0
    node_rest_s: float = 30.0
    output_bytes: int = 16 * 1024 * 1024
