"""How a person proves who they are. One small interface; the password file and PAM are two of it.

A proof does the same work whether the name is unknown, unsafe, locked or merely given with a wrong
password, and its true reason goes to the audit log only.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hpchub.core.secret import Secret
from hpchub.core.slugs import is_safe_account_name
from hpchub.errors import ConfigError, RemoteError, SiteError

MAX_PASSWORD_LENGTH = 1024

# <security/_pam_types.h>: PERM_DENIED, AUTH_ERR, ACCT_EXPIRED. USER_UNKNOWN may be a directory that is away.
_LOCKED = frozenset({6, 7, 13})

_PAM_FOLDERS = ("/etc/pam.d", "/usr/lib/pam.d", "/usr/share/pam.d")  # pam.d(5), and where vendors put them


@dataclass(frozen=True, slots=True)
class Accepted:
    """Proven: the account, and the factor that proved it, in one word for the audit log."""

    account: str
    factor: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Not proven. `reason` is for the audit log alone; the person is never told."""

    reason: str


class Proof(Protocol):
    """Checks a username and a secret. `workers` is how many may run at once, each in a thread."""

    @property
    def workers(self) -> int:
        """The most checks that may run at once."""

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
        answer = self._answer({"service": self.service, "username": account})
        if answer["ok"] is True:
            return ""
        if answer.get("errno") in _LOCKED:
            return f"PAM: {answer['said']}"
        raise SiteError(f"PAM cannot tell whether {account} may log in: {answer['said']}.")

    def check(self) -> None:
        """The service has a file of its own: without one, PAM would ask `other`, which refuses all."""
        if not any((Path(folder) / self.service).is_file() for folder in _PAM_FOLDERS):
            raise ConfigError(f"PAM has no service {self.service!r}.", f"Write /etc/pam.d/{self.service}.")

    def _ask(self, username: str, password: str) -> tuple[bool, str]:
        """Whether PAM accepts the pair, and the account or the reason."""
        answer = self._answer({"service": self.service, "username": username, "password": password})
        return answer["ok"] is True, str(answer["said"])

    def _answer(self, question: dict[str, str]) -> dict[str, Any]:
        child = Path(__file__).with_name("pam_child.py")
        try:
            done = subprocess.run(  # nothing of the person's in argv
                [sys.executable, "-I", str(child)],
                input=json.dumps(question).encode(),
                capture_output=True,
                timeout=self.timeout_s,
                check=False,
                env={"LANG": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                cwd="/",
            )
            # The last line: a PAM module may have printed lines of its own before it.
            answer = json.loads(done.stdout.split(b"\n")[-1])
            return {"ok": answer["ok"], "said": answer["said"], "errno": answer.get("errno")}
        except subprocess.TimeoutExpired:
            # Not chained: the exception carries what went in.
            raise RemoteError("The site's login check did not answer in time.", "Try again later.") from None
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise SiteError("The site's login check does not work.", "Tell the site's staff.") from error
