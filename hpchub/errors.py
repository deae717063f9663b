"""Every error hpchub raises on purpose, in one tree.

    HpchubError(message, hint, retryable)      message and hint are safe to show to anyone
    ├─ UserError                   4xx  the person can mend it
    │    ├─ InvalidRequest              a value is out of range; `fields` names which
    │    ├─ NotAllowed                  wrong credential, someone else's account
    │    │    ├─ EnrolmentRequired      right credential; `ticket` lets set up a second factor, no more
    │    │    └─ NoSession              the login has ended; what waits for it waits for the next one
    │    ├─ AccountProblem              home full, login shell exits, no scheduler association
    │    ├─ TooManyServers              a cap of the cluster file is reached
    │    ├─ SubmitRejected              the scheduler refused the job, in its own words
    │    └─ StartFailed                 the job or server died while starting; `log_tail` says how
    │         └─ GivenUp                somebody no longer wanted what waited to start
    ├─ SiteError                   5xx  the staff can mend it
    │    ├─ ConfigError                 a cluster file or setting is wrong; `problems` lists all
    │    │    └─ StoreTaken             another bridge uses the hub's own database
    │    ├─ StoreUnavailable            the hub's own database cannot be written
    │    └─ UnexpectedOutput            a command answered with something nobody can read
    └─ RemoteError                 503  nobody needs to: it may pass
         ├─ SchedulerUnavailable
         ├─ HostUnreachable
         │    └─ NotListening           the host is there, the server's socket is not, or no longer
         ├─ ProcessAway                 one of the hub's own: bridge, signer, key agent
         ├─ HostKeyMismatch             never retried
         └─ CertificateExpired

A message says what happened, to which job or host; the hint says what to do. Errors cross the
processes' unix sockets as JSON (`to_wire`, `from_wire`) and come out as the class that went in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class HpchubError(Exception):
    """Base of the tree. `status` is the HTTP status an edge answers with."""

    status: ClassVar[int] = 500
    retryable_by_default: ClassVar[bool] = False
    details: ClassVar[tuple[str, ...]] = ()

    def __init__(self, message: str, hint: str = "", *, retryable: bool | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retryable = self.retryable_by_default if retryable is None else retryable

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UserError(HpchubError):
    """The person who asked can mend it."""

    status = 400


class InvalidRequest(UserError):
    """A value is missing, malformed or out of range.

    `fields` maps the name of each refused field to what is wrong with it and what is allowed.
    """

    status = 422
    details = ("fields",)

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        fields: Mapping[str, str] | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message, hint, retryable=retryable)
        self.fields = dict(fields or {})


class NotAllowed(UserError):
    """Refused: the credential is wrong, the session has ended, or it is somebody else's."""

    status = 403


class EnrolmentRequired(NotAllowed):
    """The credential is right, and the account needs a second factor that it has not set up.

    `ticket` is for the page that does, and for nobody else to see.
    """

    details = ("ticket",)

    def __init__(
        self, message: str, hint: str = "", *, ticket: str = "", retryable: bool | None = None
    ) -> None:
        super().__init__(message, hint, retryable=retryable)
        self.ticket = ticket


class NoSession(NotAllowed):
    """The person's login has ended. What runs goes on, and is reached again after the next one."""


class AccountProblem(UserError):
    """The person's account on the cluster stands in the way: home, shell or association."""

    status = 409


class TooManyServers(UserError):
    """The person, or everybody together, has as many servers as the cluster file allows."""

    status = 409


class SubmitRejected(UserError):
    """The scheduler refused the job; the message carries its own words."""

    status = 409


class StartFailed(UserError):
    """The job or server died before it was ready. `log_tail` holds the last lines of its log."""

    status = 409
    details = ("log_tail", "log_path")

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        log_tail: str = "",
        log_path: str = "",
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message, hint, retryable=retryable)
        self.log_tail = log_tail
        self.log_path = log_path


class GivenUp(StartFailed):
    """It had not begun when somebody no longer wanted it."""


class SiteError(HpchubError):
    """The site's staff can mend it."""


class ConfigError(SiteError):
    """A cluster file or setting is wrong. `problems` holds one line for each thing found."""

    details = ("problems",)

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        problems: Sequence[str] = (),
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message, hint, retryable=retryable)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join((super().__str__(), *self.problems))


class StoreTaken(ConfigError):
    """Another bridge uses the hub's own database; this one writes nothing there."""


class StoreUnavailable(SiteError):
    """The hub's own database cannot be written: its disk is full, say. What runs goes on."""

    status = 503


class UnexpectedOutput(SiteError):
    """A command answered with something its parser does not know; `excerpt` is its start."""

    status = 502
    details = ("command", "excerpt")

    EXCERPT_LENGTH = 200

    def __init__(self, command: str, excerpt: str, *, retryable: bool | None = None) -> None:
        shown = excerpt[: self.EXCERPT_LENGTH]
        super().__init__(f"{command} answered with something unexpected: {shown!r}", retryable=retryable)
        self.command = command
        self.excerpt = shown


class RemoteError(HpchubError):
    """Something on the way is down or slow; it may pass by itself."""

    status = 503
    retryable_by_default = True


class SchedulerUnavailable(RemoteError):
    """The scheduler did not answer, or answered that it cannot."""


class HostUnreachable(RemoteError):
    """No login node, or not the node asked for, could be reached."""


class NotListening(HostUnreachable):
    """Nothing listens on a server's socket yet, or any more. Cheap to try again."""


class ProcessAway(RemoteError):
    """The bridge, the signer or the key agent does not answer. They are restarted within seconds."""


class HostKeyMismatch(RemoteError):
    """A host showed a key that the cluster file does not know. Never retried."""

    retryable_by_default = False


class CertificateExpired(RemoteError):
    """The certificate ran out and could not be minted again."""

    retryable_by_default = False


def to_wire(error: HpchubError) -> dict[str, Any]:
    """The JSON shape of an error on our unix sockets."""
    return {
        "error": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "retryable": error.retryable,
        **{name: getattr(error, name) for name in error.details},
    }


def from_wire(body: Mapping[str, Any]) -> HpchubError:
    """The error that `to_wire` wrote. An unknown class comes back as HpchubError."""
    kind = _KINDS.get(str(body.get("error")), HpchubError)
    details = {name: body[name] for name in kind.details if name in body}
    if kind is UnexpectedOutput:
        return UnexpectedOutput(details["command"], details["excerpt"], retryable=body.get("retryable"))
    return kind(
        str(body.get("message", "no message")),
        str(body.get("hint", "")),
        retryable=body.get("retryable"),
        **details,
    )


def _tree(kind: type[HpchubError]) -> dict[str, type[HpchubError]]:
    found = {kind.__name__: kind}
    for child in kind.__subclasses__():
        found |= _tree(child)
    return found


_KINDS = _tree(HpchubError)
