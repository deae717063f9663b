"""What a magic raises: Slurm's words and what to do, without a traceback page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hpchub.core.command import CommandResult
from hpchub.errors import HpchubError, SchedulerUnavailable, UnexpectedOutput
from hpchub.schedulers.slurm_errors import failure, known_hint, rejection

if TYPE_CHECKING:
    from slurm_magics.job import Job

_UNANSWERED = re.compile(r"^Slurm did not answer (\w+)")
# These ask slurmdbd, all others slurmctld.
_OF_ACCOUNTING = frozenset({"sacct", "sacctmgr", "sreport"})
# These are refused in the words in which sbatch is.
_ALLOCATORS = frozenset({"srun", "salloc"})
_WITHOUT_CONTROLLER = "It may pass by itself. %sacct answers without the controller."
_WITHOUT_ACCOUNTING = "It may pass by itself. %squeue answers without the accounting."
MAY_BE_QUEUED = "The job may be in the queue all the same: look with %squeue --me before trying again."
_MAY_GO_ON = "What it had begun may go on: look with %squeue --me."
# What an interrupt leaves, in words.
_AFTER_INTERRUPT = {
    "srun": "srun was ended, and what it had begun in the cluster is cancelled.",
    "salloc": "salloc was ended, and its allocation given back.",
    "sattach": "sattach was ended; the job goes on.",
}

_NOT_YOURS = "It belongs to somebody else, or only the site's staff may do that."
# The last where the site has PrivateData=jobs.
_NO_SUCH_JOB = (
    "It has left the queue, never was there, or is somebody else's. %sacct -j ID knows jobs that have ended."
)
# Slurm's words, and what to do at the prompt. What hpchub's own hints say is for its form.
_HINTS = (
    ("Invalid partition", "%sinfo lists the partitions."),
    ("invalid partition", "%sinfo lists the partitions."),
    ("Invalid job id", _NO_SUCH_JOB),
    ("Invalid account", "%sacctmgr show assoc user=NAME lists the accounts that you may charge."),
    ("Invalid user id", _NOT_YOURS),
    ("Invalid time specification", "Write now-1hour, now-7days, 2026-01-31 or 2026-01-31T12:00."),
    (
        "Unrecognized option: ",
        "What a shell makes of |, >, ; and # does not happen here. --as NAME keeps the answer.",
    ),
    ("Invalid user", "Give a login name that this machine knows."),
    ("Slurm accounting storage is disabled", "This site keeps no accounting; %squeue knows the newest jobs."),
    ("Access/permission denied", _NOT_YOURS),
    ("unrecognized option", "%{tool} --help lists the options."),
    ("invalid option", "%{tool} --help lists the options."),
    ("requires an argument", "%{tool} --help lists the options."),
    ("Batch script is empty", "Name a script: %sbatch run.sh. Or write one into a cell, below %%sbatch."),
    ("Unable to open file", "A script for %sbatch must be a file that is there; %%sbatch takes the cell."),
    ("Invalid --time specification", "Write minutes, HH:MM:SS or D-HH:MM:SS: --time 90, --time 01:30:00."),
    ("(N/y)", "Nobody can be asked back, so that the answer was no. -i says yes beforehand."),
    ("Unknown field", "Slurm's manual page of %{tool} lists the fields."),
    ("Invalid field requested", "%{tool} --helpformat lists the fields."),
)


class SlurmError(HpchubError):
    """A command refused, failed or is not there. `stderr` has all that it said.

    `retryable`: it may pass by itself, so that who waits for a job goes on waiting. `brief` is shown in place
    of a message that stands above already.
    """

    def __init__(self, message: str, hint: str = "", *, stderr: str = "", retryable: bool = False) -> None:
        super().__init__(message, hint, retryable=retryable)
        self.stderr = stderr
        self.brief = ""

    def _render_traceback_(self) -> list[str]:
        """IPython's own hook: what it shows in place of a traceback."""
        return [f"{type(self).__name__}: {self.brief or self.message}", *([self.hint] if self.hint else [])]


class NotEnded(SlurmError, TimeoutError):
    """A job has not ended within the time for which somebody wanted to wait. It goes on."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or the stop button, while a command ran. `job` is what it has submitted all the same.

    `doubt`: as `Cut`'s.
    """

    def __init__(self, tool: str, job: Job | None = None, *, doubt: str = "") -> None:
        words = _AFTER_INTERRUPT.get(tool, f"{tool} was given up.")
        if doubt:
            words = f"{tool} {doubt}. {_MAY_GO_ON}"
        if job is not None:
            cluster = f"-M {job.cluster} " if job.cluster else ""
            words = f"{job} has been submitted and goes on; %scancel {cluster}{job.id} ends it."
        super().__init__(words)
        self.job = job

    def _render_traceback_(self) -> list[str]:
        """IPython's own hook: what it shows in place of a traceback."""
        return [f"Interrupted: {self}"]


def failed(tool: str, exit_code: int, own_words: str, stderr: str, *, is_shown: bool) -> SlurmError:
    """The error of a command that ran a program: of what it printed only its own words are looked at.

    Where all of that has been shown, the words are not shown again.
    """
    error = refused(tool, exit_code, "", own_words)
    error.stderr = stderr
    if is_shown and error.message.startswith(f"{tool}: "):  # its words, and not what they mean
        error.brief = f"{tool} ended with exit code {exit_code}."
    return error


def refused(tool: str, exit_code: int, stdout: str, stderr: str) -> SlurmError:
    """The error of a command that ended with an exit code other than zero."""
    result = CommandResult(exit_code=exit_code, stdout=stdout, stderr=stderr)
    error = failure(tool, result)
    if isinstance(error, UnexpectedOutput):
        error = (rejection(result) if tool == "sbatch" else None) or _own_words(tool, result)
    if isinstance(error, SchedulerUnavailable):
        return _outage(tool, error, stderr)
    hint = next((hint for words, hint in _HINTS if words in f"{stderr}\n{stdout}"), error.hint)
    return SlurmError(error.message, hint.replace("{tool}", tool), stderr=stderr, retryable=error.retryable)


def _outage(tool: str, error: SchedulerUnavailable, stderr: str = "") -> SlurmError:
    """Which part of Slurm is away, and what can be done meanwhile."""
    part = "accounting (slurmdbd)" if tool in _OF_ACCOUNTING else "controller (slurmctld)"
    hint = error.hint
    if tool == "sbatch" and error.retryable:
        hint = "Nothing was submitted: try again later."
    elif tool in _OF_ACCOUNTING:
        hint = _WITHOUT_ACCOUNTING
    elif error.retryable:
        hint = _WITHOUT_CONTROLLER
    message = _UNANSWERED.sub(rf"Slurm's {part} did not answer \1", error.message)
    return SlurmError(message, hint, stderr=stderr, retryable=error.retryable)


def translated(error: HpchubError, retryable: bool | None = None) -> SlurmError:
    """An error of hpchub's own, to be shown as the magics show theirs."""
    passes = error.retryable if retryable is None else retryable
    if isinstance(error, SchedulerUnavailable) and (match := _UNANSWERED.match(error.message)):
        return _outage(match[1], error)
    return SlurmError(error.message, error.hint, retryable=passes)


def is_passing(error: HpchubError) -> bool:
    """Whether somebody who waits should go on: all but what the person must mend.

    An answer that nobody can read decides nothing either.
    """
    return error.retryable or isinstance(error, UnexpectedOutput)


def _own_words(tool: str, result: CommandResult) -> HpchubError:
    lines = [line.strip() for line in (result.stderr or result.stdout).split("\n") if line.strip()]
    kept = [line.removeprefix(f"{tool}: ").removeprefix("error: ").removeprefix("fatal: ") for line in lines]
    words = " ".join(kept[:6]) or f"it ended with exit code {result.exit_code} and said nothing"
    return HpchubError(f"{tool}: {words}", known_hint(words) if tool in _ALLOCATORS else "")
