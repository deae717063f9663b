"""What the proofs have in common that ask a server of the site: a directory, or a Kerberos KDC."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from typing import ClassVar

from hpchub.core.secret import Secret
from hpchub.core.slugs import is_safe_account_name
from hpchub.errors import RemoteError
from hpchub.signer.child import Answer
from hpchub.signer.proofs import Accepted, Refused, unusable_reason


class CannotTell(Exception):
    """The cause of an error: for the audit log, never for the person."""


class ServerProof(ABC):
    """Asks the server the same question for everybody, and tells nobody a refusal sooner than others.

    A server looks longer at a password whose user it knows: it has a hash to compute. So nobody is told a
    refusal, for whatever reason, before `refusal_s` after the question: within that time an answer's moment
    says nothing.
    """

    workers = 16  # mostly idle: they wait for the server
    name: ClassVar[str]

    def __init__(self, refusal_s: float = 1.0) -> None:
        self.refusal_s = refusal_s

    def verify(self, username: str, password: Secret) -> Accepted | Refused:
        """The server's answer.

        Raises:
            SiteError: The proof's own files or settings are wrong.
            RemoteError: No server could tell.
        """
        unusable = unusable_reason(username, password)
        if unusable:
            # The same work, for a name that no site has.
            self._told(f"x{secrets.token_hex(12)}", secrets.token_hex(16))
            return Refused(unusable)
        answer = self._told(username, password.reveal())
        if not answer.ok:
            return Refused(f"{self.name}: {answer.said}")
        if not is_safe_account_name(answer.said):
            return Refused(f"{self.name}: unsafe account name")
        return Accepted(answer.said, "password")

    @abstractmethod
    def check(self) -> None:
        """Return where the proof's own files are in order; ConfigError otherwise."""

    @abstractmethod
    def _ask(self, username: str, password: str) -> Answer:
        """The server's answer about a pair that might be right."""

    def _told(self, username: str, password: str) -> Answer:
        return self._sure(self._ask(username, password), "Passwords")

    def _sure(self, answer: Answer, what: str) -> Answer:
        """An answer that is yes or no. RemoteError where no server could tell."""
        if answer.ok is None:
            cause = CannotTell(f"{self.name}: {answer.said}")
            raise RemoteError(f"{what} cannot be checked now.", "Try again later.") from cause
        return answer
