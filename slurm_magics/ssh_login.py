"""Opens an SSH connection the way OpenSSH's client would: jump hosts, host keys, certificates, agent.

A host key is never taken on trust. paramiko is imported with the first connection, not before.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slurm_magics.errors import SlurmError
from slurm_magics.known_hosts import fingerprint, key_type, known_keys
from slurm_magics.ssh_config import Route, Target, resolve
from slurm_magics.ssh_keys import agent_keys, identities, words_of

if TYPE_CHECKING:
    import paramiko

_log = logging.getLogger(__name__)
# What goes wrong is said by our own errors. Without any handler Python would print paramiko's, too.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

_CONNECT_S = 15.0
_KEEPALIVE_S = 20
_SILENT = f"it takes the connection, and has not answered within {_CONNECT_S:g} s"


@dataclass(frozen=True, slots=True)
class Connection:
    """A transport that is logged in, and those of the jump hosts that it goes through, the nearest first."""

    transport: paramiko.Transport
    jumps: tuple[paramiko.Transport, ...] = ()

    @property
    def is_alive(self) -> bool:
        """Whether it can be used, as far as this side knows."""
        return bool(self.transport.is_active())

    def close(self) -> None:
        """End it, and its jump hosts' after it."""
        for transport in (self.transport, *reversed(self.jumps)):
            transport.close()


def require_paramiko() -> None:
    """Raise SlurmError where it is not installed; all else here takes it for granted."""
    try:
        import paramiko  # noqa: F401  what connects imports it again
    except ImportError as error:
        raise SlurmError(
            "%slurm connect needs paramiko.", "Install it beside slurm_magics: pip install paramiko"
        ) from error


def open_connection(target: Target) -> Connection:
    """A connection to the host, logged in; through its jump hosts, where it has some.

    Raises:
        SlurmError: There is no way, the host's key is not the known one, or it lets nobody in.
    """
    route = resolve(target)
    if route.proxy_command and not route.jumps:
        return Connection(_login(route, _proxy(route.proxy_command)))
    before: Connection | None = None
    with contextlib.ExitStack() as on_failure:
        for place, jump in enumerate(route.jumps):
            # Of several, only the first is reached as its own configuration says: ssh(1), -J.
            before = _onward(resolve(jump), before) if place else open_connection(jump)
            on_failure.callback(before.close)
        connection = _onward(route, before)
        on_failure.pop_all()
    return connection


def _onward(route: Route, before: Connection | None) -> Connection:
    """A connection to a host, from the last jump host or from here."""
    import paramiko

    try:
        if before is None:
            link: Any = socket.create_connection((route.host, route.port), _CONNECT_S)
        else:
            way = ("direct-tcpip", (route.host, route.port), ("127.0.0.1", 0))
            link = before.transport.open_channel(*way, timeout=_CONNECT_S)
    except (OSError, paramiko.SSHException) as error:
        raise SlurmError(
            f"{_place(route)} cannot be reached: {words_of(error)}.",
            "Check the name and the network; some clusters want a VPN or a jump host.",
            retryable=True,
        ) from error
    return Connection(_login(route, link), (*before.jumps, before.transport) if before else ())


class _Proxy:
    """A link through a command, which ends with it: many see no end of their input. A socket otherwise."""

    def __init__(self, link: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self._link = link
        self._process = process

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def close(self) -> None:
        """As ssh does at its end."""
        self._link.close()
        self._process.send_signal(signal.SIGHUP)


def _proxy(command: str) -> _Proxy:
    """A link through a command's standard input and output."""
    ours, theirs = socket.socketpair()
    with theirs:
        # The command is the person's own configuration, written for a shell: ssh_config(5), ProxyCommand. A
        # terminal and Jupyter's stop button interrupt all that the kernel has started, and so this one, too.
        process = subprocess.Popen(
            ("/bin/sh", "-c", f"trap '' INT; exec {command}"), stdin=theirs.fileno(), stdout=theirs.fileno()
        )
    threading.Thread(target=process.wait, daemon=True).start()
    return _Proxy(ours, process)


def _login(route: Route, link: Any) -> paramiko.Transport:
    """The connection over a link, which ends with it."""
    import paramiko

    with contextlib.ExitStack() as on_failure:
        on_failure.callback(link.close)
        try:
            transport = paramiko.Transport(link)
            on_failure.callback(transport.close)
            _check_host(route, transport)
            transport.set_keepalive(_KEEPALIVE_S)
            _authenticate(route, transport)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise SlurmError(
                f"The connection to {_place(route)} failed: {words_of(error)}.",
                "Try again later, or another login node of the cluster.",
                retryable=True,
            ) from error
        on_failure.pop_all()
    _log.info("magics.connected host=%s user=%s", route.name, route.user)
    return transport


def _check_host(route: Route, transport: paramiko.Transport) -> None:
    """Shake hands, and compare the host's key with the known ones.

    Raises:
        SlurmError: It is unknown, another one, or revoked.
    """
    known = known_keys(_lines(route), route.known_as, route.port)
    options = transport.get_security_options()
    wanted = {name for kind in known.types for name in _algorithms(kind)}
    offered = list(options.key_types)
    options.key_types = sorted(offered, key=lambda name: name not in wanted)  # the known ones first
    _shake_hands(transport)
    key = transport.get_remote_server_key().asbytes()
    shown = f"{key_type(key)} {fingerprint(key)}"
    if key in known.revoked:
        raise SlurmError(f"The key of {_place(route)} is revoked: {shown}.", "Ask the site's staff.")
    if key in known.keys:
        return
    if known.keys:
        ours = ", ".join(f"{key_type(one)} {fingerprint(one)}" for one in sorted(known.keys))
        raise SlurmError(
            f"{_place(route)} shows another key than the known one: {shown}. Known is {ours}.",
            "Somebody may stand in between, or the site has changed it: ask the staff before you trust it.",
        )
    reason = " A host certificate alone is not enough here." if known.has_authority else ""
    raise SlurmError(
        f"The key of {_place(route)} is not known: {shown}.{reason}",
        f"Compare it with what the site publishes, then connect once with: ssh {route.name}",
    )


def _shake_hands(transport: paramiko.Transport) -> None:
    """Its own timeout would pass without an error."""
    import paramiko

    done = threading.Event()
    transport.banner_timeout = 2 * _CONNECT_S  # ours tells more
    transport.auth_timeout = _CONNECT_S
    transport.start_client(event=done)
    if not done.wait(_CONNECT_S):
        raise paramiko.SSHException(_SILENT)
    if not transport.is_active():
        raise transport.get_exception() or EOFError("it has hung up")


def _algorithms(kind: str) -> tuple[str, ...]:
    """The names by which a host proves that it has a key of this type."""
    return ("rsa-sha2-512", "rsa-sha2-256") if kind == "ssh-rsa" else (kind,)


def _lines(route: Route) -> Iterator[str]:
    """Those of the known_hosts files.

    Raises:
        SlurmError: One is there and cannot be read.
    """
    for path in route.known_hosts:
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                yield from file
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SlurmError(
                f"{path}, with the keys of known hosts, cannot be read: {words_of(error)}."
            ) from error


def _authenticate(route: Route, transport: paramiko.Transport) -> None:
    """Try certificates, the agent's keys and the files', in this order.

    Raises:
        SlurmError: None of them is let in.
    """
    import paramiko

    troubles: list[str] = []
    tried = 0
    further: set[str] = set()
    with agent_keys(route) as agent:
        for label, key in identities(route, agent, troubles):
            tried += 1
            try:
                further = set(transport.auth_publickey(route.user, key))
                if not further:
                    return
                break  # the key counts, but is not enough
            except paramiko.BadAuthenticationType as error:
                further = set(error.allowed_types)
                break
            except paramiko.AuthenticationException as error:
                if "timeout" in str(error):
                    raise paramiko.SSHException(_SILENT) from error
                _log.info("magics.key_refused host=%s key=%s", route.name, label)
                if not transport.is_active():
                    troubles.append("It cut the connection after so many keys: set IdentitiesOnly for it.")
                    break
    wants = f" It also wants {' or '.join(sorted(further - {'publickey'}))}." if further else ""
    shown = f"with any of {tried} keys" if tried else "without a key, and there is none"
    raise SlurmError(
        f"{_place(route)} does not let {route.user} in {shown}.{wants}",
        " ".join(troubles) or f"Check that this works without a password: ssh {route.name} true",
    )


def _place(route: Route) -> str:
    port = "" if route.port == 22 else f":{route.port}"
    return route.name if route.name == route.host and not port else f"{route.name} ({route.host}{port})"
