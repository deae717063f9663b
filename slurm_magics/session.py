"""What all magics of one kernel share: how commands are run, what was answered a moment ago, settings."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from hpchub.core.command import Command, CommandResult
from hpchub.errors import UnexpectedOutput
from slurm_magics.accounting import PipedQuery
from slurm_magics.delimited import new_mark
from slurm_magics.done import Cut, Done, Take, as_text
from slurm_magics.errors import Interrupted, SlurmError, failed, refused, translated
from slurm_magics.interrupts import raised_at_once
from slurm_magics.machine import Machine
from slurm_magics.memory import give_back
from slurm_magics.output import Live
from slurm_magics.queries import Query, plan
from slurm_magics.settings import Settings

if TYPE_CHECKING:
    import pandas as pd


# What people set for their own listings would hide jobs that we ask about: squeue(1), ENVIRONMENT VARIABLES.
UNFILTERED = dict.fromkeys((
    "SQUEUE_ACCOUNT", "SQUEUE_LICENSES", "SQUEUE_NAMES", "SQUEUE_PARTITION", "SQUEUE_QOS", "SQUEUE_STATES",
    "SQUEUE_USERS",
))  # fmt: skip
# Else Slurm shortens a list of many tasks to `42_[1,3,7,...]`.
WHOLE_LISTS = {"SLURM_BITSTR_LEN": "0"}
# Of so many rows and more it is worth while to give back what reading them needed.
_MANY_ROWS = 5000


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command printed."""

    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """Its standard output; bytes that are no UTF-8 are shown as `\\xff`."""
        return as_text(self.stdout)


@dataclass(frozen=True, slots=True)
class _Known:
    """What was answered a moment ago. Everybody gets a copy of a frame: people change theirs."""

    found: pd.DataFrame | str
    asked: float


class Session:
    """One kernel's. Its methods may be called from several threads."""

    def __init__(self, machine: Machine, settings: Settings) -> None:
        self.machine = machine
        self.settings = settings
        self._known: dict[tuple[object, ...], _Known] = {}
        self._lock = threading.Lock()

    @raised_at_once()
    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        environ: Mapping[str, str | None] | None = None,
        cwd: PurePath | None = None,
        endless: bool = False,
        live: Live | None = None,
        take: Take | None = None,
    ) -> Answer:
        """Run a command to its end.

        Args:
            argv: The command.
            stdin: Its standard input.
            environ: Variables to set, and to take out where they are None.
            cwd: The folder to run it in.
            endless: It runs a program for as long as that runs: no time limit, and what was printed is shown
                where it fails or is interrupted.
            live: Shows what it prints as it comes.
            take: Is given its standard output as it comes, which then is not in the answer.

        Raises:
            SlurmError: It is not there, took too long, or ended with an exit code other than zero.
            Interrupted: Somebody pressed Ctrl-C.
        """
        limit_s = None if endless else self.settings.timeout_s
        # sacctmgr asks back, and would ask for ever at the end of the file.
        try:
            script = (stdin or ("n\n" if argv[0] == "sacctmgr" else "")).encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            line = stdin.count("\n", 0, error.start) + 1
            raise SlurmError(
                f"Line {line} of the script has half a character, which no file can hold."
            ) from error
        try:
            done = self.machine.run(
                argv, stdin=script, environ=environ, cwd=cwd, limit_s=limit_s, show=live, take=take
            )
        except Cut as cut:
            if endless:
                _pass_on(_without_own_lines(argv[0], _unshown(cut.said, live)), live)
            raise Interrupted(argv[0], doubt=cut.doubt) from None
        except KeyboardInterrupt:
            raise Interrupted(argv[0], doubt="was given up" if endless else "") from None
        finally:
            if live:
                live.close()
        stderr = as_text(done.stderr)
        if done.exit_code and endless:
            # A program's own: what it printed before it failed, and why it did.
            is_shown = _pass_on(_unshown(done, live), live)
            raise failed(argv[0], done.exit_code, _own_lines(argv[0], done), stderr, is_shown=is_shown)
        if done.exit_code:
            raise refused(argv[0], done.exit_code, as_text(done.stdout), stderr)
        return Answer(done.stdout, stderr)

    @raised_at_once()
    def result(self, command: Command, environ: Mapping[str, str]) -> CommandResult:
        """What a command of hpchub's schedulers left; their parsers know what a failure means."""
        limit_s, variables = self.settings.timeout_s, {**UNFILTERED, **WHOLE_LISTS, **environ}
        done = self.machine.run(command.argv, stdin=command.stdin, environ=variables, limit_s=limit_s)
        stdout, stderr = (text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
        return CommandResult(exit_code=done.exit_code, stdout=stdout, stderr=stderr)

    def table(self, tool: str, words: Sequence[str]) -> pd.DataFrame | str:
        """What a table's command answers; the same question again within seconds is not asked again.

        Raises:
            SlurmError: As `run`, and where the answer is no table.
        """
        formats = tuple(self.machine.environ.get(f"{tool.upper()}_{name}") for name in ("FORMAT", "FORMAT2"))
        key = (tool, tuple(words), self.settings.display, formats)
        with self._lock:
            oldest = time.monotonic() - self.settings.fresh_s
            self._known = {known: one for known, one in self._known.items() if one.asked > oldest}
            if key not in self._known:
                self._known[key] = self._ask(tool, words)
            known = self._known[key]
        return known.found if isinstance(known.found, str) else _copy(known.found)

    def _ask(self, tool: str, words: Sequence[str]) -> _Known:
        is_frame = self.settings.display == "frames"
        query = plan(tool, words, self.machine.environ, new_mark()) if is_frame else None
        if query:
            return _Known(self.frame(query), time.monotonic())
        answer = self.run((tool, *words))
        _show(answer.stderr)
        return _Known(answer.text, time.monotonic())

    def frame(self, query: Query) -> pd.DataFrame:
        """Run a query now and read it.

        Raises:
            SlurmError: As `run`, and where the answer is no table.
        """
        try:
            if isinstance(query, PipedQuery):
                query, answer = self._answered(query)
                _show(answer.stderr)
                frame, notices = query.frame(answer.stdout, self.machine.zone)
            else:
                reading = query.reading(self.machine.zone)
                environ = {**WHOLE_LISTS, **query.environ}
                _show(self.run(query.argv, environ=environ, take=reading.feed).stderr)
                frame, notices = reading.frame()
                del reading
                if len(frame) > _MANY_ROWS:
                    give_back()
        except UnexpectedOutput as error:
            raise translated(error) from error
        _show("\n".join(notices))
        return frame

    def _answered(self, query: PipedQuery) -> tuple[PipedQuery, Answer]:
        """The answer, and the query that it belongs to: where names hold pipes or line ends, another one."""
        try:
            answer = self.run(query.argv, environ={**WHOLE_LISTS, **query.environ})
        except SlurmError as error:
            if not query.older or "Unknown field" not in error.stderr:
                raise
            return self._answered(query.older)
        try:
            instead = query.instead(answer.stdout)
        except UnexpectedOutput as error:
            # Refusals with exit code 0: they are said on either stream.
            raise refused(query.argv[0], 0, answer.text, answer.stderr) from error
        return (instead, self.run(instead.argv, environ=instead.environ)) if instead else (query, answer)

    def forget(self) -> None:
        """Forget what was answered: something has been changed."""
        with self._lock:
            self._known.clear()


def _copy(frame: pd.DataFrame) -> pd.DataFrame:
    """One that can be changed without the other. pandas 3 copies a column only when it is changed."""
    import pandas as pd

    return frame.copy(deep=int(pd.__version__.partition(".")[0]) < 3)


def _show(notices: str) -> None:
    """What a command says beside its answer stays visible, and breaks nothing."""
    if notices.strip():
        print(notices.strip(), file=sys.stderr)


def _pass_on(said: Done, live: Live | None) -> bool:
    """Show what a program printed that gives no result; whether all of its standard error could be shown."""
    live = live or Live()
    live(said.stdout, False)
    live(said.stderr, True)
    live.close()
    return True not in live.lost


def _unshown(said: Done, live: Live | None) -> Done:
    """What has not been shown as it came."""
    if live is None:
        return said
    return Done(said.exit_code, said.stdout[live.shown[False] :], said.stderr[live.shown[True] :])


def _own_lines(tool: str, done: Done) -> str:
    """What the command itself said: the rest is of the program that it ran."""
    own = [line for line in as_text(done.stderr).split("\n") if line.startswith(f"{tool}: ")]
    return "\n".join(own) or f"{tool}: it ended with exit code {done.exit_code}"


def _without_own_lines(tool: str, said: Done) -> Done:
    """What the program said: of an interrupt the command itself would tell much."""
    own = (f"{tool}: ".encode(), b"slurmstepd")
    lines = [line for line in said.stderr.splitlines(keepends=True) if not line.startswith(own)]
    return Done(said.exit_code, said.stdout, b"".join(lines))
