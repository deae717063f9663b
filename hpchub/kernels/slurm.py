"""The kernel provisioner `hpchub-slurm`: a kernel in a Slurm job, for a notebook server beside Slurm.

docs/reference/kernels.md says what it promises. The job outlives the kernel's process: a restart starts
another one in the same job. It also outlives a notebook server that dies, and the next server goes on
with it when the same notebook asks for the same kernel.

Longer than other modules: one class that Jupyter calls, whose parts are changed together. What it does not
decide itself stands elsewhere: the job in allocation.py, the way to it in line.py, who may take it in
claims.py, what depends on Jupyter's own insides in jupyters_manager.py.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase

from hpchub.errors import HostUnreachable, HpchubError, StartFailed
from hpchub.kernels.allocation import Allocation, shared, sweep
from hpchub.kernels.claims import Claim, Purpose, claim, new_folder, orphan, turn
from hpchub.kernels.job_settings import JobSettings, read_settings
from hpchub.kernels.jupyters_manager import (
    call_when_dead,
    forbid_restarts,
    is_shutting_down,
    is_starting,
    server_is_stopping,
    show_reason,
    take_for_dead,
)
from hpchub.kernels.line import Line
from hpchub.kernels.sending import NOTEBOOK, filled, to_send
from hpchub.kernels.sessions import session_path
from hpchub.kernels.telling import in_lines, why_ended
from hpchub.kernels.waiting import Waiting, ask_again, listed

_OURS = ("kernel_id", "kernel_spec", "parent", "config", "log")
_WAIT_PAUSE_S = 0.1
# How long the agent may be silent before Slurm is asked, and the pause between two questions.
_DOUBT_S = 2.0
_ASK_AGAIN_S = 10.0
_CALL_TRIES = 10
# From ZeroMQ's sockets on one side to those on the other, where the machine has a lot to do besides.
_ARRIVES_S = 1.0


class SlurmProvisioner(KernelProvisionerBase):
    """One kernel's job, and the line to it."""

    def __init__(self, **kwargs: Any) -> None:
        config = {name: kwargs.pop(name) for name in list(kwargs) if name not in _OURS}
        super().__init__(**kwargs)
        self._config = config
        self._settings = JobSettings()
        self._notebook = ""
        self._job: Allocation | None = None
        self._claim: Claim | None = None
        self._line: Line | None = None
        self._has_process = False
        self._adopted = False
        self._launched = False
        self._was_starting = False
        self._is_in_doubt = False
        self._death = ""
        self._is_told = True
        self._asked_at = 0.0
        self._ending: asyncio.Future[None] | None = None

    # -- what Jupyter asks about ----------------------------------------------------------------

    @property
    def has_process(self) -> bool:
        """Whether a kernel was launched and its end not yet waited for.

        Jupyter asks this first when it shuts a kernel down. A server that is itself being stopped is told
        no, for it would end the kernel next; the following server finds it running.
        """
        if self._has_process and self._is_left():
            self._leave()
        return self._has_process

    async def poll(self) -> int | None:
        """None while the kernel runs, or may: only the agent, or Slurm, says that it has ended."""
        line, job = self._line, self._job
        if line is None or job is None:
            return 0
        if line.exit_code is not None and not line.job_ends:
            if line.exit_code and not self._death and not is_shutting_down(self.parent):
                await self._died(why_ended(line.exit_code, line.memory_kills, job.last_words))
            call_when_dead(self.parent, self._end_soon)
            await self._until_told()
            return line.exit_code
        if self._death:
            await self._until_told()
            return 1
        now = time.monotonic()
        if line.lost_at is None and self._is_in_doubt:
            self._is_in_doubt = False
            self._tell("")
        if line.lost_at is None or now - line.lost_at < _DOUBT_S or now - self._asked_at < _ASK_AGAIN_S:
            return None
        status = await job.look()
        self._asked_at = time.monotonic()
        if not status.state.is_final:
            if not self._is_in_doubt:
                self._is_in_doubt = True
                self._tell(f"{line.place.node} does not answer. Job {job.id}: {job.explanation}")
            return None
        await self._died(f"The job {job.id} of this kernel is over. {job.explanation}")
        forbid_restarts(self.parent)
        call_when_dead(self.parent, self._end_soon)
        return 1

    async def wait(self) -> int | None:
        """The exit code, once there is one."""
        while True:
            code = await self.poll()
            if code is not None:
                self._has_process = False
                return code
            await asyncio.sleep(_WAIT_PAUSE_S)

    async def send_signal(self, signum: int) -> None:
        """To the kernel and what it has started."""
        if self._line is not None:
            await self._line.send_signal(signum)

    async def terminate(self, restart: bool = False) -> None:
        """SIGTERM for the kernel; the job stays, for Jupyter may restart it."""
        await self.send_signal(signal.SIGTERM)

    async def kill(self, restart: bool = False) -> None:
        """SIGKILL for the kernel; the job stays, for Jupyter kills before a restart, and does not say so."""
        await self.send_signal(signal.SIGKILL)

    async def cleanup(self, restart: bool = False) -> None:
        """Ends the job, unless the kernel is about to be started again."""
        if not restart:
            await self._end()

    def get_shutdown_wait_time(self, recommended: float = 5.0) -> float:
        """Seconds: messages and signals have a way to go."""
        return max(recommended, 10.0)

    # -- start ----------------------------------------------------------------------------------

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Reads the settings and fills in the command; the agent fills in the connection file.

        Raises:
            ConfigError: kernel.json's settings are wrong.
            StartFailed: The job is over, and Jupyter would restart the kernel in it.
        """
        with in_lines():
            if self._line is not None and (self._line.is_lost or self._line.job_ends):
                await self._check_job()
            if getattr(self.parent, "transport_encryption", "") == "required":
                raise StartFailed("Kernels in jobs sign their messages and do not encrypt them.")
            self._settings = read_settings(self._config, kwargs.get("env") or os.environ)
        argv = filled(self.kernel_spec.argv, self.kernel_spec.resource_dir)
        kwargs = await super().pre_launch(cmd=[*argv, *kwargs.pop("extra_arguments", [])], **kwargs)
        kwargs["env"] = to_send(kwargs["env"], self.kernel_spec.env)
        return kwargs

    async def _check_job(self) -> None:
        """StartFailed where the job is over: a restart would be in another one, without anybody's wish."""
        if self._job is not None and (await self._job.look()).state.is_final:
            death = self._death or f"The job {self._job.id} of this kernel is over. {self._job.explanation}"
            if not self._death:
                await self._died(death)
            await self._give_up()
            raise StartFailed(death, "Start a new kernel.")

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Starts the kernel in its job, which is submitted first where there is none.

        Raises:
            HpchubError: The job was refused or did not start; the node cannot be reached; the kernel's
                command is not there. Nothing is left in the queue, unless this server is stopping: then
                the job stays, for the next one and the same notebook.
        """
        try:
            with in_lines():
                line = await self._launch(cmd, kwargs)
        except BaseException as error:
            if self._launched:
                # Of a restart that fails Jupyter's own dialog says nothing more.
                if isinstance(error, HpchubError):
                    await self._died(f"The kernel cannot be restarted. {error}")
                await self._give_up()
            elif self._is_left() and self._job is not None and self._job.is_recorded:
                self._leave()
            else:
                await self._end()
            raise
        self._launched = True
        self._death = ""
        self._has_process = True
        self.connection_info = cast(KernelConnectionInfo, line.connection_info)
        return self.connection_info

    async def _launch(self, cmd: list[str], kwargs: Mapping[str, Any]) -> Line:
        """The line to the kernel, which is started unless it was found again."""
        line = self._line or await self._get_job(kwargs["env"])
        if not (self._adopted and line.runs):
            request = {
                "argv": cmd, "env": kwargs["env"], "cwd": str(kwargs.get("cwd") or Path.cwd()),
                "transport": self._settings.transport.value,
            }  # fmt: skip
            await line.start(request)
            if not self._launched:
                await self._watch(line)
        self._adopted = False
        await line.listen()
        return line

    async def _watch(self, line: Line) -> None:
        """Waits until the kernel listens; StartFailed where it ends before."""
        if await line.is_listening() or self._job is None:
            return
        if line.exit_code is None:
            self._tell(
                f"The kernel has run on {line.place.node} for a while, and listens to nobody. "
                f"The log of its job may say why: {self._job.folder}/job.log"
            )
            return
        raise StartFailed(
            f"The kernel {self.kernel_spec.display_name} ended with exit code {line.exit_code} on "
            f"{line.place.node}: {self._job.last_words}.",
            log_tail=self._job.last_words,
        )

    async def _get_job(self, environ: Mapping[str, str]) -> Line:
        """The line to a kernel whose notebook server is gone, or to a new one, in a job of its own or not."""
        self._notebook = environ.get(NOTEBOOK, "")
        purpose = Purpose(
            kernel=self.kernel_spec.resource_dir, notebook=self._notebook, settings=repr(self._settings)
        )
        if self._notebook.endswith(".ipynb"):  # the consoles of two pages have the same name
            await ask_again(self.parent, purpose)
        found = orphan(purpose) if self._notebook else None
        if found is not None:
            line = await self._go_on(*found, purpose)
            if line is not None:
                return line
        await sweep()
        async with turn(self._settings.share):
            self._job = await shared(self._settings.share) if self._settings.share else None
            if self._job is not None:
                self.log.info("hpchub: the kernel joins job %s", self._job.id)
                self._claim = claim(self._job.folder, purpose)
            else:
                self._job = Allocation(new_folder())
                self._claim = claim(self._job.folder, purpose)
                # Without a notebook no other server could go on with it.
                stays = self._notebook or self._settings.share
                await self._job.submit(self._settings if stays else replace(self._settings, keep_s=0))
        self._line = await self._connect(self._job, self._claim, purpose)
        return self._line

    async def _go_on(self, found: Claim, job_id: str, purpose: Purpose) -> Line | None:
        """The line to a kernel that was left; None where its job is over."""
        job = Allocation(found.folder, job_id)
        self.log.info("hpchub: going on with job %s of this notebook", job.id)
        try:
            self._line = await self._connect(job, found, purpose)
        except HpchubError as error:
            if found.is_left:  # to another request of this server's
                raise
            if job.status.state.is_final:
                self.log.info("hpchub: %s", error)
                found.withdraw()
                return None
            if not isinstance(error, StartFailed):
                found.leave()  # it may be there again in a while
                raise
            if not found.has_others():
                await job.cancel()
            found.withdraw()
            raise
        self._job, self._claim, self._adopted = job, found, True
        return self._line

    async def _connect(self, job: Allocation, mine: Claim, purpose: Purpose) -> Line:
        waiting = Waiting(
            kernel_id=self.kernel_id, kernel=getattr(self.parent, "kernel_name", ""),
            title=self.kernel_spec.display_name, purpose=purpose, job=job.id, session=session_path(),
        )  # fmt: skip

        def tell(reason: str) -> None:
            waiting.reason = reason
            self._tell(reason)

        def is_given_up() -> bool:
            return waiting.is_given_up or waiting.is_asked_again or self._is_given_up()

        with listed(self.parent, waiting):
            try:
                place = await job.wait(self._settings.wait_s, tell, is_given_up)
            except StartFailed:
                if waiting.is_asked_again:
                    mine.leave()
                    raise StartFailed(
                        f"This notebook's kernel has been asked for once more, and job {job.id} goes to that "
                        "request."
                    ) from None
                # Before it leaves the list: then another kernel may be asked for, which would find this job.
                if waiting.is_given_up and not mine.has_others():
                    await job.cancel()
                raise
        line = Line(place, job.key, mine.kernel_id)
        try:
            for left in reversed(range(_CALL_TRIES)):
                try:
                    await line.open()
                    break
                except HostUnreachable:
                    # An agent that is away may have ended with its job.
                    if left == 0 or (await job.look()).state.is_final:
                        raise
                    await asyncio.sleep(1.0)
        except BaseException:
            await asyncio.to_thread(line.close)
            raise
        self._tell("")
        return line

    # -- end ------------------------------------------------------------------------------------

    async def _end(self) -> None:
        line, job, mine = self._take_apart()
        ended = False
        if line is not None:
            ended = not line.is_lost and await line.end()
            await asyncio.to_thread(line.close)
        if job is not None and mine is not None and not mine.is_left:
            if not ended and not mine.has_others():
                await job.cancel()
            mine.withdraw()

    def _take_apart(self) -> tuple[Line | None, Allocation | None, Claim | None]:
        parts = self._line, self._job, self._claim
        self._line = self._job = self._claim = None
        self._has_process = False
        return parts

    def _is_left(self) -> bool:
        """Whether the server is stopping, and a later one could go on with the kernel."""
        return bool(self._notebook and self._settings.keep_s and server_is_stopping(self.parent))

    def _leave(self) -> None:
        line, job, mine = self._take_apart()
        if job is None or mine is None:
            return
        self.log.warning(
            "hpchub: job %s and its kernel stay for %d s, for this notebook", job.id, self._settings.keep_s
        )
        if line is not None:
            line.cut()

        def leave() -> None:
            if line is not None:
                line.close()
            mine.leave()

        # It may take seconds, which Jupyter's loop has not; but this process waits for it.
        threading.Thread(target=leave, name="hpchub-leave").start()

    def _is_given_up(self) -> bool:
        """Whether somebody wants the kernel shut down that still waits."""
        starting = is_starting(self.parent, self.kernel_id)
        self._was_starting = self._was_starting or starting
        return self._was_starting and not starting

    async def _give_up(self) -> None:
        """Ends the job, and the kernel for Jupyter as well."""
        take_for_dead(self.parent)
        await self._end()

    def _end_soon(self) -> None:
        self._ending = asyncio.ensure_future(self._end())

    async def _died(self, text: str) -> None:
        """Returns once people can read why.

        Next Jupyter tells them, by a shorter way, that it is dead; JupyterLab hears nothing that comes later.
        """
        self._death = text
        self._tell(text)
        self._is_told = False
        try:
            if self._line is not None and await self._line.write(text):
                await asyncio.sleep(_ARRIVES_S)
        finally:
            self._is_told = True

    async def _until_told(self) -> None:
        """Returns at once, unless somebody else asks as well and is being told."""
        while not self._is_told:  # noqa: ASYNC110  who asks may have another loop
            await asyncio.sleep(_WAIT_PAUSE_S)

    def _tell(self, text: str) -> None:
        """Where Jupyter's users and staff can read it: the log, and `reason` of GET /api/kernels."""
        if text:
            self.log.warning("hpchub: %s", text)
        show_reason(self.parent, text)

    async def get_provisioner_info(self) -> dict[str, Any]:
        """What a manager that keeps kernels across its own restarts would store."""
        info = await super().get_provisioner_info()
        key = info["connection_info"].get("key")
        if isinstance(key, bytes):
            info["connection_info"] = {**info["connection_info"], "key": key.decode()}
        return {**info, "job": self._job.id if self._job else ""}
