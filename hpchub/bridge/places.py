"""What a server's life needs of the place it runs in. `in_job` and `on_login_node` provide it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hpchub.errors import HpchubError
from hpchub.ssh.attach import Attachment


@dataclass(frozen=True, slots=True)
class Verdict:
    """A server is gone for certain. `error` is None where it ended well."""

    error: HpchubError | None
    native_state: str = ""


class Place(Protocol):
    """One server's place. Every method may raise any HpchubError; a RemoteError may pass."""

    @property
    def runtime_dir(self) -> str:
        """The launcher's own folder on the node."""

    async def submit(self) -> None:
        """Make the folder and hand the server to the scheduler or the node."""

    async def until_running(self) -> None:
        """Return once the server's process can be reached; raise where it never will."""

    async def attach(self) -> Attachment:
        """A way to the sockets of the server."""

    async def check_owner(self) -> None:
        """Return where the server's sockets are the account's own; NotAllowed where they are not."""

    async def verdict(self) -> Verdict | None:
        """Whether the server is gone for certain; None where it lives or nobody can tell."""

    async def cancel(self) -> None:
        """End the server, and return once it is gone."""

    async def clean_up(self, *, keep_log: bool) -> None:
        """Remove the folder, or all of it but the log."""
