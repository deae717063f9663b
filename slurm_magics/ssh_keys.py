"""The keys to log in with: certificates and keys, in files and in an agent."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slurm_magics.certificates import CertificateFacts, is_certificate, read_certificate
from slurm_magics.known_hosts import key_type
from slurm_magics.ssh_config import FROM_ENVIRONMENT, Route

_log = logging.getLogger(__name__)

# OpenSSH certifies keys without an end with this.
_FOREVER = 2**64 - 1


def identities(route: Route, agent: list[tuple[str, Any]], troubles: list[str]) -> Iterator[tuple[str, Any]]:
    """Keys to log in with, certificates first, each once. What cannot be used is added to the troubles."""
    tried: set[bytes] = set()
    for label, key in _candidates(route, agent, troubles):
        shown = key.public_blob.key_blob if key.public_blob else key.asbytes()
        if shown not in tried:
            tried.add(shown)
            yield label, key


def _candidates(route: Route, agent: list[tuple[str, Any]], troubles: list[str]) -> Iterator[tuple[str, Any]]:
    """Keys in the order in which they are tried. One may be in several places."""
    files = _file_keys(route, troubles)
    plain = {key.asbytes(): (label, key) for label, key in (*files, *agent)}
    for path in _certificate_files(route):
        blob = _certificate_blob(path, troubles)
        facts = _usable(blob, str(path), troubles) if blob else None
        if facts is None:
            continue
        if facts.key not in plain:
            troubles.append(f"The key of the certificate {path} is neither in the agent nor in a file.")
            continue
        _, key = plain[facts.key]
        yield str(path), _Certified(key, blob)
    wanted = {key.asbytes() for _, key in files} | _public_files(route)
    for label, key in agent:
        own = getattr(key, "blob", b"")
        if is_certificate(own):
            if _usable(own, label, troubles):
                key.inner_key = None  # else paramiko would have the agent sign with the plain key
                yield label, key
        elif not route.only_these_keys or key.asbytes() in wanted:
            yield label, key
    yield from files


class _Certified:
    """A key and its certificate, in the shape that paramiko asks a key for."""

    def __init__(self, key: Any, blob: bytes) -> None:
        import paramiko

        self._key = key
        self.public_blob = paramiko.pkey.PublicBlob(key_type(blob), blob)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._key, name)


@contextlib.contextmanager
def agent_keys(route: Route) -> Iterator[list[tuple[str, Any]]]:
    """The agent's keys; they can sign while the block lasts."""
    import paramiko

    agent: Any = None
    if route.agent == FROM_ENVIRONMENT:
        agent = paramiko.Agent()
    elif route.agent != "none":
        link = socket.socket(socket.AF_UNIX)
        try:
            link.connect(route.agent)
            agent = paramiko.agent.AgentSSH()
            agent._connect(link)
        except (OSError, paramiko.SSHException):
            _log.warning("magics.no_agent socket=%s", route.agent)
            link.close()
            agent = None
    try:
        yield [(f"agent: {key.comment}", key) for key in agent.get_keys()] if agent else []
    finally:
        if agent:
            agent._close()


def _file_keys(route: Route, troubles: list[str]) -> list[tuple[str, Any]]:
    import paramiko

    found: list[tuple[str, Any]] = []
    for path in route.keys:
        if not path.is_file() or path.suffix == ".pub":
            continue
        try:
            key = paramiko.PKey.from_path(path)
            key.public_blob = None  # it has looked for a certificate, which we do ourselves
            found.append((str(path), key))
        except (paramiko.PasswordRequiredException, TypeError):
            troubles.append(f"{path} has a passphrase: add it to the agent with ssh-add {path}.")
        except (OSError, ValueError, paramiko.SSHException) as error:
            troubles.append(f"{path} cannot be read: {words_of(error)}.")
    return found


def _certificate_files(route: Route) -> list[Path]:
    beside = [path.with_name(f"{path.name.removesuffix('.pub')}-cert.pub") for path in route.keys]
    return list(dict.fromkeys(path for path in (*route.certificates, *beside) if path.is_file()))


def _public_files(route: Route) -> set[bytes]:
    """The keys whose public half stands beside a file that is named, or is that file."""
    import paramiko

    found: set[bytes] = set()
    for path in route.keys:
        public = path if path.suffix == ".pub" else path.with_name(f"{path.name}.pub")
        with contextlib.suppress(OSError, ValueError):
            found.add(paramiko.pkey.PublicBlob.from_file(str(public)).key_blob)
    return found


def _certificate_blob(path: Path, troubles: list[str]) -> bytes:
    import paramiko

    try:
        blob: bytes = paramiko.pkey.PublicBlob.from_file(str(path)).key_blob
    except (OSError, ValueError) as error:
        troubles.append(f"The certificate {path} cannot be read: {words_of(error)}.")
        return b""
    return blob


def _usable(blob: bytes, label: str, troubles: list[str]) -> CertificateFacts | None:
    """The certificate's facts; None where it cannot be read or is over."""
    try:
        facts = read_certificate(blob)
    except ValueError as error:
        troubles.append(f"The certificate {label} cannot be read: {words_of(error)}.")
        return None
    if facts.valid_before <= time.time() and facts.valid_before != _FOREVER:
        ended = datetime.fromtimestamp(facts.valid_before, UTC).astimezone()
        troubles.append(
            f"The certificate {label} expired on {ended:%Y-%m-%d at %H:%M}. Get a new one as you got it "
            "(from a hub: hpchub login), then run the cell again."
        )
        return None
    return facts


def words_of(error: BaseException) -> str:
    """What an error says, without the full stop."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).rstrip(".")
