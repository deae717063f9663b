"""What every scheduler backend promises (hpchub.schedulers.base.Scheduler). A backend adds one entry."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from golden.reader import SLURM, golden
from hypothesis import given
from hypothesis import strategies as st

from hpchub.core.command import Command, CommandResult
from hpchub.core.job import JobId, JobState, JobStatus, Query
from hpchub.errors import (
    AccountProblem,
    InvalidRequest,
    SchedulerUnavailable,
    SubmitRejected,
    UnexpectedOutput,
)
from hpchub.schedulers.base import Scheduler
from hpchub.schedulers.registry import BACKENDS
from hpchub.schedulers.slurm import Slurm
from hpchub.schedulers.slurm_directives import quote_directive, read_directives
from support.demo import Demo

PARSERS = (
    *("parse_submit", "parse_lookup", "parse_status", "parse_history"),
    *("parse_times", "parse_pending", "parse_cancel", "parse_associations"),
)
SCRIPT = "#!/bin/bash\nsleep 60\n"


@dataclass(frozen=True)
class Backend:
    """A backend, and what its scheduler really answered in the situations all schedulers know."""

    scheduler: Scheduler
    accepted: CommandResult
    refused: CommandResult
    vanished: CommandResult
    cancelled_vanished: CommandResult
    no_association: CommandResult
    down: dict[str, CommandResult]


CASES = {
    "slurm": Backend(
        scheduler=Slurm(),
        accepted=golden("sbatch_accepted", SLURM),
        refused=golden("sbatch_refused_partition", SLURM),
        vanished=golden("squeue_vanished", SLURM),
        cancelled_vanished=golden("scancel_vanished", SLURM),
        no_association=golden("sacctmgr_carol", SLURM),
        down={
            "parse_submit": golden("sbatch_controller_down", SLURM),
            "parse_lookup": golden("squeue_lookup_controller_down", SLURM),
            "parse_status": golden("squeue_controller_down", SLURM),
            "parse_history": golden("sacct_database_down", SLURM),
            "parse_times": golden("squeue_controller_down", SLURM),
            "parse_pending": golden("squeue_controller_down", SLURM),
            "parse_cancel": golden("scancel_controller_down", SLURM),
            "parse_associations": golden("sacctmgr_database_down", SLURM),
        },
    )
}


@pytest.fixture(params=CASES)
def backend(request: pytest.FixtureRequest) -> Backend:
    return CASES[request.param]


def commands(scheduler: Scheduler, ids: list[JobId]) -> list[Command]:
    return [
        scheduler.submit_command(SCRIPT),
        scheduler.status_command(ids),
        scheduler.history_command(ids),
        scheduler.cancel_command(ids[0], "hpchub-0f"),
        scheduler.times_command(ids),
        scheduler.associations_command("alice"),
    ]


def test_every_backend_is_held_to_this() -> None:
    """A backend without an entry here is not finished."""
    assert set(CASES) == set(BACKENDS)


def test_the_script_goes_by_standard_input(backend: Backend) -> None:
    """No line of the script's body meets an argv that others can read; a repr does not show it either."""
    command = backend.scheduler.submit_command(SCRIPT)
    assert command.stdin == SCRIPT.encode()
    assert not any("sleep" in word for word in command.argv)
    assert "sleep" not in repr(command)


def test_commands_are_argv(backend: Backend) -> None:
    """Every command is a tuple of texts with a bounded time, built without asking anything."""
    for command in commands(backend.scheduler, [JobId("42"), JobId("43")]):
        assert all(isinstance(word, str) for word in command.argv)
        assert 0 < command.timeout_s <= 120
    assert backend.scheduler.submit_command(SCRIPT) == backend.scheduler.submit_command(SCRIPT)


def test_an_id_serves_every_command(backend: Backend) -> None:
    """The id that submit answers is one that the other commands take."""
    job_id = backend.scheduler.parse_submit(backend.accepted)
    for command in commands(backend.scheduler, [job_id])[1:5]:
        assert any(job_id in word for word in command.argv)


def test_many_jobs_are_one_question(backend: Backend) -> None:
    """However many jobs there are, status is one command that names each."""
    ids = [JobId(str(number)) for number in range(100, 200)]
    for command in (backend.scheduler.status_command(ids), backend.scheduler.times_command(ids)):
        assert all(job_id in " ".join(command.argv) for job_id in ids)
    for query in (Query.STATUS, Query.HISTORY, Query.TIMES):
        asked = backend.scheduler.account_command(query, ids).stdin.decode()
        assert all(job_id in asked for job_id in ids)


@pytest.mark.parametrize("bad", [[], [JobId("")], [JobId("42;id")], [JobId("-u root")], [JobId("42\n43")]])
def test_what_is_no_id_is_refused(backend: Backend, bad: list[JobId]) -> None:
    """No query is asked about nothing, and nothing but ids gets in."""
    for build in (
        backend.scheduler.status_command,
        backend.scheduler.history_command,
        backend.scheduler.times_command,
    ):
        with pytest.raises(InvalidRequest):
            build(bad)
    with pytest.raises(InvalidRequest):
        backend.scheduler.cancel_command(bad[0] if bad else JobId(""), "hpchub-0f")


@pytest.mark.parametrize("bad", ["", "a,b", "a b", "a\nb", "$(id)"])
def test_what_is_no_name_is_refused(backend: Backend, bad: str) -> None:
    """A name that chooses jobs is one of ours, and a job is never cancelled by its number alone."""
    scheduler, job_id = backend.scheduler, JobId("42")
    for build in (
        lambda: scheduler.cancel_command(job_id, bad),
        lambda: scheduler.status_command([job_id], [bad]),
        lambda: scheduler.history_command([job_id], [bad]),
        lambda: scheduler.times_command([job_id], [bad]),
        lambda: scheduler.account_command(Query.STATUS, [job_id], [bad]),
    ):
        with pytest.raises(InvalidRequest):
            build()


def test_a_refusal_is_the_persons_to_mend(backend: Backend) -> None:
    """It keeps the scheduler's words and says what to do."""
    with pytest.raises((SubmitRejected, AccountProblem)) as caught:
        backend.scheduler.parse_submit(backend.refused)
    assert caught.value.message
    assert caught.value.hint


def test_a_vanished_job_is_absent(backend: Backend) -> None:
    """It is unknown, not finished; to cancel it is no error."""
    assert backend.scheduler.parse_status(backend.vanished) == {}
    backend.scheduler.parse_cancel(backend.cancelled_vanished)


def test_nobodys_account_is_an_empty_list(backend: Backend) -> None:
    """A person whom the scheduler does not know may charge nothing."""
    assert backend.scheduler.parse_associations(backend.no_association) == []


@pytest.mark.parametrize("parser", PARSERS)
def test_an_outage_is_no_answer(backend: Backend, parser: str) -> None:
    """Doubt is never death: a scheduler that is down raises, and answers nothing."""
    with pytest.raises(SchedulerUnavailable) as caught:
        getattr(backend.scheduler, parser)(backend.down[parser])
    assert caught.value.message


@pytest.mark.parametrize("parser", PARSERS)
@given(st.integers(-15, 255), st.text(), st.text())
def test_no_answer_breaks_a_parser(parser: str, exit_code: int, stdout: str, stderr: str) -> None:
    """Whatever comes back, a parser raises only the four errors of the protocol."""
    for case in CASES.values():
        with contextlib.suppress(SubmitRejected, AccountProblem, SchedulerUnavailable, UnexpectedOutput):
            getattr(case.scheduler, parser)(CommandResult(exit_code=exit_code, stdout=stdout, stderr=stderr))


@pytest.mark.parametrize("state", JobState)
def test_the_native_word_is_shown(backend: Backend, state: JobState) -> None:
    """Plain words never hide the scheduler's own."""
    words = backend.scheduler.explain(JobStatus(state=state, native="STRANGE", reason="odd", node="c1"))
    assert "STRANGE" in words
    assert "\n" not in words


def test_attach_ends_in_the_command(backend: Backend) -> None:
    """What runs in the job is passed on word by word."""
    argv = ("/usr/sbin/sshd", "-i", "-f", "/home/a b/$(id)")
    attached = backend.scheduler.attach_argv(JobId("42"), "c1", argv)
    assert attached[-len(argv) :] == argv
    assert any("42" in word for word in attached)


# -- on a real scheduler -----------------------------------------------------------------------


class OnDemo:
    """Runs a backend's commands as a person on the demo's login node."""

    def __init__(self, demo: Demo, user: str) -> None:
        self.demo = demo
        self.user = user
        self.scheduler = Slurm()

    def run(self, command: Command) -> CommandResult:
        host = next(iter(self.demo.info["clusters"].values()))["login_hosts"][0]
        stdin = command.stdin.decode()
        done = self.demo.exec(host, command.argv, user=self.user, stdin=stdin)
        return CommandResult(exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def status(self, job_id: JobId) -> JobStatus:
        return self.scheduler.parse_status(self.run(self.scheduler.status_command([job_id])))[job_id]

    def wait(self, job_id: JobId, good: Callable[[JobStatus], bool]) -> JobStatus:
        deadline = time.monotonic() + 30
        while not good(status := self.status(job_id)):
            assert time.monotonic() < deadline, status
            time.sleep(0.2)
        return status


@pytest.mark.live
def test_a_job_from_submit_to_history(demo: Demo) -> None:
    """A job is taken, seen running, entered beside a step that holds everything, ended, remembered.

    By a name that it does not bear it is neither seen nor ended.
    """
    here = OnDemo(demo, "alice")
    slurm = here.scheduler
    script = (
        "#!/bin/bash\n#SBATCH --output=/dev/null --cpus-per-task=2 --mem=256M\nsrun -c2 --mem=256M sleep 60\n"
    )
    name = f"hpchub-{time.time_ns()}"
    job_id = slurm.parse_submit(here.run(slurm.submit_command(script, name)))
    try:
        running = here.wait(job_id, lambda status: status.state is JobState.RUNNING and status.node != "")
        time.sleep(1)  # until the job's own step holds its CPUs
        argv = slurm.attach_argv(job_id, running.node, ("/bin/cat",))
        text = "no line end, and \x01 bytes"
        echoed = here.run(Command(argv=argv, stdin=text.encode()))
        assert (echoed.exit_code, echoed.stdout, echoed.stderr) == (0, text, "")
        slurm.parse_cancel(here.run(slurm.cancel_command(job_id, "another")))
        assert slurm.parse_status(here.run(slurm.status_command([job_id], ["another"]))) == {}
        assert slurm.parse_history(here.run(slurm.history_command([job_id], ["another"]))) == {}
        assert here.status(job_id).state is JobState.RUNNING
    finally:
        slurm.parse_cancel(here.run(slurm.cancel_command(job_id, name)))
    ended = here.wait(job_id, lambda status: status.state.is_final)
    assert ended.state is JobState.CANCELLED
    slurm.parse_cancel(here.run(slurm.cancel_command(job_id, name)))
    remembered: dict[JobId, JobStatus] = {}
    deadline = time.monotonic() + 30
    while not remembered or not remembered[job_id].state.is_final:
        assert time.monotonic() < deadline
        remembered = slurm.parse_history(here.run(slurm.history_command([job_id], [name])))
    assert remembered[job_id].native.startswith("CANCELLED by")


@pytest.mark.live
def test_a_job_is_found_by_its_name(demo: Demo) -> None:
    """A lost id is found again, by its owner only."""
    alice, bob = OnDemo(demo, "alice"), OnDemo(demo, "bob")
    slurm = alice.scheduler
    name = f"hpchub-{time.time_ns()}"
    script = f"#!/bin/bash\n#SBATCH --output=/dev/null --job-name={name}\nsleep 60\n"
    job_id = slurm.parse_submit(alice.run(slurm.submit_command(script)))
    assert slurm.parse_lookup(alice.run(slurm.lookup_command(name))) == [job_id]
    assert slurm.parse_lookup(bob.run(slurm.lookup_command(name))) == []
    slurm.parse_cancel(alice.run(slurm.cancel_command(job_id, name)))


@pytest.mark.live
def test_people_of_the_demo(demo: Demo) -> None:
    """alice has two accounts, carol none; carol's job is refused in Slurm's words."""
    alice, carol = OnDemo(demo, "alice"), OnDemo(demo, "carol")
    slurm = alice.scheduler
    assert len(slurm.parse_associations(alice.run(slurm.associations_command("alice")))) == 2
    assert slurm.parse_associations(carol.run(slurm.associations_command("carol"))) == []
    with pytest.raises(SubmitRejected, match="Invalid account"):
        slurm.parse_submit(carol.run(slurm.submit_command(SCRIPT)))


@pytest.mark.live
@pytest.mark.parametrize("name", ["a b", 'a"b\\c', "a#b", "x;$(id)`id`", "hpchub-hetjob", "'"])
def test_sbatch_reads_directives_as_we_write_them(demo: Demo, name: str) -> None:
    """The real sbatch reads a quoted value back as it was; so do we."""
    here = OnDemo(demo, "alice")
    script = f"#!/bin/bash\n#SBATCH --job-name={quote_directive(name)} --hold --output=/dev/null\ntrue\n"
    assert read_directives(script)[0] == f"--job-name={name}"
    result = here.run(Command(argv=("sbatch", "--parsable"), stdin=script.encode()))
    job_id = here.scheduler.parse_submit(result)
    shown = here.run(Command(argv=("squeue", "-h", "-o", "%j", "-j", job_id)))
    here.run(Command(argv=("scancel", job_id)))
    assert shown.stdout == f"{name}\n"
