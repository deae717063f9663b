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
from hpchub.core.job import Association, JobId, JobStatus
from hpchub.core.slugs import is_safe_account_name, is_scheduler_name
from hpchub.errors import InvalidRequest, UnexpectedOutput
from hpchub.schedulers.slurm_directives import read_directives
from hpchub.schedulers.slurm_errors import failure, rejection
from hpchub.schedulers.slurm_states import explain, state_of

_log = logging.getLogger(__name__)

_SEPARATOR = "\x1f"
# squeue(1), --format: job id, state, batch host, reason. Slurm writes all four itself.
_STATUS_FORMAT = _SEPARATOR.join(("%i", "%T", "%B", "%r"))
_HISTORY_FIELDS = "JobID,State,NodeList,ExitCode"
_ASSOCIATION_FIELDS = "DefaultAccount,Account,Partition"
_NO_ACCOUNTING = "Slurm accounting storage is disabled"
_LOOK_BACK = "7days"  # longer than any bridge is away

_PARSABLE_ID = re.compile(r"([0-9]+)(?:;[^\s;]+)?", re.ASCII)
# 42, an array's 42_7 and 42_[1-9%2], a heterogeneous job's 42+1.
_JOB_ID = re.compile(r"[0-9]{1,10}(?:_[0-9]+|_\[[0-9,:%.-]+\]|\+[0-9]+)?", re.ASCII)
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*", re.ASCII)
# A comma would ask for a list of names.
_JOB_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Slurm:
    """The Slurm backend. `cluster` is for sites whose accounting knows several clusters."""

    cluster: str = ""

    def submit_command(self, script: str) -> Command:
        """sbatch, the script on standard input.

        The script's directives are given again as options: variables such as SBATCH_PARTITION, which
        people set in their profiles, override directives but not options (sbatch(1)).
        """
        argv = ("sbatch", "--parsable", *self._clusters(), *read_directives(script))
        return Command(argv=argv, stdin=script.encode())

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
        where = (*self._clusters(), f"--name={_checked_name(job_name)}")
        return Command(argv=("squeue", "--noheader", "--me", "--states=all", *where, "--format=%i"))

    def parse_lookup(self, result: CommandResult) -> list[JobId]:
        """The ids; empty where the queue has no such job."""
        if result.exit_code != 0:
            raise failure("squeue", result)
        return _ids_alone("squeue", result.stdout)

    def history_lookup_command(self, job_name: str) -> Command:
        """sacct, by name. It shows one's own jobs unless told otherwise, and of today: hence a start."""
        argv = ("sacct", "--allocations", "--noheader", "--parsable2", *self._clusters())
        where = (f"--name={_checked_name(job_name)}", f"--starttime=now-{_LOOK_BACK}")
        return Command(argv=(*argv, *where, "--format=JobID"))

    def parse_history_lookup(self, result: CommandResult) -> list[JobId]:
        """The ids; empty where the accounting has no such job, or the site keeps none."""
        if result.exit_code != 0:
            if _NO_ACCOUNTING in result.stderr:
                return []
            raise failure("sacct", result)
        return _ids_alone("sacct", result.stdout)

    def status_command(self, ids: Sequence[JobId]) -> Command:
        """squeue, once for all the jobs. Without --states=all it would leave out ended ones."""
        fields = f"--format={_STATUS_FORMAT}"
        return Command(
            argv=("squeue", "--noheader", "--states=all", *self._clusters(), f"--jobs={_joined(ids)}", fields)
        )

    def parse_status(self, result: CommandResult) -> dict[JobId, JobStatus]:
        """Status by id; an absent id is unknown.

        One vanished id alone makes squeue exit with 1, one among several does not: neither is an
        error.
        """
        if result.exit_code != 0 and "Invalid job id specified" not in result.stderr:
            raise failure("squeue", result)
        jobs = {}
        for job_id, native, node, reason in _rows("squeue", result.stdout, 4):
            jobs[_checked_id("squeue", job_id)] = JobStatus(
                state=state_of(native), native=native, node=_single_node(node), reason=_told(reason)
            )
        return jobs

    def history_command(self, ids: Sequence[JobId]) -> Command:
        """sacct, allocations only. With --jobs it looks back without limit: sacct(1), -j."""
        argv = (
            "sacct",
            "--allocations",
            "--noheader",
            "--parsable2",
            f"--delimiter={_SEPARATOR}",
            *self._clusters(),
            f"--jobs={_joined(ids)}",
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
        for job_id, native, node, exit_code in _rows("sacct", result.stdout, 4):
            jobs[_checked_id("sacct", job_id)] = JobStatus(
                state=state_of(native), native=native, node=_single_node(node), exit_code=exit_code
            )
        return jobs

    def cancel_command(self, ids: Sequence[JobId]) -> Command:
        """scancel, for all the jobs at once."""
        _joined(ids)
        return Command(argv=("scancel", *self._clusters(), *ids))

    def parse_cancel(self, result: CommandResult) -> None:
        """Returns where the jobs will end, or have ended, or never were."""
        if result.exit_code == 0:
            return
        harmless = ("Invalid job id specified", "Job/step already completing or completed")
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
        for default, account, partition in _rows("sacctmgr", result.stdout, 3, separator="|"):
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
        _joined([job_id])
        if not _NODE.fullmatch(node):
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

    def explain(self, status: JobStatus) -> str:
        """The state and its reason in plain words, Slurm's own beside them."""
        return explain(status)

    def _clusters(self) -> tuple[str, ...]:
        return (f"--clusters={self.cluster}",) if self.cluster else ()


def _joined(ids: Sequence[JobId]) -> str:
    """Ids for one option. Never none: squeue and sacct would then list everybody's jobs."""
    if not ids:
        raise InvalidRequest("No job was named.")
    for job_id in ids:
        if not _JOB_ID.fullmatch(job_id):
            raise InvalidRequest(f"{job_id[:40]!r} is no job id of Slurm's.")
    return ",".join(ids)


def _checked_name(job_name: str) -> str:
    if not _JOB_NAME.fullmatch(job_name):
        raise InvalidRequest(f"{job_name[:40]!r} is no name of a job of ours.")
    return job_name


def _ids_alone(tool: str, text: str) -> list[JobId]:
    """The lines that are an id alone, once each.

    Raises:
        UnexpectedOutput: There is text and no id: that would not prove that there is no job.
    """
    lines = [line.strip() for line in text.split("\n")]
    lines = [line for line in lines if line and not line.startswith("CLUSTER: ")]
    ids = [JobId(line) for line in lines if _JOB_ID.fullmatch(line)]
    if lines and not ids:
        raise UnexpectedOutput(tool, lines[0])
    return list(dict.fromkeys(ids))


def _rows(tool: str, text: str, width: int, separator: str = _SEPARATOR) -> list[list[str]]:
    """The rows of a table. Lines without a separator are a site's notices, and logged.

    Raises:
        UnexpectedOutput: A row has another number of fields, or there are notices and no row.
    """
    rows, notices = [], []
    for line in text.split("\n"):  # splitlines() also breaks at \x1e and \x85
        if separator in line:
            fields = line.split(separator)
            if len(fields) != width:
                raise UnexpectedOutput(tool, line)
            rows.append([field.strip() for field in fields])
        elif line.strip() and not line.startswith("CLUSTER: "):
            notices.append(line)
    if notices and not rows:
        raise UnexpectedOutput(tool, notices[0])
    if notices:
        _log.warning("slurm.notice tool=%s lines=%d", tool, len(notices))
    return rows


def _checked_id(tool: str, text: str) -> JobId:
    if not _JOB_ID.fullmatch(text):
        raise UnexpectedOutput(tool, text)
    return JobId(text)


def _told(reason: str) -> str:
    """A reason; empty for the words with which Slurm says that there is none."""
    return "" if reason in {"None", "(null)"} else reason


def _single_node(text: str) -> str:
    """A node's name; empty for Slurm's `n/a`, `None assigned`, and lists of several nodes."""
    return text if _NODE.fullmatch(text) else ""
