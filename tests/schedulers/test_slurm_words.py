"""hpchub.schedulers.slurm_states and slurm_reasons: what a person reads"""

from __future__ import annotations

import pytest
from golden.reader import SLURM, golden

from hpchub.core.job import JobState, JobStatus
from hpchub.schedulers.slurm import Slurm
from hpchub.schedulers.slurm_reasons import explain_reason
from hpchub.schedulers.slurm_states import STATES, explain

# Every limit named in libslurm 22.05.8: strings libslurmfull.so, those of QOS, associations, accounts.
LIMITS = (SLURM / "limits.txt").read_text(encoding="utf-8").split()


@pytest.mark.parametrize("reason", LIMITS)
def test_every_limit_is_explained(reason: str) -> None:
    """Each limit of Slurm's has a sentence, and the native name stands beside it."""
    words = explain_reason(reason)
    assert words.endswith(f"({reason})")
    assert not words.startswith("Slurm gives")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Resources", "waiting for resources to become free (Resources)"),
        ("QOSMaxJobsPerUserLimit", "you already have as many running jobs as its QOS allows one person"),
        ("QOSMaxWallDurationPerJobLimit", "it asks for more time than its QOS allows one job; ask for less"),
        ("AssocGrpCpuLimit", "the jobs of your account together already have as many CPUs as they may"),
        ("AssocGrpCPUMinutesLimit", "the budget of your account (CPUs times minutes) is used up"),
        ("QOSMinCpuNotSatisfied", "it asks for fewer CPUs than its QOS demands of a job"),
        ("MaxJobsPerAccount", "your account already has as many running jobs as its QOS allows one account"),
        ("ReqNodeNotAvail, UnavailableNodes:c[1-2]", "a node it needs is down, reserved"),
        ("Nodes required for job are DOWN, DRAINED or reserved for jobs", "a node it needs is down"),
        ("launch failed requeued held", "it could not be launched"),
        ("", "the scheduler has not looked at it yet"),
        ("None", "the scheduler has not looked at it yet"),
        ("FullMoon", "Slurm gives the reason FullMoon"),
    ],
)
def test_reasons_in_plain_words(reason: str, words: str) -> None:
    """A researcher can read it."""
    assert explain_reason(reason).startswith(words)


def test_every_pending_job_of_a_real_cluster_is_explained() -> None:
    """No reason that the demo cluster gave falls through."""
    slurm = Slurm()
    pending = [s for s in slurm.parse_status(golden("squeue_states")).values() if s.native == "PENDING"]
    assert len(pending) >= 10
    for status in pending:
        words = slurm.explain(status)
        assert words.startswith("Pending: ")
        assert words.endswith(f"({status.reason}).")


@pytest.mark.parametrize("native", STATES)
def test_every_state_is_explained(native: str) -> None:
    """Each state has a sentence with Slurm's word in it, and says where a running job is."""
    status = JobStatus(state=STATES[native], native=native, node="c1", reason="Priority")
    words = explain(status)
    assert native in words or "Priority" in words
    assert not words.startswith("Slurm says")
    if status.state is JobState.RUNNING:
        assert "c1" in words


@pytest.mark.parametrize(
    ("native", "exit_code", "words"),
    [
        ("FAILED", "7:0", "Failed with exit code 7 (FAILED)."),
        ("FAILED", "0:11", "Failed, ended by signal 11 (FAILED)."),
        (
            "FAILED",
            "0:53",
            "Failed: the file for its output could not be opened. "
            "Its folder must be there before the job, with room in it, and be yours to write in (FAILED).",
        ),
        ("TIMEOUT", "0:0", "Ended, because its time was up (TIMEOUT)."),
        ("CANCELLED by 2001", "0:0", "Cancelled (CANCELLED by 2001)."),
    ],
)
def test_how_a_job_ended(native: str, exit_code: str, words: str) -> None:
    """The end of a job says why, and keeps Slurm's words whole."""
    assert explain(JobStatus(state=JobState.FAILED, native=native, exit_code=exit_code)) == words


def test_too_much_memory_without_cgroups() -> None:
    """Slurm 22.05 calls it FAILED; slurmstepd's line in the job's log says what it was, nobody else's."""
    failed = JobStatus(state=JobState.FAILED, native="FAILED", reason="JobLaunchFailure")
    log = (
        "[I] Jupyter is running\n"
        "slurmstepd-c1: error: StepId=2.batch exceeded memory limit (324657152 > 104857600), being killed\n"
        "slurmstepd-c1: error: Exceeded job memory limit\n"
    )
    assert explain(failed, log) == (
        "Ended, because it used more memory than it had asked for (FAILED, JobLaunchFailure)."
    )
    assert (
        explain(failed, "a cell printed: Exceeded job memory limit") == "Failed (FAILED, JobLaunchFailure)."
    )
