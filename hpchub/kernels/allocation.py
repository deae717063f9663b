"""A job for kernels: submitted, waited for, asked about and ended by Slurm's commands on this machine.

Its folder in the home, which both nodes see, holds the script, the agent, the key, the log, and what
claims.py keeps there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpchub.core.command import Command, CommandResult
from hpchub.core.job import JobId, JobState, JobStatus
from hpchub.core.job_sshd import inner_sshd_argv
from hpchub.errors import GivenUp, HpchubError, SchedulerUnavailable, StartFailed
from hpchub.kernels.claims import RECORD, abandoned, records, unsubmitted
from hpchub.kernels.health import last_words
from hpchub.kernels.job_settings import Attach, JobSettings
from hpchub.kernels.step import StepWay, slurm_environ, step_files
from hpchub.kernels.waiting import GLANCE_S
from hpchub.private_files import read_private_file, write_private_file
from hpchub.remote import kernel_agent
from hpchub.schedulers.render import render_kernel_script
from hpchub.schedulers.slurm import Slurm
from hpchub.schedulers.slurm_states import explain

_log = logging.getLogger(__name__)

# Seconds since the wait began, and the pause between two questions until then.
_PACE = ((3.0, 0.25), (15.0, 1.0), (60.0, 3.0), (float("inf"), 10.0))
_AGENT_S = 60.0
_SLURM = Slurm()
_AGENT = Path(kernel_agent.__file__)
_LOG = "job.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a job's agent listens: a port, or behind a step of the job. `node` is for people."""

    node: str
    address: str = ""
    port: int = 0
    step: StepWay | None = None

    @property
    def way(self) -> str:
        """How it is reached, for people."""
        return "by a step of its job" if self.step else f"at {self.address}, port {self.port}"


class Allocation:
    """One job, by its folder."""

    def __init__(self, folder: Path, job_id: str = "") -> None:
        self.folder = folder
        self.id = JobId(job_id)
        self.status = JobStatus(state=JobState.UNKNOWN, native="")
        self._doubt = ""
        self._is_cancelled = False
        self._name = f"hpchub-kernel-{folder.name[:12]}"

    @property
    def key(self) -> bytes:
        """What both sides prove that they know."""
        return bytes.fromhex(read_private_file(self.folder / kernel_agent.KEY).decode().strip())

    @property
    def is_recorded(self) -> bool:
        """Whether another notebook server could find it."""
        return (self.folder / RECORD).exists()

    @property
    def explanation(self) -> str:
        """Its state and why, in plain words; while no state is known, why not."""
        if not self.status.native:
            return self._doubt or "Slurm does not know it, or no longer."
        return explain(self.status, _tail(self.folder / _LOG))

    @property
    def last_words(self) -> str:
        """What the job's log ends with."""
        return last_words(_tail(self.folder / _LOG))

    async def submit(self, settings: JobSettings) -> None:
        """Hands the job to Slurm.

        Raises:
            SubmitRejected: Slurm refused it.
            SchedulerUnavailable: Slurm did not answer.
            ConfigError: A template or the home is wrong.
        """
        self._fill_folder()
        if settings.attach is Attach.SRUN:
            await asyncio.to_thread(step_files, self.folder)
        script = render_kernel_script(
            settings.templates, settings=settings, job_name=self._name, folder=str(self.folder)
        )
        command = _SLURM.submit_command(script, self._name)
        # No task: where a loop ends it cancels all of its tasks.
        asked = asyncio.get_running_loop().run_in_executor(None, answer, command)
        try:
            self._record(await asyncio.shield(asked), settings)
        except asyncio.CancelledError:
            # sbatch goes on, and the job that it submits would be nobody's: however often this is cancelled.
            while not asked.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait({asked})
            with contextlib.suppress(HpchubError):
                self._record(asked.result(), settings)
            raise

    def _record(self, answer: CommandResult, settings: JobSettings) -> None:
        self.id = _SLURM.parse_submit(answer)
        record = {"job": self.id, "share": settings.share}
        write_private_file(self.folder / RECORD, json.dumps(record).encode(), replace=False)
        _log.info("kernel.job_submitted job=%s", self.id)

    def _fill_folder(self) -> None:
        write_private_file(self.folder / kernel_agent.KEY, secrets.token_hex(32).encode(), replace=False)
        # Made here and written there: a file that is looked for before it is made appears late on NFS.
        write_private_file(self.folder / kernel_agent.ADDRESS, b"{}", replace=False)
        write_private_file(self.folder / "agent.py", _AGENT.read_bytes(), replace=False)

    async def wait(
        self, limit_s: float, tell: Callable[[str], None], is_given_up: Callable[[], bool]
    ) -> Place:
        """Waits until the agent can be called; `tell` gets each change of the job's state in words.

        Raises:
            StartFailed: It ended before, did not start in time, or, as GivenUp, nobody wants it any more.
        """
        began, told, runs_since = time.monotonic(), "", 0.0
        while True:
            await self.look()
            if self.explanation != told:
                told = self.explanation
                tell(f"Job {self.id}: {told}")
            now = time.monotonic()
            if self.status.state is JobState.RUNNING:
                runs_since = runs_since or now
            self._check_wait(limit_s, now - began, now - runs_since if runs_since else 0.0)
            pause_s = next(pause for until, pause in _PACE if now - began < until)
            place = await self._place_within(pause_s, is_given_up)
            if place is not None:
                return place

    async def _place_within(self, pause_s: float, is_given_up: Callable[[], bool]) -> Place | None:
        """Where the agent listens, as soon as it says so; None after that pause."""
        until = time.monotonic() + pause_s
        while True:
            if is_given_up():
                raise GivenUp(f"The kernel was given up before its job {self.id} began. {self.explanation}")
            place = self._place()
            if place is not None or time.monotonic() >= until:
                return place
            await asyncio.sleep(GLANCE_S)

    def _check_wait(self, limit_s: float, waited_s: float, runs_s: float) -> None:
        log = self.folder / _LOG
        if self.status.state.is_final:
            raise StartFailed(
                f"The kernel's job {self.id} ended before the kernel began. {self.explanation}",
                f"{self.last_words}." if self.last_words else "", log_tail=_tail(log), log_path=str(log),
            )  # fmt: skip
        if runs_s > _AGENT_S:
            raise StartFailed(
                f"The kernel's job {self.id} runs, but what starts kernels there does not answer.",
                f"Its log may say why: {log}", log_tail=_tail(log), log_path=str(log),
            )  # fmt: skip
        if not runs_s and waited_s > limit_s:
            raise StartFailed(
                f"The kernel's job {self.id} did not start within {limit_s:g} s. {self.explanation}",
                "Ask for less, choose another partition, or let it wait longer with `wait`.",
            )

    async def look(self) -> JobStatus:
        """Asks Slurm about it; what cannot be answered changes nothing, for doubt is never death."""
        try:
            found = _SLURM.parse_status(await _run(_SLURM.status_command([self.id], [self._name])))
            if self.id not in found:
                found = _SLURM.parse_history(await _run(_SLURM.history_command([self.id], [self._name])))
            self.status = found.get(self.id, self.status)
            self._doubt = ""
        except HpchubError as error:
            self._doubt = error.message
            _log.warning("kernel.job_unknown job=%s error=%s", self.id, error)
        return self.status

    async def cancel(self) -> None:
        """Ends it once, if it is there; what cannot be told to Slurm is logged."""
        try:
            if self.id and not self._is_cancelled and not self.status.state.is_final:
                _SLURM.parse_cancel(await _run(_SLURM.cancel_command(self.id, self._name)))
                self._is_cancelled = True
        except HpchubError as error:
            _log.error("kernel.job_not_cancelled job=%s error=%s", self.id, error)

    def _place(self) -> Place | None:
        """Where the agent listens; None while it has not written that down whole."""
        try:
            body = json.loads((self.folder / kernel_agent.ADDRESS).read_text(encoding="utf-8"))
        except ValueError:
            return None
        except OSError as error:
            raise StartFailed(
                f"The folder of the kernel's job {self.id} cannot be read: {self.folder}: {error.strerror}."
            ) from error
        node = str(body.get("node", ""))
        if "socket" in body:
            sshd = inner_sshd_argv(str(body["sshd"]), str(self.folder))
            srun = _SLURM.attach_argv(self.id, node, sshd)
            return Place(node=node, step=StepWay(folder=self.folder, srun=srun, socket=str(body["socket"])))
        if "port" not in body:
            return None
        address = str(body["address"])
        if address == "0.0.0.0":  # noqa: S104  the agent's word for: by whatever name the node has
            address = node
        return Place(address=address, port=int(body["port"]), node=node)


async def sweep() -> None:
    """Removes the folders of jobs that have ended without their notebook servers, or never were.

    Should such a job be in the queue all the same, it ends as soon as it finds no agent.
    """
    for folder in list(unsubmitted()):
        shutil.rmtree(folder, ignore_errors=True)
    for folder, job_id in list(abandoned()):
        if (await Allocation(folder, job_id).look()).state.is_final:
            shutil.rmtree(folder, ignore_errors=True)


async def shared(share: str) -> Allocation | None:
    """A job that kernels of that word share, and that is not over; None where there is none."""
    for folder, record in list(records()):
        if record.get("share") == share:
            found = Allocation(folder, str(record["job"]))
            if not (await found.look()).state.is_final:
                return found
    return None


async def _run(command: Command) -> CommandResult:
    """Runs one of Slurm's commands here, in a thread."""
    return await asyncio.to_thread(answer, command)


def answer(command: Command) -> CommandResult:
    """Runs one of Slurm's commands here, without the variables of a job that we may be in."""
    try:
        done = subprocess.run(
            command.argv, input=command.stdin, capture_output=True, env=slurm_environ(),
            timeout=command.timeout_s, check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise StartFailed(
            f"There is no {command.name} on this machine.", "Kernels in jobs need Slurm's commands."
        ) from error
    except OSError as error:
        raise SchedulerUnavailable(f"{command.name} cannot be run here: {error.strerror}.") from error
    except subprocess.TimeoutExpired:
        return CommandResult(exit_code=-9, stderr=f"no answer within {command.timeout_s:g} s")
    return CommandResult(
        exit_code=done.returncode,
        stdout=done.stdout.decode("utf-8", "surrogateescape"),
        stderr=done.stderr.decode("utf-8", "surrogateescape"),
    )


def _tail(path: Path, size: int = 8192) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read().decode("utf-8", "backslashreplace")
    except FileNotFoundError:
        return ""
