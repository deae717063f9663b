"""A command for another machine, and what came back of it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """An argv, not shell text: it is quoted once, at the SSH edge.

    `stdin` may hold a script or a secret and so is left out of `repr`. `timeout_s` bounds the
    whole run, in seconds.
    """

    argv: tuple[str, ...]
    stdin: bytes = field(default=b"", repr=False)
    timeout_s: float = 30.0

    @property
    def name(self) -> str:
        """The program's name, for messages and logs. What `env` sets before it is none."""
        words = self.argv
        if words[0] == "env":
            words = tuple(word for word in words[1:] if "=" not in word) or words
        return words[0].rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """What a command left: exit code (negative: killed by that signal), stdout, stderr.

    Text is decoded as UTF-8 with `surrogateescape`, so any byte survives a round trip.
    `noise` is what the login shell printed before the command began.
    """

    exit_code: int
    stdout: str = ""
    stderr: str = ""
    noise: str = ""
