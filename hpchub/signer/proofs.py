"""How a person proves who they are. One small interface. PAM is here; the others have modules of their own.

A proof does the same work whether the name is unknown, unsafe, locked or merely given with a wrong
password, and its true reason goes to the audit log only.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from hpchub.core.secret import Secret
from hpchub.core.slugs import is_safe_account_name
from hpchub.errors import ConfigError, SiteError
from hpchub.signer.child import Answer, ask_child

MAX_PASSWORD_LENGTH = 1024

_PAM_FOLDERS = ("/etc/pam.d", "/usr/lib/pam.d", "/usr/share/pam.d")  # pam.d(5), and where vendors put them


@dataclass(frozen=True, slots=True)
class Accepted:
    """Proven: the account, and the factors that proved it, in one word for the audit log.

    `must_enrol`: nothing is earned by it yet but to set up a second factor. `has_second`: a second factor
    is among those that proved it.
    """

    account: str
    factor: str
    must_enrol: bool = field(default=False, repr=False)
    has_second: bool = field(default=False, repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """Not proven. `reason` is for the audit log alone; the person is never told."""

    reason: str


class Proof(Protocol):
    """Checks a username and a secret. `workers` is how many may run at once, each in a thread.

    One that can also look at an account without a password is a `ChecksAccounts` (account_check.py).
    """

    @property
    def workers(self) -> int:
        """The most checks that may run at once."""

    @property
    def refusal_s(self) -> float:
        """How soon after the question a login may be refused; 0 where each check does the same work.

        It holds for all that comes after `verify` too: a limit, a code, a revocation.
        """

    def verify(self, username: str, password: Secret) -> Accepted | Refused:
        """Who this is, or a refusal. Blocks.

        Raises:
            SiteError, RemoteError: It cannot be told, whoever asks.
        """

    def check(self) -> None:
        """Return where the proof's own files are in order, as far as can be told; ConfigError otherwise."""


def unusable_reason(username: str, password: Secret) -> str:
    """Why a pair can never be right, whatever the site's accounts are; empty where it might."""
    if not is_safe_account_name(username):
        return "unsafe account name"
    value = password.reveal()
    # PAM takes C strings: what follows a NUL would not be compared.
    if not value or len(value) > MAX_PASSWORD_LENGTH or "\0" in value or not _is_unicode(value):
        return "unusable password"
    return ""


def _is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8; one with half a surrogate pair cannot."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


class PamProof:
    """Asks the machine's own PAM stack: authentication, then account management.

    Each check is a process of its own. PAM modules are not thread-safe, may hang, and have no
    business in a process that holds the CA key.
    """

    workers = 8
    refusal_s = 0.0

    def __init__(self, service: str, timeout_s: float = 30.0) -> None:
        self.service = service
        self.timeout_s = timeout_s

    def verify(self, username: str, password: Secret) -> Accepted | Refused:
        """PAM's answer. SiteError where PAM cannot be asked, RemoteError where it does not answer."""
        unusable = unusable_reason(username, password)
        if unusable:
            # The same work, for a name that no site has; the answer is not looked at.
            self._ask(f"x{secrets.token_hex(12)}", secrets.token_hex(16))
            return Refused(unusable)
        accepted, said = self._ask(username, password.reveal())
        if not accepted:
            return Refused(f"PAM: {said}")
        account = said
        if not is_safe_account_name(account):
            return Refused("PAM: unsafe account name")
        return Accepted(account, "password")

    def account_problem(self, account: str) -> str:
        """What PAM's account management has against an account now, or "".

        Raises:
            SiteError: It cannot be told: the directory is away, say. That is no reason to lock anybody out.
            RemoteError: PAM does not answer.
        """
        answer = self._answer({"username": account})
        if answer.ok is None:
            raise SiteError(f"PAM cannot tell whether {account} may log in: {answer.said}.")
        return "" if answer.ok else f"PAM: {answer.said}"

    def check(self) -> None:
        """The service has a file of its own: without one, PAM would ask `other`, which refuses all."""
        if not any((Path(folder) / self.service).is_file() for folder in _PAM_FOLDERS):
            raise ConfigError(f"PAM has no service {self.service!r}.", f"Write /etc/pam.d/{self.service}.")

    def _ask(self, username: str, password: str) -> tuple[bool, str]:
        """Whether PAM accepts the pair, and the account or the reason."""
        answer = self._answer({"username": username, "password": password})
        return answer.ok is True, answer.said

    def _answer(self, question: dict[str, str]) -> Answer:
        child = Path(__file__).with_name("pam_child.py")
        return ask_child(child, question | {"service": self.service}, self.timeout_s)
