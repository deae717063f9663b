"""asyncssh's failures in our own words. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import asyncssh

from hpchub.errors import AccountProblem, HostKeyMismatch, HostUnreachable, HpchubError


def login_failure(error: Exception, user: str, node: str) -> HpchubError:
    """Why a handshake with `node` failed.

    HostUnreachable and AccountProblem leave room for another try; HostKeyMismatch leaves none.
    """
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return HostKeyMismatch(
            f"{node} showed a host key that the cluster's known_hosts file does not have.",
            "Nobody was logged in. Ask the site's staff whether the host key of that node has changed.",
        )
    if isinstance(error, asyncssh.PermissionDenied):
        return AccountProblem(
            f"{node} refused {user}'s certificate: there is no such account there, or it is locked.",
            "Ask the site's staff to look at your account. Where nobody gets in, sshd does not trust the "
            "hub's certificate authority, or does not accept its address.",
        )
    return HostUnreachable(f"{node} could not be reached: {reason(error)}.")


def unreachable(cluster: str, tried: Mapping[str, str]) -> HostUnreachable:
    """No login node answered; `tried` maps each to the reason."""
    listed = "; ".join(f"{node}: {why}" for node, why in tried.items())
    return HostUnreachable(
        f"No login node of {cluster} could be reached ({listed}).",
        "It may be down for maintenance. Try again in a few minutes.",
    )


def reason(error: BaseException) -> str:
    """A short reason without a final stop."""
    if isinstance(error, HpchubError):
        return error.message.rstrip(".")
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, OSError):
        return (error.strerror or str(error) or type(error).__name__).lower()
    if isinstance(error, asyncssh.Error):
        return error.reason.rstrip(".") or type(error).__name__
    return str(error) or type(error).__name__
