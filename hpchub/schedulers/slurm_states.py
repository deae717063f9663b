"""Slurm's job states in our words, and what to tell the person who waits.

The table is squeue(1), JOB STATE CODES, of 22.05, with what later versions added
(https://slurm.schedmd.com/job_state_codes.html).
"""

from __future__ import annotations

import logging
import re

from hpchub.core.job import JobState, JobStatus
from hpchub.schedulers.slurm_reasons import explain_reason

_log = logging.getLogger(__name__)

STATES = {
    "PENDING": JobState.QUEUED,
    "CONFIGURING": JobState.QUEUED,
    "POWER_UP_NODE": JobState.QUEUED,
    "REQUEUED": JobState.QUEUED,
    "REQUEUE_FED": JobState.QUEUED,
    "REQUEUE_HOLD": JobState.QUEUED,
    "RESV_DEL_HOLD": JobState.QUEUED,
    "SPECIAL_EXIT": JobState.QUEUED,
    "RUNNING": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "SUSPENDED": JobState.RUNNING,
    "STOPPED": JobState.RUNNING,
    # These two hide the state that the job will end in; until it shows, the job is not over.
    "COMPLETING": JobState.RUNNING,
    "STAGE_OUT": JobState.RUNNING,
    "COMPLETED": JobState.FINISHED,
    "BOOT_FAIL": JobState.FAILED,
    "DEADLINE": JobState.FAILED,
    "FAILED": JobState.FAILED,
    "NODE_FAIL": JobState.FAILED,
    "OUT_OF_MEMORY": JobState.FAILED,
    "PREEMPTED": JobState.FAILED,
    "TIMEOUT": JobState.FAILED,
    "CANCELLED": JobState.CANCELLED,
    # Another cluster of the federation runs the job: what became of it cannot be told from here.
    "REVOKED": JobState.UNKNOWN,
}

_SENTENCES = {
    "CONFIGURING": "The nodes are being made ready",
    "POWER_UP_NODE": "The nodes are being switched on",
    "REQUEUED": "Back in the queue",
    "REQUEUE_FED": "Back in the queue, on another cluster of the federation",
    "REQUEUE_HOLD": "Back in the queue and held",
    "RESV_DEL_HOLD": "Held, because its reservation was deleted",
    "SPECIAL_EXIT": "Back in the queue and held, after a special exit",
    "RUNNING": "Running",
    "RESIZING": "Running, about to change its size",
    "SIGNALING": "Running, being sent a signal",
    "SUSPENDED": "Suspended: its processors are lent to other jobs",
    "STOPPED": "Stopped by a signal",
    "COMPLETING": "Ending",
    "STAGE_OUT": "Ending: its files are being copied",
    "COMPLETED": "Ended",
    "BOOT_FAIL": "The node failed to start",
    "DEADLINE": "Ended, because it could not meet its deadline",
    "FAILED": "Failed",
    "NODE_FAIL": "Ended, because its node failed",
    "OUT_OF_MEMORY": "Ended, because it used more memory than it had asked for",
    "PREEMPTED": "Ended, to make room for a job that goes first",
    "TIMEOUT": "Ended, because its time was up",
    "CANCELLED": "Cancelled",
    "REVOKED": "Taken over by another cluster of the federation",
}

# Where JobAcctGatherParams=OverMemoryKill stands for cgroups, 22.05 calls such a job FAILED, with the reason
# JobLaunchFailure. Only what slurmstepd writes into the job's log tells.
_OVER_MEMORY = re.compile(
    r"^slurmstepd\S*: error: .*(?:exceeded memory limit|Exceeded job memory limit)", re.MULTILINE
)


def state_of(native: str) -> JobState:
    """Our word for a state of Slurm's. One that the table lacks is UNKNOWN, and logged.

    sacct adds who cancelled a job, as in `CANCELLED by 1001`; only the first word counts.
    """
    word = native.partition(" ")[0]
    state = STATES.get(word)
    if state is None:
        _log.warning("slurm.unknown_state native=%r", native)
        return JobState.UNKNOWN
    return state


def explain(status: JobStatus, log_tail: str = "") -> str:
    """One sentence for the person. Slurm's own word always stands beside ours.

    `log_tail` is the end of the job's log.
    """
    word = status.native.partition(" ")[0]
    if word == "PENDING":
        return f"Pending: {explain_reason(status.reason)}."
    sentence = _SENTENCES.get(word)
    if sentence is None:
        return f"Slurm says {status.native}."
    if status.state is JobState.RUNNING and status.node:
        sentence += f" on {status.node}"
    native = status.native
    if word == "FAILED":
        if _OVER_MEMORY.search(log_tail):
            sentence = _SENTENCES["OUT_OF_MEMORY"]
        else:
            sentence += _exit_words(status.exit_code)
        native += f", {status.reason}" if status.reason else ""
    return f"{sentence} ({native})."


# No signal of a job's: slurmd says so where it cannot open what --output names. Checked on 22.05.
_NO_OUTPUT_FILE = "53"


def _exit_words(exit_code: str) -> str:
    """sacct's ExitCode is `<exit status>:<signal>`."""
    code, _, signal = exit_code.partition(":")
    if signal == _NO_OUTPUT_FILE:
        return (
            ": the file for its output could not be opened. "
            "Its folder must be there before the job, with room in it, and be yours to write in"
        )
    if signal.isdecimal() and int(signal):
        return f", ended by signal {signal}"
    if code.isdecimal() and int(code):
        return f" with exit code {code}"
    return ""
