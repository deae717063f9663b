"""Slurm: what to run, and how to read what it answers. Checked on 22.05.

No query asks for text that a user wrote: a job name may hold a newline and our separator, and so
forge the row of another job.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

from hpchub.core.command import Command, CommandResult
from hpchub.core.job import Association, JobId, JobStatus, JobTimes, PendingJob, Query
from hpchub.core.slugs import SCHEDULER_NAME, is_safe_account_name, is_scheduler_name
from hpchub.errors import InvalidRequest, UnexpectedOutput
from hpchub.remote.slurm_query import query_line
from hpchub.schedulers.slurm_directives import read_directives
from hpchub.schedulers.slurm_errors import failure, rejection
from hpchub.schedulers.slurm_rows import (
    NODE,
    NUMBER,
    SEPARATOR,
    checked_id,
    checked_name,
    ids_alone,
    joined,
    named,
    rows,
    single_node,
    told,
    unix_time,
)
from hpchub.schedulers.slurm_states import explain, state_of

_log = logging.getLogger(__name__)

# squeue(1), --format: job id, state, batch host, reason. Slurm writes all four itself.
_STATUS_FORMAT = SEPARATOR.join(("%i", "%T", "%B", "%r"))
# Job id, state, start and end, the start a guess while it is pending.
_TIMES_FORMAT = SEPARATOR.join(("%i", "%T", "%S", "%e"))
_HISTORY_FIELDS = "JobID,State,NodeList,ExitCode"
_ASSOCIATION_FIELDS = "DefaultAccount,Account,Partition"
_NO_ACCOUNTING = "Slurm accounting storage is disabled"

_PARSABLE_ID = re.compile(r"([0-9]+)(?:;[^\s;]+)?", re.ASCII)

# Without munge sbatch tries for 50 s, on 22.05, before it says that it sent nothing. Given up earlier, nobody
# could tell whether it did.
_SUBMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Slurm:
    """The Slurm backend. `cluster` is for sites whose accounting knows several clusters."""

    cluster: str = ""

    def submit_command(self, script: str, job_name: str = "") -> Command:
        """sbatch, the script on standard input.

        The script's directives are given again as options: variables such as SBATCH_PARTITION, which
        people set in their profiles, override directives but not options (sbatch(1)). Of an option that
        is given twice the later one counts, so a site's template cannot give the job another name.
        """
        name = (f"--job-name={checked_name(job_name)}",) if job_name else ()
        argv = ("sbatch", "--parsable", *self._clusters(), *read_directives(script), *name)
        return Command(argv=argv, stdin=script.encode(), timeout_s=_SUBMIT_S)

    def parse_submit(self, result: CommandResult) -> JobId:
        """The last line of stdout that is an id alone: a site's wrapper may print notices before it.

        Raises:
            SubmitRejected: Slurm refused, in its own words.
            SchedulerUnavailable: Slurm did not answer. Not retryable where the job may exist.
            UnexpectedOutput: There is neither an id nor a refusal.
        """
        matches = [_PARSABLE_ID.fullmatch(line.strip()) for line in result.stdout.split("\n")]
        ids = [match[1] for match in matches if match]
        if result.exit_code == 0 and ids:
            return JobId(ids[-1])
        error = failure("sbatch", result)
        if result.exit_code != 0 and isinstance(error, UnexpectedOutput):
            raise rejection(result) or error
        raise error

    def lookup_command(self, job_name: str) -> Command:
        """squeue, by name; `--me`, because anybody may give a job that name."""
        where = (*self._clusters(), f"--name={checked_name(job_name)}")
        return Command(argv=("squeue", "--noheader", "--me", "--states=all", *where, "--format=%i"))

    def parse_lookup(self, result: CommandResult) -> list[JobId]:
        """The ids; empty where the queue has no such job."""
        if result.exit_code != 0:
            raise failure("squeue", result)
        return ids_alone("squeue", result.stdout)

    def status_command(self, ids: Sequence[JobId], names: Sequence[str] = ()) -> Command:
        """squeue, once for all the jobs. Without --states=all it would leave out ended ones."""
        where = (*self._clusters(), *named(names), f"--jobs={joined(ids)}")
        return Command(argv=("squeue", "--noheader", "--states=all", *where, f"--format={_STATUS_FORMAT}"))

    def parse_status(self, result: CommandResult) -> dict[JobId, JobStatus]:
        """Status by id; an absent id is unknown.

        One vanished id alone makes squeue exit with 1, one among several does not: neither is an
        error.
        """
        if result.exit_code != 0 and "Invalid job id specified" not in result.stderr:
            raise failure("squeue", result)
        jobs = {}
        for job_id, native, node, reason in rows("squeue", result.stdout, 4):
            jobs[checked_id("squeue", job_id)] = JobStatus(
                state=state_of(native), native=native, node=single_node(node), reason=told(reason)
            )
        return jobs

    def history_command(self, ids: Sequence[JobId], names: Sequence[str] = ()) -> Command:
        """sacct, allocations only. With --jobs it looks back without limit: sacct(1), -j."""
        argv = (
            "sacct",
            "--allocations",
            "--noheader",
            "--parsable2",
            f"--delimiter={SEPARATOR}",
            *self._clusters(),
            *named(names),
            f"--jobs={joined(ids)}",
            f"--format={_HISTORY_FIELDS}",
        )
        return Command(argv=argv)

    def parse_history(self, result: CommandResult) -> dict[JobId, JobStatus]:
        """Status by id, as the accounting has it. Where a site keeps no accounting it is empty."""
        if result.exit_code != 0:
            if _NO_ACCOUNTING in result.stderr:
                return {}
            raise failure("sacct", result)
        jobs = {}
        for job_id, native, node, exit_code in rows("sacct", result.stdout, 4):
            jobs[checked_id("sacct", job_id)] = JobStatus(
                state=state_of(native), native=native, node=single_node(node), exit_code=exit_code
            )
        return jobs

    def times_command(self, ids: Sequence[JobId], names: Sequence[str] = ()) -> Command:
        """squeue, once for all the jobs; times in Unix seconds, for the node's time zone is not told."""
        where = (*self._clusters(), *named(names), f"--jobs={joined(ids)}", f"--format={_TIMES_FORMAT}")
        return Command(argv=("env", "SLURM_TIME_FORMAT=%s", "squeue", "--noheader", "--states=all", *where))

    def parse_times(self, result: CommandResult) -> dict[JobId, JobTimes]:
        """Times by id; an absent id is unknown."""
        if result.exit_code != 0 and "Invalid job id specified" not in result.stderr:
            raise failure("squeue", result)
        return {
            checked_id("squeue", job_id): JobTimes(
                native=native, starts_at=unix_time(start), ends_at=unix_time(end)
            )
            for job_id, native, start, end in rows("squeue", result.stdout, 4)
        }

    def parse_pending(self, result: CommandResult) -> list[PendingJob]:
        """Every row of the queue; a partition's name is the site's own, whoever asked for it."""
        if result.exit_code != 0:
            raise failure("squeue", result)
        found = []
        for job_id, partitions, priority in rows("squeue", result.stdout, 3):
            if not NUMBER.fullmatch(priority):
                raise UnexpectedOutput("squeue", priority)
            found.append(
                PendingJob(
                    job_id=checked_id("squeue", job_id),
                    partitions=tuple(partitions.split(",")),
                    priority=int(priority),
                )
            )
        return found

    def account_command(self, query: Query, items: Sequence[str], names: Sequence[str] = ()) -> Command:
        """The words on standard input. Such a command takes ids of whole jobs and names of partitions."""
        pattern = SCHEDULER_NAME if query is Query.PENDING else NUMBER
        if not items or not all(pattern.fullmatch(item) for item in items):
            raise InvalidRequest(f"A service account cannot ask about {','.join(items)[:40]!r}.")
        named(names)
        tool = "sacct" if query is Query.HISTORY else "squeue"
        return Command(argv=(tool,), stdin=query_line(query, items, self.cluster, names))

    def cancel_command(self, job_id: JobId, job_name: str) -> Command:
        """scancel, by id and name together: a job must match both.

        One of another name is left alone and scancel exits with 0; on one that has ended or is somebody
        else's it says that there is no such id.
        """
        return Command(argv=("scancel", *self._clusters(), *named([job_name]), joined([job_id])))

    def parse_cancel(self, result: CommandResult) -> None:
        """Returns where the jobs will end, or have ended, or never were."""
        if result.exit_code == 0:
            return
        harmless = (
            "Invalid job id specified",
            "Job/step already completing or completed",
            "No active jobs match ALL job filters",
        )
        complaints = [line for line in result.stderr.split("\n") if line.startswith("scancel: error")]
        if complaints and all(any(words in line for words in harmless) for line in complaints):
            return
        raise failure("scancel", result)

    def associations_command(self, user: str) -> Command:
        """sacctmgr, one person's associations; of all clusters where `cluster` is not set."""
        if not is_safe_account_name(user):  # sacctmgr would read a comma as a list of people
            raise InvalidRequest(f"{user[:40]!r} is no account name.")
        where = (f"cluster={self.cluster}",) if self.cluster else ()
        argv = (
            "sacctmgr",
            "--noheader",
            "--parsable2",
            "--readonly",
            "show",
            "user",
            user,
            "withassoc",
            *where,
        )
        return Command(argv=(*argv, f"format={_ASSOCIATION_FIELDS}"))

    def parse_associations(self, result: CommandResult) -> list[Association]:
        """What the person may charge. Names that no form could offer are left out, and logged."""
        if result.exit_code != 0:
            raise failure("sacctmgr", result)
        found = []
        for default, account, partition in rows("sacctmgr", result.stdout, 3, separator="|"):
            if not account:  # a person without any association still has a row
                continue
            if not is_scheduler_name(account) or (partition and not is_scheduler_name(partition)):
                _log.warning("slurm.odd_association account=%r partition=%r", account, partition)
                continue
            found.append(Association(account=account, partition=partition, is_default=account == default))
        return list(dict.fromkeys(found))

    def attach_argv(self, job_id: JobId, node: str, argv: Sequence[str]) -> tuple[str, ...]:
        """srun, as one more step of a running job that waits for nothing.

        `--overlap` shares what other steps hold: CPUs before 21.08, later memory and GPUs as well;
        `--mem=0` and `--gres=none` give the same to older ones. A site's MPI start-up is only in the
        way. `--unbuffered`, because srun otherwise keeps back what is no whole line. `--export=NONE`:
        the step takes nothing of the login node's environment, and so wants absolute paths.
        """
        joined([job_id])
        if not NODE.fullmatch(node):
            raise InvalidRequest(f"{node[:40]!r} is no node name.")
        return (
            "srun",
            f"--jobid={job_id}",
            f"--nodelist={node}",
            "--nodes=1",
            "--ntasks=1",
            "--overlap",
            "--mem=0",
            "--gres=none",
            "--mpi=none",
            "--export=NONE",
            "--unbuffered",
            "--quiet",
            *argv,
        )

    def explain(self, status: JobStatus, log_tail: str = "") -> str:
        """The state and its reason in plain words, Slurm's own beside them."""
        return explain(status, log_tail)

    def _clusters(self) -> tuple[str, ...]:
        return (f"--clusters={self.cluster}",) if self.cluster else ()
