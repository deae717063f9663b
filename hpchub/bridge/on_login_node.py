"""A server on a login node, in a session of its own, with no scheduler between."""

from __future__ import annotations

from hpchub.bridge.folder import (
    end_command,
    owner_argv,
    parse_end,
    parse_owner,
    start_on_login_node_command,
)
from hpchub.bridge.in_folder import PUT_BACK, InFolder
from hpchub.bridge.login_limits import LIMITS_NAME, limits_script
from hpchub.bridge.login_nodes import LoginNodes
from hpchub.bridge.places import Verdict
from hpchub.bridge.progress import Progress
from hpchub.bridge.store import ServerRecord
from hpchub.core.choices import ServerOptions
from hpchub.core.cluster import Cluster, LoginLimits
from hpchub.core.command import Command
from hpchub.errors import ConfigError
from hpchub.ssh.attach import Attachment, attach_login
from hpchub.ssh.pool import Pool


class OnLoginNode(InFolder):
    """Starts the same script as a job would, and reads its exit code from the folder."""

    def __init__(
        self,
        record: ServerRecord,
        cluster: Cluster,
        options: ServerOptions,
        pool: Pool,
        progress: Progress,
        nodes: LoginNodes,
    ) -> None:
        super().__init__(record, cluster, options, pool, progress)
        self._nodes = nodes

    async def choose_node(self) -> str:
        """The least busy login node that lets the person in."""
        nodes = self._nodes.order(self.cluster, self.record.user)
        self.record.login_node = nodes[0]  # counts from now on, for the starts beside this one
        return await self.pool.first_of(self.record.user, self.cluster.name, nodes)

    def note_load(self, load: float | None) -> None:
        """For the next one that chooses."""
        self._nodes.note(self.cluster.name, self.record.login_node, load)

    @property
    def command_node(self) -> str:
        """The server's processes are on one node, and its sockets are local to it.

        Raises:
            ConfigError: The cluster file was changed, and names that node no more.
        """
        node = self.record.login_node
        if node and node not in {one.name for one in self.cluster.login_nodes}:
            raise ConfigError(f"The cluster {self.cluster.name} has no login node {node} any more.", PUT_BACK)
        return node

    def own_files(self) -> dict[str, bytes]:
        """What keeps the server within the cluster file's limits."""
        limits = self.cluster.login.limits if self.cluster.login else LoginLimits()
        return {LIMITS_NAME: limits_script(limits, self.record.id)} if limits.are_set else {}

    async def submit(self, *, again: bool) -> None:
        """Start the script, unless it was started; it runs on when this returns."""
        with self.progress.meter.step("submit"):
            result = await self.run(start_on_login_node_command(self.record.folder))
        if result.exit_code:
            raise await self.failure(f"The server could not be started on {self.record.login_node}.")
        self.record.node = self.record.login_node

    async def until_running(self) -> None:
        """It runs as soon as it is started."""

    async def attach(self) -> Attachment:
        """The user's tunnel connection to the node."""
        return await attach_login(
            self.pool,
            self.record.user,
            self.cluster.name,
            self.command_node,
            runtime_dir=self.runtime_dir,
        )

    async def check_owner(self) -> None:
        """Asked on the node itself."""
        result = await self.run(Command(argv=owner_argv(self.runtime_dir)))
        parse_owner(result, self.record.login_node)

    async def verdict(self) -> Verdict | None:
        """Gone, where the folder holds an exit code, or its process is no more."""
        outcome = await self.outcome()
        if outcome.exit_code is None and not outcome.gone:
            return None
        if outcome.exit_code == 0 and self.record.handed_over:
            return Verdict(None)
        how = "was ended from outside" if outcome.exit_code is None else f"ended (exit {outcome.exit_code})"
        return Verdict(await self.failure(f"The server on {self.record.login_node} {how}."))

    async def cancel(self) -> None:
        """End the server's processes, if it came that far, and wait until they are gone."""
        if not self.record.folder:
            return
        parse_end(await self.run(end_command(self.record.folder)), self.record.login_node)
