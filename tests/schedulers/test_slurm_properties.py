"""Properties of the Slurm backend that hold for any text"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpchub.core.command import CommandResult
from hpchub.core.job import JobId, JobState, JobStatus
from hpchub.core.slugs import job_name
from hpchub.errors import (
    AccountProblem,
    InvalidRequest,
    SchedulerUnavailable,
    SubmitRejected,
    UnexpectedOutput,
)
from hpchub.schedulers.slurm import Slurm
from hpchub.schedulers.slurm_directives import quote_directive, read_directives

SLURM = Slurm()
PARSERS = (
    SLURM.parse_submit,
    SLURM.parse_lookup,
    SLURM.parse_status,
    SLURM.parse_history,
    SLURM.parse_times,
    SLURM.parse_pending,
    SLURM.parse_cancel,
    SLURM.parse_associations,
)
ALLOWED = (AccountProblem, SchedulerUnavailable, SubmitRejected, UnexpectedOutput)

# Any text, and text that looks like Slurm's.
_WORDS = st.sampled_from(
    (
        *("42", "\x1f", "|", "\n", "RUNNING", "PENDING", "c1", "n/a", "CLUSTER: x", "\x1e", "\x85", "\r"),
        *("sbatch: error: ", "Batch job submission failed: ", "scancel: error"),
        *("Invalid job id specified", "Socket timed out"),
    )
)
_ALIKE = st.lists(st.one_of(_WORDS, st.text(max_size=3)), max_size=12).map("".join)
_TEXTS = st.one_of(st.text(), _ALIKE)
_RESULTS = st.builds(CommandResult, exit_code=st.integers(-15, 255), stdout=_TEXTS, stderr=_TEXTS)


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__name__)
def test_parsers_raise_only_our_errors(parse: object) -> None:
    """Whatever a command answers, the parser answers or raises one of the four errors it may."""

    @given(_RESULTS)
    def check(result: CommandResult) -> None:
        try:
            parse(result)  # type: ignore[operator]
        except ALLOWED as error:
            assert len(str(error)) < 20_000

    check()


@given(_TEXTS, _TEXTS, _TEXTS)
def test_any_status_is_explained(native: str, node: str, reason: str) -> None:
    """No state or reason is so odd that the progress page breaks."""
    assert SLURM.explain(JobStatus(state=JobState.UNKNOWN, native=native, node=node, reason=reason))


_ONE_LINE = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")))


@given(_ONE_LINE, _ONE_LINE)
def test_directives_read_back(one: str, other: str) -> None:
    """Any value of one line is read back as it was, and swallows nothing of what follows."""
    script = (
        f"#!/bin/bash\n#SBATCH --job-name={quote_directive(one)} --comment={quote_directive(other)}\nid\n"
    )
    assert read_directives(script) == (f"--job-name={one}", f"--comment={other}")


@pytest.mark.parametrize("word", ["hetjob", "PackJob", "x-hetjob-y"])
def test_a_name_is_no_component_separator(word: str) -> None:
    """Older versions blank these words wherever they stand, and begin another component of the job."""
    assert word.lower() not in quote_directive(word).lower()


@given(st.text())
def test_job_ids_carry_nothing_else(text: str) -> None:
    """No text but a job id gets into a command."""
    try:
        command = SLURM.status_command([JobId(text)])
    except InvalidRequest:
        return
    assert text.isascii()
    assert text[0].isdigit()
    assert not set(text) & set(" \n,;$`'\"|&")
    assert f"--jobs={text}" in command.argv


@given(st.text())
def test_a_looked_up_name_carries_nothing_else(text: str) -> None:
    """No text but one of our job names gets into a command."""
    for build in (
        lambda: SLURM.lookup_command(text),
        lambda: SLURM.cancel_command(JobId("42"), text),
        lambda: SLURM.status_command([JobId("42")], [text]),
    ):
        try:
            command = build()
        except InvalidRequest:
            continue
        assert text.isascii()
        assert set(text) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
        assert f"--name={text}" in command.argv


@given(st.text(max_size=200))
def test_every_job_of_ours_can_be_looked_up(server_name: str) -> None:
    """Whatever JupyterHub calls a server, its job's name is one that a lookup takes."""
    name = job_name(server_name, "9f3a" * 8)
    assert f"--name={name}" in SLURM.lookup_command(name).argv


def test_no_ids_is_refused() -> None:
    """Without ids squeue and sacct would list everybody's jobs."""
    for build in (SLURM.status_command, SLURM.history_command, SLURM.times_command):
        with pytest.raises(InvalidRequest):
            build([])
