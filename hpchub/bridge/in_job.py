"""A server inside a batch job on a compute node."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import replace

import asyncssh

from hpchub.bridge.folder import TCP_KEY_NAME, owner_argv, parse_owner, parse_tcp, tcp_command
from hpchub.bridge.in_folder import PUT_BACK, InFolder
from hpchub.bridge.outlook import Outlook
from hpchub.bridge.places import Verdict
from hpchub.bridge.progress import Progress
from hpchub.bridge.store import ServerRecord
from hpchub.bridge.watcher import Watcher
from hpchub.core.choices import ServerOptions
from hpchub.core.cluster import Attach, Cluster, ComputePlacement
from hpchub.core.command import Command
from hpchub.core.job import JobId, JobState, JobStatus
from hpchub.core.job_sshd import inner_sshd_argv
from hpchub.core.server import Phase
from hpchub.core.slugs import job_name
from hpchub.errors import (
    ConfigError,
    HostUnreachable,
    HpchubError,
    RemoteError,
    SchedulerUnavailable,
    StartFailed,
)
from hpchub.schedulers.base import Scheduler
from hpchub.ssh.attach import Attachment, attach_srun, attach_ssh
from hpchub.ssh.inner_sshd import InnerKeys, authorized_keys, inner_files, new_keys
from hpchub.ssh.pool import Pool
from hpchub.ssh.tcp_attach import attach_tcp, new_tcp_key

log = logging.getLogger(__name__)

# scancel returns at once; slurmd gives a job KillWait (30 s by default) to end by itself.
_CANCEL_LIMIT_S = 90
_STEP_S = 0.25

# A step that is refused, because its job has ended, say, is refused within this time. What takes longer is
# likely a login node that is cut off from the cluster.
_REFUSAL_S = 2

# Where sbatch's answer was lost: how often and for how long to look for its job.
_LOOK_AGAIN_S = 3
_LOOK_FOR_S = 20


class InJob(InFolder):
    """Submits a job, follows it until it runs, and asks the scheduler what became of it."""

    def __init__(
        self,
        record: ServerRecord,
        cluster: Cluster,
        options: ServerOptions,
        pool: Pool,
        progress: Progress,
        scheduler: Scheduler,
        watcher: Watcher,
    ) -> None:
        super().__init__(record, cluster, options, pool, progress)
        self._scheduler = scheduler
        self._watcher = watcher
        self._keys: InnerKeys | None = None

    @property
    def _compute(self) -> ComputePlacement:
        if self.cluster.compute is None:
            raise ConfigError(f"The cluster {self.cluster.name} offers no compute nodes any more.", PUT_BACK)
        return self.cluster.compute

    @property
    def _way_in(self) -> Attach:
        """The way that the job was made for: the cluster file may have been changed since.

        Raises:
            ConfigError: It cannot be told, nor be the one of the file.
        """
        if self.record.host_public_key:
            return Attach.SRUN
        if self._compute.attach is Attach.SRUN and self.record.folder:
            raise ConfigError(
                f"The cluster {self.cluster.name} has another `attach` than when this server was started.",
                PUT_BACK,
            )
        return self._compute.attach

    @property
    def _job_id(self) -> JobId:
        return JobId(self.record.job_id)

    @property
    def _job_name(self) -> str:
        return job_name(self.record.server_name, self.record.id)

    def own_files(self) -> dict[str, bytes]:
        """For attach `srun` a configuration and keys of its own; for `tcp` a shared key."""
        match self._compute.attach:
            case Attach.SRUN:
                self._keys = new_keys()
                self.record.host_public_key = self._keys.host_public.export_public_key().decode()
                return inner_files(self._keys, self.record.folder)
            case Attach.TCP:
                return {TCP_KEY_NAME: new_tcp_key().reveal().encode()}
            case Attach.SSH:
                return {}

    async def submit(self, *, again: bool) -> None:
        """Submit the job; its id is in the record when this returns.

        None is submitted twice: a job whose id was lost, with the bridge that had submitted it or with
        the connection on which sbatch was to answer, is found by its name.
        """
        with self.progress.meter.step("submit"):
            self.record.job_id = (
                await self._find_lost_patiently(math.inf) if again else ""
            ) or await self._submit()
        self.progress.tell(Phase.SUBMITTED, f"Submitted as job {self.record.job_id}")

    async def _submit(self) -> str:
        try:
            return await self._submit_somewhere()
        except RemoteError as error:
            if isinstance(error, SchedulerUnavailable) and error.retryable:
                raise  # the scheduler itself said that it took nothing
            self.progress.tell(Phase.CONNECTING, f"{error} Looking whether the job was submitted.")
            await asyncio.sleep(_LOOK_AGAIN_S)  # an sbatch that is still under way needs a moment
            lost = ""
            with suppress(RemoteError):  # where nobody can tell, a job without its folder ends by itself
                lost = await self._find_lost_patiently(_LOOK_FOR_S)
            if not lost:
                raise
            return lost

    async def _submit_somewhere(self) -> str:
        """sbatch on one login node, and on another where the first could tell the scheduler nothing."""
        user, cluster = self.record.user, self.cluster.name
        command = self._scheduler.submit_command(self.script(), self._job_name)
        tried: dict[str, SchedulerUnavailable] = {}
        while True:
            node = await self.pool.node_of(user, cluster)
            if node in tried:
                raise tried[node]
            try:
                with self._query("submit"):
                    return self._scheduler.parse_submit(
                        await self.pool.run(user, cluster, command, node=node)
                    )
            except RemoteError as error:
                # It may be this node alone, its munge or its network: whatever follows goes elsewhere.
                has_others = self.pool.avoid(user, cluster, node)
                if not isinstance(error, SchedulerUnavailable) or not error.retryable or not has_others:
                    raise  # only of a scheduler that may be asked again is it certain that it took nothing
                tried[node] = error
                self.progress.tell(Phase.CONNECTING, f"{error} Trying another login node than {node}.")

    async def _find_lost_patiently(self, patience_s: float) -> str:
        """As `_find_lost`, asked again while the cluster or its scheduler is away."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                return await self._find_lost()
            except RemoteError as error:
                if not error.retryable or time.monotonic() > deadline:
                    raise
                self.progress.tell(Phase.CONNECTING, f"{error} Still trying.")
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _find_lost(self) -> str:
        """The id of the job that bears our name; empty where the queue has none, or none any more."""
        with self._query("lookup"):
            command = self._scheduler.lookup_command(self._job_name)
            ids = self._scheduler.parse_lookup(await self.run(command))
        return ids[0] if ids else ""

    async def until_running(self) -> None:
        """Follow the job until it runs.

        Raises:
            StartFailed: It ended first; the message says why and holds the end of its log.
        """
        following = self._watcher.following(self.record.user, self.cluster.name, self._job_id, self._job_name)
        async with following as answers:
            while True:
                answer = await answers.get()
                if isinstance(answer, HpchubError):
                    # Whatever keeps us from asking, the job waits until the scheduler says otherwise.
                    self.progress.tell(Phase.QUEUED, f"Job {self._job_id}: {answer} Still trying.")
                    continue
                self.record.native_state = answer.native or self.record.native_state
                if answer.state is JobState.RUNNING and answer.node:
                    self.progress.outlook = Outlook()
                    self.record.node = answer.node
                    self._guess_end()
                    return
                if answer.state.is_final:
                    raise await self._failure(answer)
                if answer.state is JobState.QUEUED:
                    self._tell_why(self._scheduler.explain(answer))

    def _tell_why(self, reason: str) -> None:
        """Why the job waits, with what is known of how long."""
        self.progress.outlook = replace(self.progress.outlook, reason=reason)
        words = self.progress.outlook.words(time.time())
        self.progress.tell(Phase.QUEUED, f"Job {self._job_id}: {reason}{words}")

    async def attach(self) -> Attachment:
        """Into the job, the way the cluster file says; where nothing answers, from another node next."""
        through = await self.pool.node_of(self.record.user, self.cluster.name)
        began = time.monotonic()
        try:
            return await self._attach(through)
        except HostUnreachable:
            if time.monotonic() - began > _REFUSAL_S:
                self.pool.avoid(self.record.user, self.cluster.name, through)
            raise

    async def _attach(self, through: str) -> Attachment:
        user, cluster, node = self.record.user, self.cluster.name, self.record.node
        match self._way_in:
            case Attach.SRUN:
                argv = self._scheduler.attach_argv(
                    self._job_id, node, inner_sshd_argv(self._compute.sshd, self.record.folder)
                )
                keys = await self._inner_keys()
                return await attach_srun(
                    self.pool, user, cluster, argv, keys, node, self.runtime_dir, through=through
                )
            case Attach.SSH:
                port = self._compute.port
                return await attach_ssh(
                    self.pool, user, cluster, node, port, self.runtime_dir, through=through
                )
            case Attach.TCP:
                port, key = parse_tcp(await self.run(tcp_command(self.record.folder)))
                return await attach_tcp(self.pool, user, cluster, node, port, key)

    async def check_owner(self) -> None:
        """Asked by a step of the job, on its node. With attach `tcp` both sides prove themselves."""
        if self._way_in is not Attach.TCP:
            argv = self._scheduler.attach_argv(self._job_id, self.record.node, owner_argv(self.runtime_dir))
            parse_owner(await self.run(Command(argv=argv)), self.record.node)

    async def verdict(self) -> Verdict | None:
        """The scheduler's word; only a definite final state is an end."""
        status = await self._ask()
        if status.state is JobState.QUEUED and self.record.handed_over:
            return Verdict(self._requeued(status), status.native)
        if not status.state.is_final:
            return None
        if status.state is JobState.FINISHED and self.record.handed_over:
            return Verdict(None, status.native)
        return Verdict(await self._failure(status), status.native)

    def _requeued(self, status: JobStatus) -> StartFailed:
        """The job would run once more, without what was in memory and without a token."""
        return StartFailed(
            f"Job {self._job_id} ended and was put back into the queue: {self._scheduler.explain(status)}",
            "What was in memory is lost, so it is not started again by itself. Start it again.",
        )

    async def cancel(self) -> None:
        """Cancel the job, if there is one, and wait until it is over: ended, or not in the queue any more.

        A controller forgets only jobs that have ended; the history may lack them, or call them pending for
        ever. Where it has taken the cancellation and nobody can ask it more, it ends the job by itself.
        """
        if not self.record.job_id and self.record.folder:
            self.record.job_id = await self._find_lost()
        if not self.record.job_id:
            return
        deadline = time.monotonic() + _CANCEL_LIMIT_S
        while True:
            with self._query("cancel"):
                result = await self.run(self._scheduler.cancel_command(self._job_id, self._job_name))
                self._scheduler.parse_cancel(result)
            try:
                for _ in range(20):
                    if await self._is_over():
                        return
                    await asyncio.sleep(_STEP_S)
            except HpchubError as error:
                log.warning("job.end_unseen id=%s job=%s error=%s", self.record.id, self._job_id, error)
                return
            if time.monotonic() > deadline:
                raise SchedulerUnavailable(
                    f"Job {self._job_id} was cancelled but has not ended: it is {self.record.native_state}.",
                    "The scheduler may still be ending it. Try again in a minute.",
                )

    def _guess_end(self) -> None:
        """A first value: the job has just begun, as far as anybody here knows."""
        if self.options.resources is not None:
            self.progress.end.set(time.time() + self.options.resources.time_s)

    async def _inner_keys(self) -> InnerKeys:
        """The keys of the job's sshd. A bridge that did not submit it gives it a new client key."""
        if self._keys is None:
            host = asyncssh.import_public_key(self.record.host_public_key)
            keys = InnerKeys(host, new_keys().client)
            await self.add_files({"authorized_keys": authorized_keys(keys.client)})
            self._keys = keys
        return self._keys

    def _query(self, kind: str) -> AbstractContextManager[None]:
        return self._watcher.metrics.query(self.cluster.name, kind)

    async def _is_over(self) -> bool:
        """Whether the queue has the job no more, or as one that has ended; notes its native state."""
        result = await self.run(self._scheduler.status_command([self._job_id], [self._job_name]))
        status = self._scheduler.parse_status(result).get(self._job_id)
        if status is None:
            with suppress(HpchubError):  # how it ended is nice to know, that it did is known
                status = await self._ask()
            if status is not None and status.state.is_final:
                self.record.native_state = status.native
            return True
        self.record.native_state = status.native
        return status.state.is_final

    async def _ask(self) -> JobStatus:
        names = {self._job_id: self._job_name}
        answers = await self._watcher.ask(self.record.user, self.cluster.name, list(names), names)
        return answers[self._job_id]

    async def _failure(self, status: JobStatus) -> StartFailed:
        tail = await self.log_tail()
        return self.failed(f"Job {self._job_id} ended: {self._scheduler.explain(status, tail)}", tail)
