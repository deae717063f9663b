"""hpchub.schedulers.slurm, against what a real Slurm answered (tests/golden)"""

from __future__ import annotations

import logging

import pytest
from golden.reader import golden, names, record

from hpchub.core.command import CommandResult
from hpchub.core.job import Association, JobId, JobState, Query
from hpchub.errors import (
    InvalidRequest,
    SchedulerUnavailable,
    SubmitRejected,
    UnexpectedOutput,
)
from hpchub.schedulers.slurm import Slurm
from hpchub.schedulers.slurm_partitions import parse_partitions
from hpchub.schedulers.slurm_token import parse_token

SLURM = Slurm()


def answer(stdout: str = "", stderr: str = "", exit_code: int = 0) -> CommandResult:
    return CommandResult(exit_code=exit_code, stdout=stdout, stderr=stderr)


# -- submit ------------------------------------------------------------------------------------


def test_a_taken_job_has_its_id() -> None:
    """The id is what sbatch --parsable printed."""
    assert SLURM.parse_submit(golden("sbatch_accepted")).isdecimal()


@pytest.mark.parametrize(
    "stdout",
    ["42\n", "42;alpha\n", "Welcome to Alpha!\nYour share is 17\n42\n", "17 jobs so far\n42;alpha\n\n", "42"],
)
def test_a_sites_notices_are_no_ids(stdout: str) -> None:
    """A wrapper around sbatch may print; the id is the last line that is an id alone."""
    assert SLURM.parse_submit(answer(stdout)) == "42"


@pytest.mark.parametrize("stdout", ["", "Submitted batch job 42\n", "42 43\n", "-1\n", "٤٢\n"])
def test_no_id_is_unexpected(stdout: str) -> None:
    """Success without an id is not guessed at."""
    with pytest.raises(UnexpectedOutput):
        SLURM.parse_submit(answer(stdout))


@pytest.mark.parametrize("name", names("sbatch_refused_"))
def test_a_refusal_keeps_sbatchs_words(name: str) -> None:
    """The message holds what sbatch said, without its prefixes; the hint says what to do."""
    result = golden(name)
    with pytest.raises(SubmitRejected) as caught:
        SLURM.parse_submit(result)
    message = caught.value.message
    last = [line for line in result.stderr.split("\n") if line.startswith("sbatch: ")][-1]
    assert (
        last.removeprefix("sbatch: ")
        .removeprefix("error: ")
        .removeprefix("Batch job submission failed: ")
        .rstrip(".")
        in message
    )
    assert "sbatch: error" not in message
    assert "submission failed" not in message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sbatch_refused_account", "Choose an account"),
        ("sbatch_refused_no_association", "ask the site for one"),
        ("sbatch_refused_partition", "another partition"),
        ("sbatch_refused_memory", "less memory"),
        ("sbatch_refused_cpus", "fewer CPUs"),
        ("sbatch_refused_gres", "GPU"),
        ("sbatch_refused_reservation", "another partition"),
    ],
)
def test_a_known_cause_has_its_own_hint(name: str, hint: str) -> None:
    """What to do follows from the cause."""
    with pytest.raises(SubmitRejected) as caught:
        SLURM.parse_submit(golden(name))
    assert hint in caught.value.hint


def test_a_sites_own_explanation_comes_first() -> None:
    """A job_submit plugin's words are kept, Slurm's empty phrase behind them is not."""
    failed = "sbatch: error: Batch job submission failed: Unspecified error"
    stderr = f"sbatch: error: Please charge project X.\n{failed}\n"
    with pytest.raises(SubmitRejected, match=r"^Slurm refused the job: Please charge project X\. ") as caught:
        SLURM.parse_submit(answer(stderr=stderr, exit_code=1))
    assert caught.value.message.endswith("project X.")


def test_a_missing_sbatch_is_the_sites_fault() -> None:
    """A shell's complaint is no refusal."""
    with pytest.raises(UnexpectedOutput, match="command not found"):
        SLURM.parse_submit(answer(stderr="bash: sbatch: command not found", exit_code=127))


def test_a_lost_answer_to_sbatch_is_not_retried() -> None:
    """Where the request may have reached the controller, another try could start a second job."""
    with pytest.raises(SchedulerUnavailable) as hangs:
        SLURM.parse_submit(golden("sbatch_controller_hangs"))
    assert not hangs.value.retryable
    with pytest.raises(SchedulerUnavailable) as down:
        SLURM.parse_submit(golden("sbatch_controller_down"))
    assert down.value.retryable


def test_directives_are_given_as_options() -> None:
    """SBATCH_PARTITION in a profile overrides a directive, not an option."""
    script = '#!/bin/bash\n#SBATCH --partition=cpu --job-name="a b"\n\n# remark\nsleep 1\n#SBATCH --nice=9\n'
    command = Slurm(cluster="alpha").submit_command(script)
    assert command.argv == ("sbatch", "--parsable", "--clusters=alpha", "--partition=cpu", "--job-name=a b")
    assert command.stdin == script.encode()


# -- lookup ------------------------------------------------------------------------------------


def test_a_lost_id_is_found_by_name() -> None:
    """The person's own jobs of that name, in the queue or just ended; nobody else's."""
    jobs = record("squeue_lookup_found")["jobs"]
    assert SLURM.parse_lookup(golden("squeue_lookup_found")) == [jobs["ended"], jobs["waits"]]


def test_no_such_name_is_an_empty_list() -> None:
    """Nothing was submitted."""
    assert SLURM.parse_lookup(golden("squeue_lookup_nothing")) == []


def test_only_ids_are_asked_for() -> None:
    """A name in the answer could hold a newline and an id."""
    assert SLURM.lookup_command("hpchub").argv[-1] == "--format=%i"
    assert "--me" in SLURM.lookup_command("hpchub").argv


@pytest.mark.parametrize("name", ["", "a,b", "a b", "-a\n", "x" * 65, "a%", "hpchub\n"])
def test_a_lookup_is_for_one_name(name: str) -> None:
    """squeue would read a comma as several names."""
    with pytest.raises(InvalidRequest):
        SLURM.lookup_command(name)


def test_words_without_an_id_prove_nothing() -> None:
    """A site's notice beside ids is passed over; alone it does not mean that there is no job."""
    assert SLURM.parse_lookup(answer("CLUSTER: alpha\nMaintenance on Monday!\n7\n7\n8\n")) == ["7", "8"]
    with pytest.raises(UnexpectedOutput):
        SLURM.parse_lookup(answer("Maintenance on Monday!\n"))


# -- status and history ------------------------------------------------------------------------

EXPECTED = {
    "timeout": JobState.FAILED,
    "completed": JobState.FINISHED,
    "failed": JobState.FAILED,
    "signalled": JobState.FAILED,
    "cancelled": JobState.CANCELLED,
    "cancelled_pending": JobState.CANCELLED,
    "suspended": JobState.RUNNING,
    "running": JobState.RUNNING,
    "pending_resources": JobState.QUEUED,
    "pending_priority": JobState.QUEUED,
    "pending_time": JobState.QUEUED,
    "pending_memory": JobState.QUEUED,
    "pending_nodes": JobState.QUEUED,
    "pending_held": JobState.QUEUED,
    "pending_begin": JobState.QUEUED,
    "pending_dependency": JobState.QUEUED,
    "pending_never": JobState.QUEUED,
}


@pytest.mark.parametrize("source", ["squeue", "sacct"])
def test_states_of_a_real_cluster(source: str) -> None:
    """Every job that was asked for has its state; the vanished one is absent."""
    jobs = record(f"{source}_states")["jobs"]
    parse = SLURM.parse_status if source == "squeue" else SLURM.parse_history
    found = parse(golden(f"{source}_states"))
    assert {name: found[jobs[name]].state for name in EXPECTED} == EXPECTED
    assert "99999" not in found
    assert f"{jobs['pending_array']}_[1-9%2]" in found


def test_details_of_a_real_cluster() -> None:
    """Node, reason and exit code come from where Slurm shows them, its placeholders are dropped."""
    jobs = record("squeue_states")["jobs"]
    queue, history = SLURM.parse_status(golden("squeue_states")), SLURM.parse_history(golden("sacct_states"))
    assert queue[jobs["running"]].node in {"c1", "c2"}
    assert queue[jobs["running"]].reason == ""
    assert queue[jobs["pending_resources"]].node == ""
    assert queue[jobs["pending_resources"]].reason == "Resources"
    assert history[jobs["failed"]].exit_code == "7:0"
    assert history[jobs["cancelled_pending"]].node == ""
    assert history[jobs["cancelled"]].native.startswith("CANCELLED by ")


def test_a_job_name_forges_no_row() -> None:
    """The running job's name held a newline and our separator; no row came of it."""
    jobs = record("squeue_one")["jobs"]
    assert list(SLURM.parse_status(golden("squeue_one"))) == [jobs["running"]]


@pytest.mark.parametrize("name", ["squeue_vanished", "squeue_two_vanished"])
def test_vanished_jobs_are_absent(name: str) -> None:
    """squeue exits 1 for one vanished id and 0 for two; neither is an error, and neither is an end."""
    assert SLURM.parse_status(golden(name)) == {}


def test_vanished_from_history() -> None:
    """The accounting may not know a job either."""
    assert SLURM.parse_history(golden("sacct_vanished")) == {}


def test_a_site_without_accounting() -> None:
    """Where nothing is recorded, history is empty; associations cannot be told, which is no 'none'."""
    result = answer(stderr="Slurm accounting storage is disabled\n", exit_code=1)
    assert SLURM.parse_history(result) == {}
    with pytest.raises(UnexpectedOutput):
        SLURM.parse_associations(result)


@pytest.mark.parametrize("name", [name for name in names("") if name.endswith(("_down", "_hangs"))])
def test_an_outage_is_no_answer(name: str) -> None:
    """Controller or database down or hanging: SchedulerUnavailable, whichever command met it."""
    tool = name.split("_")[0]
    parse = {
        "sbatch": SLURM.parse_submit,
        "squeue": SLURM.parse_lookup if "lookup" in name else SLURM.parse_status,
        "sacct": SLURM.parse_history,
        "scancel": SLURM.parse_cancel,
        "sacctmgr": SLURM.parse_associations,
        "scontrol": lambda result: parse_token(result, "alice"),
        "sinfo": parse_partitions,
    }[tool]
    with pytest.raises(SchedulerUnavailable, match=tool):
        parse(golden(name))


def test_a_killed_command_is_an_outage() -> None:
    """A command that was ended by a signal, as by a timeout, has told nothing."""
    with pytest.raises(SchedulerUnavailable, match="signal 15"):
        SLURM.parse_status(answer(exit_code=-15))


def test_an_unknown_state_is_unknown(caplog: pytest.LogCaptureFixture) -> None:
    """A newer Slurm's state keeps its word, is UNKNOWN, and is logged: never taken for an end."""
    with caplog.at_level(logging.WARNING):
        found = SLURM.parse_status(answer("7\x1fDAYDREAMING\x1fc1\x1fNone\n"))
    status = found[JobId("7")]
    assert (status.state, status.native) == (JobState.UNKNOWN, "DAYDREAMING")
    assert not status.state.is_final
    assert "slurm.unknown_state" in caplog.text
    assert "DAYDREAMING" in SLURM.explain(status)


@pytest.mark.parametrize(
    "stdout",
    [
        "7\x1fRUNNING\x1fc1\n",
        "7\x1fRUNNING\x1fc1\x1fNone\x1fmore\n",
        "x y\x1fRUNNING\x1fc1\x1fNone\n",
        "just words\n",
    ],
)
def test_a_strange_row_is_refused(stdout: str) -> None:
    """A row that is not of our shape is not half understood."""
    with pytest.raises(UnexpectedOutput, match="squeue"):
        SLURM.parse_status(answer(stdout))


def test_notices_beside_rows_are_passed_over() -> None:
    """A site's banner, or the header squeue prints for a named cluster, loses no job."""
    stdout = "CLUSTER: alpha\nMaintenance on Monday!\n7\x1fRUNNING\x1fc1\x1fNone\n"
    assert list(SLURM.parse_status(answer(stdout))) == ["7"]


# -- times and the queue -----------------------------------------------------------------------


def of_account(query: Query) -> CommandResult:
    """What the service account was told, without the marker that stands before it."""
    result = golden(f"account_{query}")
    assert result.stdout.startswith("mark\n")
    return answer(result.stdout.removeprefix("mark\n"))


@pytest.mark.parametrize("result", [golden("squeue_times"), of_account(Query.TIMES)])
def test_times_of_a_real_cluster(result: CommandResult) -> None:
    """A running job's end and a waiting one's expected start, in Unix seconds; a held one has neither."""
    jobs = record("squeue_times")["jobs"]
    times = SLURM.parse_times(result)
    running, following, held = (times[jobs[name]] for name in ("running", "next", "held"))
    assert running.starts_at is not None
    assert running.ends_at == running.starts_at + 3600
    assert following.starts_at == running.ends_at
    assert (following.native, held.native) == ("PENDING", "PENDING")
    assert (held.starts_at, held.ends_at) == (None, None)


def test_times_of_a_vanished_job_are_unknown() -> None:
    """It is absent, and that is no error."""
    assert SLURM.parse_times(golden("squeue_times_vanished")) == {}


def test_the_queue_of_a_real_cluster() -> None:
    """Everybody's waiting jobs with their priority, arrays and choices of partitions among them."""
    jobs = record("account_pending")["jobs"]
    pending = {job.job_id: job for job in SLURM.parse_pending(of_account(Query.PENDING))}
    assert set(pending) == {
        *(jobs[name] for name in ("next", "held", "bobs", "bobs_either")),
        f"{jobs['bobs_array']}_[1-9%2]",
    }
    assert pending[jobs["next"]].priority > pending[jobs["bobs"]].priority > 0
    assert pending[jobs["held"]].priority == 0
    assert pending[jobs["bobs_either"]].partitions == ("cpu", "short")


def test_the_service_account_sees_everybodys_jobs() -> None:
    """Where people see only their own (PrivateData=jobs), it reads as their own queries would."""
    jobs = record("account_status")["jobs"]
    status = SLURM.parse_status(of_account(Query.STATUS))
    history = SLURM.parse_history(of_account(Query.HISTORY))
    for name in ("running", "next", "bobs", "bobs_either"):
        assert status[jobs[name]].state is history[jobs[name]].state is not JobState.UNKNOWN


@pytest.mark.parametrize("row", ["7\x1fcpu", "7\x1fcpu\x1fhigh", "x\x1fcpu\x1f1", "7\x1fcpu\x1f1\x1f"])
def test_a_strange_queue_is_refused(row: str) -> None:
    """A row that is not of our shape is not half understood."""
    with pytest.raises(UnexpectedOutput, match="squeue"):
        SLURM.parse_pending(answer(row + "\n"))


def test_a_question_in_the_service_accounts_words() -> None:
    """One line on standard input; the name stands for messages alone."""
    command = Slurm(cluster="beta").account_command(Query.HISTORY, ["42", "43"])
    assert (command.name, command.stdin) == ("sacct", b"history beta 42,43\n")
    command = SLURM.account_command(Query.PENDING, ["cpu", "gpu-a.1"])
    assert (command.name, command.stdin) == ("squeue", b"pending - cpu,gpu-a.1\n")
    command = SLURM.account_command(Query.STATUS, ["42", "43"], ["hpchub-0f", "hpchub-1f"])
    assert command.stdin == b"status - 42,43 hpchub-0f,hpchub-1f\n"
    assert SLURM.times_command([JobId("42")]).name == "squeue"


@pytest.mark.parametrize("item", ["", "42_7", "4 2", "42\n43", "-1", "$(id)", "42,43", "x" * 70])
def test_a_service_account_asks_about_nothing_else(item: str) -> None:
    """What the forced command would refuse is not sent."""
    for query in (Query.STATUS, Query.HISTORY, Query.TIMES):
        with pytest.raises(InvalidRequest):
            SLURM.account_command(query, [item])
    if item != "42_7":  # which a partition may be called
        with pytest.raises(InvalidRequest):
            SLURM.account_command(Query.PENDING, [item])


@pytest.mark.parametrize(
    ("stderr", "never_sent"),
    [
        (golden("sbatch_munge_down").stderr, True),
        (golden("sbatch_controller_down").stderr, True),
        (golden("sbatch_controller_hangs").stderr, False),
        ("sbatch: error: Socket timed out\n" + golden("sbatch_controller_down").stderr, False),
        ("sbatch: error: Socket timed out\n" + golden("sbatch_munge_down").stderr, False),
        ("sbatch: error: Batch job submission failed: Protocol authentication error\n", False),
    ],
)
def test_what_was_never_sent_may_be_sent_again(stderr: str, never_sent: bool) -> None:
    """Only where no attempt can have reached slurmctld is a submission tried again."""
    with pytest.raises(SchedulerUnavailable) as caught:
        SLURM.parse_submit(answer(stderr=stderr, exit_code=1))
    assert caught.value.retryable is never_sent


# -- cancel ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["running", "ended", "vanished", "other_name", "others"])
def test_cancelling_what_is_over_is_no_error(name: str) -> None:
    """Running, ended, never heard of, or now another's: nothing of ours is left to be ended."""
    SLURM.parse_cancel(golden(f"scancel_{name}"))


def test_a_job_of_another_name_is_not_ours() -> None:
    """Its number alone ends no job, and a status by number and name does not show it."""
    command = SLURM.cancel_command(JobId("42"), "hpchub-0f")
    assert command.argv == ("scancel", "--name=hpchub-0f", "42")
    assert SLURM.parse_status(golden("squeue_other_name")) == {}
    assert [one.native for one in SLURM.parse_status(golden("squeue_own_name")).values()] == ["RUNNING"]


def test_the_job_is_named_by_us() -> None:
    """A site's template may name its jobs as it likes: the later option counts."""
    script = "#!/bin/bash\n#SBATCH --job-name=site\ntrue\n"
    argv = SLURM.submit_command(script, "hpchub-0f").argv
    assert argv[-2:] == ("--job-name=site", "--job-name=hpchub-0f")


def test_older_scancel_exits_with_an_error_for_ended_jobs() -> None:
    """Only complaints about jobs that are over are harmless."""
    ended = "scancel: error: Kill job error on job id 7: Job/step already completing or completed\n"
    SLURM.parse_cancel(answer(stderr=ended, exit_code=1))
    refused = "scancel: error: Kill job error on job id 8: Access/permission denied\n"
    with pytest.raises(UnexpectedOutput, match="permission denied"):
        SLURM.parse_cancel(answer(stderr=refused, exit_code=1))
    with pytest.raises(UnexpectedOutput):
        SLURM.parse_cancel(answer(stderr=ended + refused, exit_code=1))


# -- associations ------------------------------------------------------------------------------


def test_associations_of_people() -> None:
    """alice may charge two accounts, bob one, carol none, and neither may a stranger."""
    assert SLURM.parse_associations(golden("sacctmgr_alice")) == [
        Association(account="physics", is_default=True),
        Association(account="chemistry"),
    ]
    assert [found.account for found in SLURM.parse_associations(golden("sacctmgr_bob"))] == ["physics"]
    assert SLURM.parse_associations(golden("sacctmgr_carol")) == []
    assert SLURM.parse_associations(golden("sacctmgr_unknown")) == []


def test_odd_associations_are_left_out() -> None:
    """A person without any still has a row in some versions; a name no form can offer is dropped."""
    rows = "physics||\nphysics|physics|cpu\nphysics|a b|\nphysics|x|$(id)\n"
    assert SLURM.parse_associations(answer(rows)) == [
        Association(account="physics", partition="cpu", is_default=True)
    ]


# -- commands ----------------------------------------------------------------------------------


def test_a_named_cluster_is_asked_for() -> None:
    """Every command of a site with several clusters says which it means."""
    slurm, ids = Slurm(cluster="beta"), [JobId("7")]
    cancel = slurm.cancel_command(ids[0], "hpchub-0f")
    for command in (slurm.status_command(ids), slurm.history_command(ids), cancel):
        assert "--clusters=beta" in command.argv
    assert "cluster=beta" in slurm.associations_command("alice").argv


def test_attach_waits_for_nothing() -> None:
    """The step overlaps everything the job holds, and the command comes last, as it is."""
    argv = SLURM.attach_argv(JobId("7"), "c1", ("/usr/sbin/sshd", "-i"))
    assert argv[0] == "srun"
    assert argv[-2:] == ("/usr/sbin/sshd", "-i")
    assert {"--jobid=7", "--nodelist=c1", "--overlap", "--mem=0", "--gres=none", "--unbuffered"} <= set(argv)


@pytest.mark.parametrize("node", ["", "c1,c2", "c[1-2]", "-c1", "c1 c2", "c1\n", "/etc/nodes"])
def test_a_node_is_one_name(node: str) -> None:
    """srun would read a list, or a file of nodes."""
    with pytest.raises(InvalidRequest):
        SLURM.attach_argv(JobId("7"), node, ("true",))


@pytest.mark.parametrize("user", ["", "a,b", "*", "a b", "-a", "root", "a\n"])
def test_a_user_is_one_name(user: str) -> None:
    """sacctmgr would read a comma as several people."""
    with pytest.raises(InvalidRequest):
        SLURM.associations_command(user)
