"""Submits jobs, and does for them what they are asked to do: every command of theirs is here."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hpchub.core.job import JobStatus
from hpchub.schedulers.slurm import Slurm
from slurm_magics.board import Board
from slurm_magics.delimited import new_mark
from slurm_magics.efficiency import FIELDS
from slurm_magics.errors import Interrupted, SlurmError
from slurm_magics.hostlist import expand_numbers
from slurm_magics.interrupts import held_back
from slurm_magics.job import Job
from slurm_magics.queries import plan
from slurm_magics.session import WHOLE_LISTS, Session
from slurm_magics.submission import Outputs, Submission
from slurm_magics.watch import Look, Watch

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)

_PARSABLE = re.compile(r"([0-9]+)(?:;(\S+))?", re.ASCII)
# What users write comes before the path in a record: of several such lines the last is Slurm's.
_RECORD = re.compile(
    r"^JobId=[0-9]+(?: ArrayJobId=[0-9]+ ArrayTaskId=(?P<tasks>[0-9,:%-]+)(?= )"
    r"| HetJobId=[0-9]+ HetJobOffset=(?P<offset>[0-9]+)(?= ))?",
    re.MULTILINE,
)
_STDOUT = re.compile(r"^   StdOut=(.+)$", re.MULTILINE)


class Jobs:
    """The jobs of one kernel. Cells, cards and plots use it from threads of their own."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._watches: dict[str, Watch] = {}
        self._lock = threading.Lock()
        self.board = Board(self)

    def watch(self, cluster: str) -> Watch:
        """The watch over all jobs of one cluster; the local one has an empty name."""
        with self._lock:
            if cluster not in self._watches:
                # hpchub's own parsers tell refusals apart.
                self._watches[cluster] = Watch(Slurm(cluster), self.session.result)
            return self._watches[cluster]

    def submit(self, submission: Submission) -> Job:
        """sbatch, with the user's own options. Its answer is waited for, whatever is pressed meanwhile.

        Raises:
            SlurmError: Slurm refused, or did not answer, or gave no id.
            Interrupted: Somebody pressed Ctrl-C. It has the job.
        """
        job: Job | None = None
        try:
            with held_back("Waiting for the number of the job that sbatch submits."):
                job = self._handed_in(submission)
            job.outputs.learn(self.outputs(job))
        except SlurmError:
            if job is None:
                raise
            _log.warning("magics.no_output_path job=%s", job.id)  # asked again when somebody wants it
        except KeyboardInterrupt:
            raise Interrupted("sbatch", job) from None
        return job

    def _handed_in(self, submission: Submission) -> Job:
        argv = ("sbatch", "--parsable", *submission.words)
        answer = self.session.run(argv, stdin=submission.script, cwd=submission.folder)
        matches = [_PARSABLE.fullmatch(line.strip()) for line in answer.text.split("\n")]
        found = [match for match in matches if match]
        if not found:
            said = f"{answer.text}\n{answer.stderr}".strip() or "nothing at all"
            raise SlurmError(f"sbatch gave no job id. It said: {said}", stderr=answer.stderr)
        job_id, cluster = found[-1].groups(default="")
        self.changed()
        return Job(self, job_id, submission, cluster, Outputs())

    def status(self, job: Job, max_age_s: float) -> JobStatus:
        """The job's status, no older than that many seconds.

        Raises:
            SlurmError: Slurm does not answer.
        """
        look = self.look(job, max_age_s)
        if look.trouble:
            raise look.trouble
        return look.status

    def look(self, job: Job, max_age_s: float) -> Look:
        """The same, with its times, and how many tasks of an array have ended; never fails."""
        return self.watch(job.cluster).look(job.id, max_age_s)

    def last_look(self, job: Job) -> Look:
        """What was known last, without asking."""
        return self.watch(job.cluster).look(job.id, float("inf"), ask=False)

    def cancel(self, job: Job) -> None:
        """scancel. Slurm exits with 0, and says so, where the job has ended."""
        self.session.run(("scancel", *self.clusters(job), job.id))
        self.changed()

    def outputs(self, job: Job) -> Outputs:
        """Where standard output goes: of the tasks that have begun, by number, and of the rest by None."""
        argv = ("scontrol", *self.clusters(job), "show", "job", job.id)
        answer = self.session.run(argv, environ=WHOLE_LISTS)
        starts = [*_RECORD.finditer(answer.text)]
        found: dict[int | None, str] = {}
        tasks: set[int] = set()
        for place, start in enumerate(starts):
            end = starts[place + 1].start() if place + 1 < len(starts) else None
            paths = _STDOUT.findall(answer.text[start.end() : end])
            own = start["tasks"] or ""
            with contextlib.suppress(ValueError):  # none; or a job's name that looks like a record
                tasks.update(expand_numbers(own))
            # The script of a heterogeneous job is its first component's; the others' paths are of no file.
            if paths and start["offset"] in {None, "0"}:
                found[int(own) if own.isdecimal() else None] = paths[-1]
        return Outputs(found, frozenset(tasks))

    def accounting(self, job: Job) -> pd.DataFrame:
        """sacct's rows of the job and its steps."""
        words = (*self.clusters(job), f"--jobs={job.id}", f"--format={FIELDS}")
        query = plan("sacct", words, self.session.machine.environ, new_mark())
        if query is None:
            raise AssertionError("sacct is asked for a table")
        return self.session.frame(query)

    def changed(self) -> None:
        """Something was changed: what is known of the queue and the jobs may be wrong."""
        self.session.forget()
        with self._lock:
            watches = list(self._watches.values())
        for watch in watches:
            watch.forget()

    @staticmethod
    def clusters(job: Job) -> Sequence[str]:
        """The option that names the job's cluster, where sbatch gave one."""
        return (f"--clusters={job.cluster}",) if job.cluster else ()
