"""What Slurm's commands say when they cannot or will not, turned into our errors.

The words are libslurm's own, the same in every command (slurm_errno.c; checked on 22.05.8).
"""

from __future__ import annotations

import re

from hpchub.core.command import CommandResult
from hpchub.errors import HpchubError, SchedulerUnavailable, SubmitRejected, UnexpectedOutput

# The request never reached the controller or the database.
_UNREACHED = (
    "Unable to contact slurm controller (connect failure)",
    "Unable to establish configuration source",
    "Could not establish a configuration source",
    "failed to open persistent connection",
    "Slurm backup controller in standby mode",
    "Controller is in standby mode",
    "Failed to connect to authentication agent",
    "Munge encode failed",
    "Connection refused",
    "No route to host",
)

# The request may have reached it; the answer did not come back.
_UNANSWERED = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Zero Bytes were transmitted or received",
    "Problem talking to the database",
    "Connection timed out",
    "Connection reset by peer",
    "Message send failure",
    "Message receive failure",
    "Slurm temporarily unable to accept job",
    "Invalid authentication credential",
    "Protocol authentication error",
    "Unable to connect to database",
    "Database connection reference is invalid",
    "Job update not available right now",
)

# Among these, what a node says that cannot prove who asks: it has sent nothing.
_UNPROVEN = ("Failed to connect to authentication agent", "Munge encode failed")
_OF_AUTHENTICATION = {"Invalid authentication credential", "Protocol authentication error"}

# sbatch(1) and slurm_errno.c: the cause, as a part of its message, and what to do about it.
_HINTS = (
    (
        "Invalid account or account/partition combination",
        "Choose an account that you may charge on this partition. If you have none, ask the site for one.",
    ),
    ("User's group not permitted to use this partition", "Choose another partition: this one is not yours."),
    (
        "Invalid partition name",
        "Choose another partition. Where a form or a kernel offers this one, tell the site that it is gone.",
    ),
    ("No partition specified or system default partition", "Choose a partition."),
    ("Required partition not available", "Choose another partition: this one is closed."),
    ("Requested partition configuration not available", "Choose another partition: this one is closed."),
    ("Requested time limit is invalid", "Ask for less time, or choose a partition that gives more."),
    ("Time limit specification required", "Say how long the job may run."),
    ("More processors requested than permitted", "Ask for fewer CPUs."),
    ("CPU count specification invalid", "Ask for fewer CPUs."),
    (
        "CPU count per node can not be satisfied",
        "Ask for fewer CPUs, or choose a partition with larger nodes.",
    ),
    (
        "Requested node configuration is not available",
        "No node of this partition has all of that: ask for fewer CPUs, less memory or fewer GPUs, or choose "
        "a partition with larger nodes.",
    ),
    ("Memory specification can not be satisfied", "Ask for less memory, or choose larger nodes."),
    ("Memory required by task is not available", "Ask for less memory."),
    ("Invalid memory specification", "Ask for less memory."),
    ("Invalid generic resource (gres) specification", "Ask for no GPU, or choose a partition that has some."),
    ("Job violates accounting/QOS policy", "Ask for less, or end one of your other jobs first."),
    ("submit job limit", "End one of your other jobs first."),
    ("Invalid qos", "Tell the site: your account may not use the QOS that the job was given."),
    ("has breached requested QOS usage threshold", "Your share is used up; ask the site."),
    ("Requested reservation", "The reservation cannot be used now; choose another partition."),
    ("Pathname of a file, directory or other parameter too long", "Tell the site."),
    ("I/O error writing script/environment to file", "Slurm's own disk is full; tell the site."),
    ("unable to change directory", "Check that your home directory is there."),
)

_OTHERWISE = "If you cannot tell why, show these words to the site's staff."
_PREFIX = re.compile(r"^sbatch: (?:error: |fatal: |warning: |info: )?(?:Batch job submission failed: )?")
_VAGUE = {"Unspecified error", "allocation failure"}


def failure(tool: str, result: CommandResult) -> HpchubError:
    """The error of a command that did not do its work: an outage, or something nobody knows.

    SchedulerUnavailable is retryable, except where the command was to change something and may
    have done so.
    """
    said = f"{result.stderr}\n{result.stdout}"
    unreached = next((words for words in _UNREACHED if words in said), "")
    unanswered = next((words for words in _UNANSWERED if words in said), "")
    if unreached or unanswered:
        return _unavailable(tool, _line_with(said, unreached or unanswered), _was_never_sent(said))
    if result.exit_code < 0:
        return _unavailable(tool, f"it was ended by signal {-result.exit_code}", False)
    return UnexpectedOutput(tool, (result.stderr or result.stdout).strip() or f"exit code {result.exit_code}")


def rejection(result: CommandResult) -> SubmitRejected | None:
    """sbatch's refusal in its own words, and what to do; None where these are no words of sbatch."""
    message = told_by_sbatch(result)
    if not message:
        return None
    return SubmitRejected(f"Slurm refused the job: {message}", hint_about(message))


def hint_about(message: str) -> str:
    """What to do about sbatch's refusal."""
    return known_hint(message) or _OTHERWISE


def known_hint(message: str) -> str:
    """What to do about words of Slurm's by which a job is refused; empty where they are other words."""
    return next((hint for cause, hint in _HINTS if cause in message), "")


def told_by_sbatch(result: CommandResult) -> str:
    """Why it submitted nothing, as sentences of its own; empty where these are no words of sbatch."""
    lines = [line for line in result.stderr.split("\n") if line.startswith("sbatch: ")]
    words = list(dict.fromkeys(filter(None, (_printable(_PREFIX.sub("", line)) for line in lines))))
    # A site's job_submit plugin explains first; Slurm then adds only that there was an error.
    told = [line for line in words if line not in _VAGUE] or words
    return " ".join(line if line.endswith((".", "!", "?")) else f"{line}." for line in told)


def _was_never_sent(said: str) -> bool:
    """Whether no attempt reached the controller: a command may try more than once before it gives up."""
    if not any(words in said for words in _UNREACHED):
        return False
    rest = said
    for words in _UNREACHED:
        rest = rest.replace(words, "")
    unproven = any(words in said for words in _UNPROVEN)
    return not any(words in rest for words in _UNANSWERED if not (unproven and words in _OF_AUTHENTICATION))


def _unavailable(tool: str, words: str, unreached: bool) -> SchedulerUnavailable:
    words = words.rstrip(".") + "."
    if tool == "sbatch" and not unreached:
        return SchedulerUnavailable(
            f"Slurm did not answer sbatch: {words}",
            "The job may be in the queue all the same: look there before trying again.",
            retryable=False,
        )
    return SchedulerUnavailable(f"Slurm did not answer {tool}: {words}", "It may pass by itself.")


def _line_with(text: str, words: str) -> str:
    line = next(line for line in text.split("\n") if words in line)
    return _printable(re.sub(r"^\w+(?:: error|: fatal| error)?: ", "", line))[:300]


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text).strip()
