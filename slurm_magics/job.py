"""A job that was submitted from the notebook: its state, its output, and what can be done with it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Generator
from pathlib import PurePath
from time import monotonic, sleep, time
from typing import TYPE_CHECKING, Any

from hpchub.core.job import JobStatus
from hpchub.schedulers.slurm_states import explain
from slurm_magics.array_tasks import Tasks
from slurm_magics.efficiency import Efficiency, has_heard, measure
from slurm_magics.errors import Interrupted, NotEnded, SlurmError
from slurm_magics.interrupts import raised_at_once, raised_where_awaited
from slurm_magics.job_ids import parse_job_id
from slurm_magics.output import Decoder, Text, last_lines
from slurm_magics.pace import count_failure, fresh_s, rest_s
from slurm_magics.progress import Progress
from slurm_magics.shown import in_kernel
from slurm_magics.submission import Outputs, Submission

if TYPE_CHECKING:
    from slurm_magics.jobs import Jobs
    from slurm_magics.machine import Machine
    from slurm_magics.plots import Plot

_GLANCE_S = 2.0
_FOLLOW_S = 0.5
_LATE_S = 20.0
_TAIL_BYTES = 1 << 20


class Job:
    """A job, an array, or one task of an array.

    Asking for its state asks Slurm, for all jobs of this notebook at once, and at most every two seconds.
    """

    def __init__(
        self, jobs: Jobs, job_id: str, submission: Submission, cluster: str, outputs: Outputs
    ) -> None:
        self.id = job_id
        self.cluster = cluster
        self.submission = submission
        self.outputs = outputs
        self._jobs = jobs
        jobs.watch(cluster).follow(parse_job_id(job_id).job)

    def __repr__(self) -> str:
        return f"Job {self.id}" + (f" on {self.cluster}" if self.cluster else "")

    @property
    def _machine(self) -> Machine:
        return self._jobs.session.machine

    @property
    def status(self) -> JobStatus:
        """State, reason, node and exit code, in Slurm's own words, and the state in hpchub's."""
        return self._jobs.status(self, _GLANCE_S)

    @property
    def state(self) -> str:
        """Slurm's own word: PENDING, RUNNING, COMPLETED. Of an array: of the task that says most."""
        return self.status.native

    @property
    def explanation(self) -> str:
        """One sentence: the state, and why, in plain words."""
        return explain(self.status)

    @property
    def is_over(self) -> bool:
        """Whether it has ended for good, well or not."""
        return self.status.state.is_final

    @property
    def array(self) -> Tasks:
        """Its array tasks: `job.array[3]`, `for task in job.array`, `len(job.array)`."""
        return Tasks(self)

    def _task(self, number: int) -> Job:
        task = f"{parse_job_id(self.id).job}_{number}"
        return Job(self._jobs, task, self.submission, self.cluster, self.outputs)

    @raised_at_once()
    def wait(self, timeout_s: float | None = None, *, progress: bool = True) -> str:
        """Waits for the end and returns the state. Ctrl-C ends the wait and leaves the job running.

        While Slurm does not answer it says so and goes on waiting: only a known end is one.

        Args:
            timeout_s: The longest wait, in seconds; None waits for ever.
            progress: Show a bar: the ended part of an array, else the used part of its time.

        Raises:
            NotEnded: The job has not ended in that time. It goes on. It is a TimeoutError.
            SlurmError: Slurm cannot be asked any more, such as through a connection that was closed.
        """
        began, failures = monotonic(), 0
        bar = Progress(f"Job {self.id}", self._machine.zone) if progress else None
        try:
            while True:
                waited = monotonic() - began
                look = self._jobs.look(self, fresh_s(waited))
                if bar:
                    bar.update(look)
                if look.status.state.is_final:
                    return look.status.native
                failures = count_failure(failures, look)
                pause_s = max(fresh_s(waited), rest_s(failures))
                if timeout_s is not None and waited >= timeout_s:
                    raise NotEnded(f"Job {self.id} has not ended within {timeout_s:g} s; it goes on.")
                sleep(pause_s if timeout_s is None else max(0.0, min(pause_s, timeout_s - waited)))
        except KeyboardInterrupt:
            print(f"Not waiting any more. Job {self.id} goes on; `cancel()` would end it.", file=sys.stderr)
            return self._jobs.last_look(self).status.native
        finally:
            if bar:
                bar.end()

    def __await__(self) -> Generator[None, None, str]:
        """`await job` waits for the end without holding up the kernel; the result is the state."""
        try:
            with raised_where_awaited():
                return (yield from self._ended().__await__())
        except (asyncio.CancelledError, KeyboardInterrupt) as error:
            # The stop button or Ctrl-C, as a rule. IPython's own hook: what it shows for a traceback.
            told: Any = error
            told._render_traceback_ = lambda: [f"Not waiting any more. Job {self.id} goes on."]
            raise

    async def _ended(self) -> str:
        began, failures = monotonic(), 0
        while True:
            pause_s = fresh_s(monotonic() - began)
            look = await asyncio.to_thread(self._jobs.look, self, pause_s)
            if look.status.state.is_final:
                return look.status.native
            failures = count_failure(failures, look)
            await asyncio.sleep(max(pause_s, rest_s(failures)))

    def _ipython_display_(self) -> None:
        """IPython's own hook: a card that follows the job; in a terminal, what it would say now."""
        if in_kernel():
            self._jobs.board.show(self)
        else:
            print(self._jobs.board.card(self, _GLANCE_S).text(time(), self._machine.zone))

    @property
    def output_path(self) -> PurePath:
        """The file that the job's standard output goes to, on the machine that the job was submitted from.

        Raises:
            SlurmError: Slurm has forgotten the job; or it is an array: name a task.
        """
        task = parse_job_id(self.id).task
        path = self.outputs.path(task)
        if not path:
            self.outputs.learn(self._jobs.outputs(self))
            path = self.outputs.path(task)
        if not path:
            first = "" if task is not None else str(min(self.outputs.tasks, default=""))
            raise SlurmError(
                f"Slurm does not say where the output of job {self.id} goes.",
                f"Each task of an array has an output of its own: try job.array[{first}]." if first else "",
            )
        return self._machine.path(path)

    @property
    def output(self) -> Text:
        """All that the job has written to its standard output so far; nothing before it has begun.

        Raises:
            SlurmError: It cannot be read, or is too much to be held in a notebook.
        """
        path = self.output_path
        found = self._machine.read(path)
        if not found and self._jobs.look(self, _GLANCE_S).status.state.is_final:
            print(self._nothing_in(path), file=sys.stderr)
        return Text(Decoder().decode(found[0], final=True) if found else "")

    def _nothing_in(self, path: PurePath) -> str:
        """Why there is no output, as far as that is known."""
        status = self._jobs.look(self, _GLANCE_S).status
        nothing = f"Job {self.id} has written nothing"
        if status.state.is_final:
            here = self._machine.name or "this machine"
            nothing += f", or to a disk of its own node: there is no {path} on {here}"
        return f"{nothing}. {explain(status)}"

    @raised_at_once()
    def tail(self, lines: int = 10, *, follow: bool = False) -> None:
        """Prints the last lines of the output; with `follow` goes on until the job ends, or Ctrl-C.

        What is written is printed while Slurm does not answer, too.
        """
        path = self.output_path
        position: int | None = None
        decoder = Decoder()
        failures, asks_at = 0, 0.0
        has_told = False
        try:
            while True:
                over = False
                if follow and monotonic() >= asks_at:  # before reading: nothing is missed at the end
                    look = self._jobs.look(self, _GLANCE_S)
                    over = look.status.state.is_final
                    failures = count_failure(failures, look)
                    asks_at = monotonic() + rest_s(failures)
                if found := self._machine.read(path, -_TAIL_BYTES if position is None else position):
                    text = decoder.decode(found[0], final=not follow or over)
                    sys.stdout.write(last_lines(text, lines) if position is None else text)
                    position = found[1]
                elif not has_told:
                    print(self._nothing_in(path), file=sys.stderr)
                    has_told = True
                if not follow or over:
                    return
                sys.stdout.flush()
                sleep(_FOLLOW_S)
        except KeyboardInterrupt:
            print(f"Not following any more. Job {self.id} goes on.", file=sys.stderr)

    @raised_at_once()
    def result(self, timeout_s: float | None = None) -> Any:
        """Waits for a job of `%%sbatch --python` and returns the value of its cell's last expression.

        Raises:
            NotEnded: It has not ended in that time. It goes on.
            SlurmError: It left no value.
            Exception: What the cell raised, with the job's traceback as a note.
        """
        from slurm_magics.python_cell import load

        __tracebackhide__ = True
        if self.submission.results is None:
            raise SlurmError(f"Job {self.id} has no result.", "Only jobs of %%sbatch --python have one.")
        if self.outputs.tasks and parse_job_id(self.id).task is None:
            first = min(self.outputs.tasks)
            raise SlurmError(
                f"{self.id} is an array: each of its tasks has a result.",
                f"For example: job.array[{first}].result()",
            )
        state = self.wait(timeout_s, progress=False)
        status = self._jobs.last_look(self).status
        if not status.state.is_final:
            raise SlurmError(f"Job {self.id} is {state}: it has no result yet.")
        try:
            return load(self.submission.results, self.id, explain(status))
        except KeyboardInterrupt:
            raise Interrupted("job.result()") from None

    def cancel(self) -> None:
        """Ends it. One that has ended already is no error."""
        self._jobs.cancel(self)

    def resubmit(self) -> Job:
        """A new job from the same script, options and folder."""
        if parse_job_id(self.id).task is not None:
            raise SlurmError(
                f"{self.id} is one task of an array.", "Submit the array again, or that task alone."
            )
        return self._jobs.submit(self.submission)

    def plot(self, every_s: float = 5.0) -> Plot | None:
        """CPUs and memory in use while it runs: a plot that grows until its end.

        There are `every_s` seconds between two looks, at least one. Outside of a notebook it is
        returned after two looks.

        Raises:
            SlurmError: The job does not run.
        """
        from slurm_magics.usage import follow

        return follow(self._jobs, self, every_s)

    @raised_at_once()
    def efficiency(self) -> Efficiency:
        """What it used of what it had asked for, from the accounting.

        Of a job that has just ended it waits some seconds until the accounting has heard of it.

        Raises:
            SlurmError: The accounting does not know it, or does not answer.
        """
        look = self._jobs.look(self, _GLANCE_S)
        deadline = monotonic() + _LATE_S
        while True:
            rows = self._jobs.accounting(self)
            if not look.status.state.is_final or has_heard(rows, look.tasks) or monotonic() > deadline:
                return measure(self.id, rows)
            sleep(_FOLLOW_S)
