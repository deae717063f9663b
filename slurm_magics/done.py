"""What a command leaves behind, and what is said where it leaves nothing. No input or output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePath

from slurm_magics.errors import MAY_BE_QUEUED, SlurmError

# A line for each of some million jobs; what says more would fill the kernel's memory.
MOST_BYTES = 1 << 29
# Is given each piece of what a command prints as it comes, and whether it is of its standard error. The
# streams may come from two threads.
Show = Callable[[bytes, bool], None]
# Is given each piece of a command's standard output, which then is not kept.
Take = Callable[[bytes], None]
# Of what is taken so much is kept all the same, for the words of a failure.
_KEPT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left: its exit code and both streams, as bytes.

    Where the standard output was taken as it came, only its beginning is here.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes


def as_text(said: bytes) -> str:
    """What a command said, as text; bytes that are no UTF-8 are shown as `\\xff`."""
    return said.decode("utf-8", "backslashreplace")


class Cut(KeyboardInterrupt):
    """Ctrl-C while a command ran; `said` is what it had printed until then.

    `doubt`: why it is not known that it has cancelled what it had begun, as the end of a sentence.
    """

    def __init__(self, said: Done, *, doubt: str = "") -> None:
        super().__init__("while a command ran")
        self.said = said
        self.doubt = doubt

    def _render_traceback_(self) -> list[str]:
        """IPython's own hook: what it shows in place of a traceback."""
        return ["Interrupted."]


@dataclass(slots=True)
class Said:
    """What a command has printed so far. May be filled by two threads, one for each stream.

    `mark`: a line of each stream, if there is one, before which somebody else speaks.
    """

    tool: str
    show: Show | None = None
    take: Take | None = None
    mark: bytes = b""
    stdout: list[bytes] = field(default_factory=list)
    stderr: list[bytes] = field(default_factory=list)
    _sizes: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    # What came before the mark; None behind it.
    _before: dict[bool, bytes | None] = field(init=False)

    def __post_init__(self) -> None:
        self._before = dict.fromkeys((True, False), b"" if self.mark else None)

    def add(self, piece: bytes, *, is_error: bool = False) -> None:
        """One more piece.

        Raises:
            SlurmError: It is too much, and not kept.
        """
        self._sizes[is_error] += len(piece)
        self.check()
        before = self._before[is_error]
        if before is not None:
            before, found, piece = (before + piece).partition(self.mark)
            self._before[is_error] = None if found else before
        if piece:
            self._keep(piece, is_error)
            show = self.show  # another thread may end that
            if show:
                show(piece, is_error)

    def _keep(self, piece: bytes, is_error: bool) -> None:
        kept = self.stderr if is_error else self.stdout
        if not self.take or is_error:
            kept.append(piece)
            return
        self.take(piece)
        if (room := _KEPT_BYTES - sum(map(len, kept))) > 0:
            kept.append(piece[:room])

    @property
    def unbegun(self) -> bytes | None:
        """All that was said, where the mark has not come; None where it has."""
        return None if self._before[False] is None else self._before[True] or self._before[False]

    def check(self) -> None:
        """SlurmError where it is too much."""
        if max(self._sizes.values()) > MOST_BYTES:
            raise SlurmError(
                f"{self.tool} printed more than {MOST_BYTES >> 20} MB, and was ended.",
                "Let it print to a file, or ask about less.",
            )

    def done(self, exit_code: int) -> Done:
        """All of it."""
        return Done(exit_code, b"".join(self.stdout), b"".join(self.stderr))


def too_slow(tool: str, limit_s: float) -> SlurmError:
    """The error of a command that has not ended in its time."""
    hint = "Slurm may be slow or away; %slurm timeout 300 waits longer."
    if tool == "sbatch":
        hint = MAY_BE_QUEUED
    return SlurmError(f"{tool} has not answered within {limit_s:g} s.", hint, retryable=tool != "sbatch")


def too_long(path: PurePath, size: int) -> SlurmError:
    """The error of a file that has more bytes than a notebook should hold."""
    return SlurmError(
        f"{path} is too long to be read at once: {size >> 20} MB.", "job.tail(100) shows its last lines."
    )
