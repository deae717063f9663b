"""What a scheduler must be able to do. One file and one template folder make a backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hpchub.core.command import Command, CommandResult
from hpchub.core.job import Association, JobId, JobStatus, JobTimes, PendingJob, Query


class Scheduler(Protocol):
    """Pairs of a command for the cluster and the parser of its answer. No pair does any I/O.

    Every parser raises only: SubmitRejected or AccountProblem (the person can mend it),
    SchedulerUnavailable (the controller did not answer), UnexpectedOutput (nobody can read it).
    """

    def submit_command(self, script: str, job_name: str = "") -> Command:
        """Submits a script given on standard input, under a name that the script cannot change."""

    def parse_submit(self, result: CommandResult) -> JobId:
        """The new job's id. A refusal keeps the scheduler's own words."""

    def lookup_command(self, job_name: str) -> Command:
        """Asks for the ids of the person's own jobs of that name, in the queue or just ended.

        For an id that was lost between the scheduler's answer and our store: the name must be of one
        job alone. It prints ids and no name.
        """

    def parse_lookup(self, result: CommandResult) -> list[JobId]:
        """The ids; empty where the scheduler knows no such job."""

    def status_command(self, ids: Sequence[JobId], names: Sequence[str] = ()) -> Command:
        """Asks for the state of jobs, and for no text that a user wrote.

        With `names`, only of jobs that bear one of them: a scheduler that was killed may give a number out
        again. The names choose rows and are not printed.
        """

    def parse_status(self, result: CommandResult) -> dict[JobId, JobStatus]:
        """Status by id. An absent id is unknown, not finished: look in the history."""

    def history_command(self, ids: Sequence[JobId], names: Sequence[str] = ()) -> Command:
        """Asks the accounting, which remembers jobs the queue has forgotten. `names` as above."""

    def parse_history(self, result: CommandResult) -> dict[JobId, JobStatus]:
        """Status by id, as the accounting has it."""

    def times_command(self, ids: Sequence[JobId], names: Sequence[str] = ()) -> Command:
        """Asks when jobs start and end. `names` as above."""

    def parse_times(self, result: CommandResult) -> dict[JobId, JobTimes]:
        """Times by id; an absent id is unknown."""

    def parse_pending(self, result: CommandResult) -> list[PendingJob]:
        """Everybody's jobs that wait, as a service account is told of them."""

    def account_command(self, query: Query, items: Sequence[str], names: Sequence[str] = ()) -> Command:
        """A question in the words that the forced command of a service account reads. `names` as above."""

    def cancel_command(self, job_id: JobId, job_name: str) -> Command:
        """Ends a job, if it bears that name: never another that has its number. An ended one is no error."""

    def parse_cancel(self, result: CommandResult) -> None:
        """Returns where the jobs will end; raises where the scheduler could not be told."""

    def associations_command(self, user: str) -> Command:
        """Asks which accounts a person may charge."""

    def parse_associations(self, result: CommandResult) -> list[Association]:
        """What the person may charge; empty where there is nothing."""

    def attach_argv(self, job_id: JobId, node: str, argv: Sequence[str]) -> tuple[str, ...]:
        """The command that runs `argv` beside a running job on its node, its streams unbuffered."""

    def explain(self, status: JobStatus, log_tail: str = "") -> str:
        """The state and its reason in plain words, for the person.

        `log_tail` is the end of the job's own log, where a scheduler may say what its state does not.
        """
