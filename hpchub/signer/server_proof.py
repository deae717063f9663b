"""What the proofs have in common that ask a server of the site: a directory, or a Kerberos KDC."""

from __future__ import annotations

import secrets
import time
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

    A server looks longer at a password whose user it knows: it has a hash to compute. So each refusal
    waits until `refusal_s` after the question; an answer within that time says nothing by its moment.
    """

    workers = 16  # mostly idle: they wait for the server, or for a refusal's moment
    name: ClassVar[str]

    def __init__(self, refusal_s: float = 1.0) -> None:
        self.refusal_s = refusal_s

    def verify(self, username: str, password: Secret) -> Accepted | Refused:
        """The server's answer.

        Raises:
            SiteError: The proof's own files or settings are wrong.
            RemoteError: No server could tell.
        """
        began = time.monotonic()
        verdict = self._verdict(username, password)
        if isinstance(verdict, Refused):
            time.sleep(max(0.0, began + self.refusal_s - time.monotonic()))
        return verdict

    @abstractmethod
    def check(self) -> None:
        """Return where the proof's own files are in order; ConfigError otherwise."""

    @abstractmethod
    def _ask(self, username: str, password: str) -> Answer:
        """The server's answer about a pair that might be right."""

    def _verdict(self, username: str, password: Secret) -> Accepted | Refused:
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

    def _told(self, username: str, password: str) -> Answer:
        answer = self._ask(username, password)
        if answer.ok is None:
            cause = CannotTell(f"{self.name}: {answer.said}")
            raise RemoteError("Passwords cannot be checked now.", "Try again later.") from cause
        return answer
