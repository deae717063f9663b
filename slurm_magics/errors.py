"""What a magic raises: Slurm's words and what to do, without a traceback page."""

from __future__ import annotations

from hpchub.core.command import CommandResult
from hpchub.errors import HpchubError, UnexpectedOutput
from hpchub.schedulers.slurm_errors import failure, rejection

# Slurm's words, and what to do at the prompt. What hpchub's own hints say is for its form.
_HINTS = (
    ("Unable to contact slurm controller", "It may pass by itself. %sacct answers without the controller."),
    ("Invalid partition", "%sinfo lists the partitions."),
    ("invalid partition", "%sinfo lists the partitions."),
    ("Invalid job id", "It has left the queue or never was there. %sacct -j ID knows jobs that have ended."),
    ("Invalid account", "%sacctmgr show assoc user=NAME lists the accounts that you may charge."),
    ("Invalid user", "Give a login name that this machine knows."),
    ("Slurm accounting storage is disabled", "This site keeps no accounting; %squeue knows the newest jobs."),
    ("Access/permission denied", "It belongs to somebody else, or only the site's staff may do that."),
    ("unrecognized option", "%{tool} --help lists the options."),
    ("invalid option", "%{tool} --help lists the options."),
    ("(N/y)", "Nobody can be asked back, so that the answer was no. -i says yes beforehand."),
    ("Unknown field", "Slurm's manual page of %{tool} lists the fields."),
    ("Invalid field requested", "%{tool} --helpformat lists the fields."),
)


class SlurmError(HpchubError):
    """A command refused, failed or is not there. `stderr` has all that it said."""

    def __init__(self, message: str, hint: str = "", *, stderr: str = "") -> None:
        super().__init__(message, hint)
        self.stderr = stderr

    def _render_traceback_(self) -> list[str]:
        """IPython's own hook: what it shows in place of a traceback."""
        return [f"{type(self).__name__}: {self.message}", *([self.hint] if self.hint else [])]


def refused(tool: str, exit_code: int, stdout: str, stderr: str) -> SlurmError:
    """The error of a command that ended with an exit code other than zero."""
    result = CommandResult(exit_code=exit_code, stdout=stdout, stderr=stderr)
    error = failure(tool, result)
    if isinstance(error, UnexpectedOutput):
        error = (rejection(result) if tool == "sbatch" else None) or _own_words(tool, result)
    hint = next((hint for words, hint in _HINTS if words in f"{stderr}\n{stdout}"), error.hint)
    return SlurmError(error.message, hint.replace("{tool}", tool), stderr=stderr)


def translated(error: HpchubError) -> SlurmError:
    """An error of hpchub's own, to be shown as the magics show theirs."""
    return SlurmError(error.message, error.hint)


def _own_words(tool: str, result: CommandResult) -> HpchubError:
    lines = [line.strip() for line in (result.stderr or result.stdout).split("\n") if line.strip()]
    kept = [line.removeprefix(f"{tool}: ").removeprefix("error: ").removeprefix("fatal: ") for line in lines]
    words = " ".join(kept[:6]) or f"it ended with exit code {result.exit_code} and said nothing"
    return HpchubError(f"{tool}: {words}")
