"""The key of a login on a person's own machine: in the ssh-agent, or in a file where that is asked for."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

import asyncssh
from asyncssh.agent import SSHAgentClient
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    SSHCertificateType,
    load_ssh_public_identity,
)

from hpchub.core.certificate import may_be_called
from hpchub.errors import ConfigError, NotAllowed, ProcessAway, UnexpectedOutput
from hpchub.private_files import read_private_file, write_private_file

_Result = TypeVar("_Result")

_ANSWER_WAIT_S = 60.0  # an agent may ask its owner first


class KeyPlace(Protocol):
    """Where the key of a login is kept."""

    def check(self) -> None:
        """Return where a key could be kept there; an error of ours otherwise."""

    def keep(self, key: asyncssh.SSHKey, certificate: str, lifetime_s: int) -> None:
        """Keep a key with its certificate, for so many seconds."""

    def sign(self, public_key: str, text: bytes) -> bytes:
        """A signature by a key that is kept here. NotAllowed where it is not, or no longer."""

    def drop(self, public_key: str, certificate: str) -> None:
        """Keep neither any longer. What is not here is no error."""


class InAgent:
    """OpenSSH's ssh-agent, or what speaks its protocol: keys end by themselves, and are on no disk."""

    def __init__(self, socket: str) -> None:
        self._socket = socket

    def check(self) -> None:
        """ProcessAway where there is none."""
        self._ask(lambda agent: agent.get_keys())

    def keep(self, key: asyncssh.SSHKey, certificate: str, lifetime_s: int) -> None:
        """As `ssh-add -t` does."""
        pair = (key, asyncssh.import_certificate(certificate))
        self._ask(lambda agent: agent.add_keys([pair], lifetime=lifetime_s))

    def sign(self, public_key: str, text: bytes) -> bytes:
        """NotAllowed where the agent has forgotten it: the login is over."""
        data = asyncssh.import_public_key(public_key).public_data
        held = self._ask(lambda agent: agent.get_keys())
        if data not in {pair.public_data for pair in held}:
            raise NotAllowed("Your ssh-agent does not hold the key of that login.", "Log in again.")
        return self._ask(lambda agent: agent.sign(data, text))

    def drop(self, public_key: str, certificate: str) -> None:
        """The agent holds two: the key with its certificate, and the key alone."""
        ours = {
            asyncssh.import_public_key(public_key).public_data,
            asyncssh.import_certificate(certificate).public_data,
        }

        async def remove(agent: SSHAgentClient) -> None:
            held = await agent.get_keys()
            await agent.remove_keys([pair for pair in held if pair.public_data in ours])

        self._ask(remove)

    def _ask(self, question: Callable[[SSHAgentClient], Awaitable[_Result]]) -> _Result:
        async def ask() -> _Result:
            async with asyncio.timeout(_ANSWER_WAIT_S), SSHAgentClient(self._socket) as agent:
                answer = await question(agent)
            return answer  # noqa: RET504  by its type asyncssh's context might swallow an error

        try:
            return asyncio.run(ask())
        except (OSError, ValueError, TimeoutError) as error:  # asyncssh raises ValueError for every refusal
            raise ProcessAway(
                f"Your ssh-agent does not do it: {error or 'no answer'}.",
                'Start one with eval "$(ssh-agent)", or see --key-file.',
            ) from error


class InFile:
    """A file of mode 0600, the certificate beside it as ssh looks for it. It stays until it is replaced."""

    def __init__(self, path: Path, *, ours: bool) -> None:
        """`ours`: a login before has written that file, so it may be replaced."""
        self._path, self._ours = path, ours

    def check(self) -> None:
        """ConfigError where there is something that a login has not written."""
        if self._path.exists() and not self._ours:
            raise ConfigError(f"{self._path} is there already.", "Name a file that is not.")

    def keep(self, key: asyncssh.SSHKey, certificate: str, lifetime_s: int) -> None:
        """The file does not end by itself; what makes it worthless is the certificate's end."""
        write_private_file(self._path, key.export_private_key("openssh"), replace=self._ours)

    def sign(self, public_key: str, text: bytes) -> bytes:
        """NotAllowed where another key is there by now."""
        try:
            key = asyncssh.import_private_key(read_private_file(self._path))
        except asyncssh.KeyImportError as error:
            raise ConfigError(f"{self._path} holds no key.") from error
        if key.public_data != asyncssh.import_public_key(public_key).public_data:
            raise NotAllowed(f"{self._path} does not hold the key of that login.", "Log in again.")
        return key.sign(text, key.sig_algorithms[0])

    def drop(self, public_key: str, certificate: str) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)


def new_key(comment: str) -> tuple[asyncssh.SSHKey, str]:
    """A key, and its public half as one line without the comment."""
    key = asyncssh.generate_private_key("ssh-ed25519", comment=comment)
    return key, " ".join(key.export_public_key("openssh").decode("ascii").split()[:2])


def agent_of_the_environment() -> InAgent:
    """The agent that ssh would ask. ProcessAway where the environment names none."""
    socket = os.environ.get("SSH_AUTH_SOCK", "")
    if not socket:
        raise ProcessAway(
            "No ssh-agent runs here (SSH_AUTH_SOCK is not set).",
            'Start one with eval "$(ssh-agent)", or write the key into a file with --key-file.',
        )
    return InAgent(socket)


def check_certificate(certificate: str, public_key: str, username: str) -> int:
    """The seconds that a certificate is good for, where it is for this key and this account.

    Raises:
        UnexpectedOutput: It is not what was asked for.
    """
    try:
        found = load_ssh_public_identity(certificate.encode("ascii"))
        if not isinstance(found, SSHCertificate):
            raise UnexpectedOutput("the hub", "a key, where a certificate should be")
        found.verify_cert_signature()
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise UnexpectedOutput("the hub", "a certificate that cannot be read") from error
    key = found.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    names = [name.decode("utf-8", "replace") for name in found.valid_principals]
    left = int(found.valid_before - time.time())
    if (
        found.type is not SSHCertificateType.USER
        or key != " ".join(public_key.split()[:2])
        or len(names) != 1
        or not may_be_called(username, names[0])
        or left <= 0
    ):
        raise UnexpectedOutput("the hub", "a certificate for another key, account or time")
    return left
