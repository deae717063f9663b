"""What a running job uses, looked at again and again through sstat, and drawn."""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from hpchub.core.job import JobState
from hpchub.errors import UnexpectedOutput
from slurm_magics import values
from slurm_magics.errors import SlurmError, translated
from slurm_magics.shown import Shown, in_kernel

if TYPE_CHECKING:
    from slurm_magics.job import Job
    from slurm_magics.jobs import Jobs
    from slurm_magics.plots import Plot

_log = logging.getLogger(__name__)

# sstat(1): averages over the tasks of a step, so the tasks count. It knows no other delimiter than |.
_FIELDS = "JobID,NTasks,AveCPU,AveRSS"
_MOST_SAMPLES = 500
# Each sample is a question to every node of the job.
_LEAST_S = 1.0


def sample_command(job_id: str, where: Sequence[str] = ()) -> tuple[str, ...]:
    """What asks for all steps of a job, for `parse_sstat`; `where` chooses the cluster."""
    argv = ("sstat", *where, "--allsteps", "--noheader", "--parsable2")
    return (*argv, f"--jobs={job_id}", f"--format={_FIELDS}")


@dataclass(frozen=True, slots=True)
class Sample:
    """One look: when, CPU seconds used so far by all steps, bytes in memory now."""

    at: float
    cpu_s: float
    memory_bytes: int


def parse_sstat(text: str, at: float) -> Sample:
    """All steps of a job together, from lines of the four fields. Slurm itself writes each of them.

    Raises:
        SlurmError: A line is none of these.
    """
    cpu_s, memory = 0.0, 0
    for line in filter(None, text.split("\n")):
        try:
            _, tasks, cpu, size = line.split("|")
            count = values.count(tasks) or 0
            cpu_s += count * (values.duration_ms(cpu) or 0) / 1000
            memory += count * (values.size(size) or 0)
        except ValueError as error:
            raise translated(UnexpectedOutput("sstat", line)) from error
    return Sample(at, cpu_s, memory)


@dataclass(slots=True)
class Usage:
    """The samples of one job."""

    jobs: Jobs
    job: Job
    samples: list[Sample] = field(default_factory=list)

    def look(self) -> None:
        """Take one more sample.

        Raises:
            SlurmError: The job does not run, or Slurm does not answer, or with something else.
        """
        where = self.jobs.clusters(self.job)
        answer = self.jobs.session.run(sample_command(self.job.id, where))
        self.samples.append(parse_sstat(answer.text, time.monotonic()))
        if len(self.samples) > _MOST_SAMPLES:
            del self.samples[1::2]

    def plot(self) -> Plot:
        """The samples so far."""
        from slurm_magics.plots import plot_samples

        first = self.samples[0].at
        drawn: list[tuple[float, float | None, int]] = []
        for before, now in zip([None, *self.samples], self.samples, strict=False):
            spent = (
                None if before is None else max(0.0, now.cpu_s - before.cpu_s) / max(0.1, now.at - before.at)
            )
            drawn.append((now.at - first, spent, now.memory_bytes))
        return plot_samples(f"Job {self.job.id}", drawn)


def follow(jobs: Jobs, job: Job, every_s: float) -> Plot | None:
    """A plot that grows until the job ends; outside of a notebook a plot of two looks.

    There are `every_s` seconds between two looks, at least one.

    Raises:
        SlurmError: The job does not run.
    """
    state = jobs.status(job, 0.0)
    if state.state is not JobState.RUNNING:
        raise SlurmError(
            f"Job {job.id} does not run: it is {state.native}.", "job.efficiency() tells of ended jobs."
        )
    pause_s = max(_LEAST_S, every_s)
    usage = Usage(jobs, job)
    usage.look()
    if not in_kernel():
        time.sleep(pause_s)
        usage.look()
        return usage.plot()
    shown = Shown(*_page(usage))
    thread = threading.Thread(
        target=_keep, args=(usage, shown, pause_s), name="slurm-magics-plot", daemon=True
    )
    thread.start()
    return None


def _keep(usage: Usage, shown: Shown, pause_s: float) -> None:
    while True:
        look = usage.jobs.look(usage.job, pause_s)
        if look.status.state.is_final or (look.trouble and not look.trouble.retryable):
            return
        time.sleep(pause_s)
        try:
            usage.look()
        except SlurmError as error:  # it ends at this moment, or Slurm is away: the next look tells
            _log.info("magics.no_sample job=%s error=%s", usage.job.id, error.message)
            continue
        shown.update(*_page(usage))


def _page(usage: Usage) -> tuple[str, str]:
    """As HTML and as text."""
    last = usage.samples[-1]
    text = f"Job {usage.job.id}: {last.cpu_s:.0f} s of CPU time used, {last.memory_bytes >> 20} MB in memory"
    picture = base64.b64encode(usage.plot()._repr_png_()).decode("ascii")
    return f'<img src="data:image/png;base64,{picture}" alt="{escape(text)}">', text
