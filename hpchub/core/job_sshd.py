"""The sshd that a job runs for itself, as a step of its own: unprivileged, on two pipes. Pure.

It trusts no certificate authority. sshd on pipes has no peer address, so it refuses a certificate
bound to one, as ours are. Instead it accepts one key that was made for this job; only the account itself
can start it, through `srun`, and so only the account can speak to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

# The srun of a login node that dies leaves its step running, on pipes that nobody closes.
_SILENT_S = 60
_QUESTIONS = 3


def authorized_keys(client: bytes) -> bytes:
    """The one line of the job's `authorized_keys`, for a public key as OpenSSH writes it."""
    return b"restrict,port-forwarding " + client


def sshd_config(folder: str, silent_s: int = _SILENT_S) -> str:
    """sshd_config(5) for the job's sshd: forwarding, and nothing else. It ends by itself where its
    client has been silent for `silent_s` seconds.
    """
    settings: Mapping[str, str] = {
        "HostKey": _quoted(f"{folder}/host_key"),
        # This one expands tokens such as %h, HostKey does not.
        "AuthorizedKeysFile": _quoted(f"{folder}/authorized_keys").replace("%", "%%"),
        "AuthenticationMethods": "publickey",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "UsePAM": "no",
        # The folder is 0700; a home that a group may write to is the site's choice, not a reason to fail.
        "StrictModes": "no",
        # sshd 9.2 holds sockets to this one too: with `no` or `remote` it refuses them. The one key that
        # gets in belongs to the account, which may open ports from its job anyway.
        "AllowTcpForwarding": "yes",
        "AllowStreamLocalForwarding": "yes",
        "StreamLocalBindMask": "0177",
        "GatewayPorts": "no",
        "AllowAgentForwarding": "no",
        "X11Forwarding": "no",
        "PermitTunnel": "no",
        "PermitTTY": "no",
        "PermitUserRC": "no",
        "PermitUserEnvironment": "no",
        "ForceCommand": "/bin/false",
        "MaxSessions": "0",
        "ClientAliveInterval": str(math.ceil(silent_s / _QUESTIONS)),
        "ClientAliveCountMax": str(_QUESTIONS),
        "PrintMotd": "no",
        "PidFile": "none",
        "LogLevel": "ERROR",
    }
    return "".join(f"{key} {value}\n" for key, value in settings.items())


def inner_sshd_argv(sshd: str, folder: str) -> tuple[str, ...]:
    """What the job step runs. `-e`: its log goes to stderr, not to the node's syslog."""
    return (sshd, "-i", "-e", "-f", f"{folder}/sshd_config")


def _quoted(path: str) -> str:
    """A path as sshd_config(5) reads it: no line end, no quote."""
    if '"' in path or any(ord(char) < 32 for char in path):
        raise ValueError(f"{path!r} cannot stand in an sshd_config")
    return f'"{path}"'
