"""What both places share: a folder on the cluster, and commands run as the user on one login node."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from hpchub.bridge.folder import (
    LAUNCHER_NAME,
    LOG_NAME,
    SCRIPT_NAME,
    Outcome,
    add_command,
    keep_log_command,
    outcome_command,
    parse_add,
    parse_outcome,
    parse_prepare,
    parse_prepared_load,
    prepare_command,
    remove_command,
)
from hpchub.bridge.progress import Progress
from hpchub.bridge.store import ServerRecord
from hpchub.core.choices import ServerOptions
from hpchub.core.cluster import Cluster
from hpchub.core.command import Command, CommandResult
from hpchub.core.server import Phase
from hpchub.errors import ConfigError, HpchubError, StartFailed
from hpchub.remote.handover import extension_source, launcher_source
from hpchub.remote.launcher import EXTENSION
from hpchub.schedulers.render import render_notebook_script
from hpchub.ssh.pool import Pool

PUT_BACK = (
    "What runs goes on. Have the site's staff put it back into the cluster file for as long as it does."
)


class InFolder:
    """Base of the places. The record's `folder` and `login_node` are set by `make_folder`."""

    def __init__(
        self,
        record: ServerRecord,
        cluster: Cluster,
        options: ServerOptions,
        pool: Pool,
        progress: Progress,
    ) -> None:
        self.record = record
        self.cluster = cluster
        self.options = options
        self.pool = pool
        self.progress = progress

    async def run(self, command: Command) -> CommandResult:
        """Run a command as the user."""
        return await self.pool.run(self.record.user, self.cluster.name, command, node=self.command_node)

    @property
    def command_node(self) -> str:
        """The login node that commands must run on; empty where any will do."""
        return ""

    @property
    def runtime_dir(self) -> str:
        """The launcher's own folder on the node.

        Raises:
            ConfigError: The cluster file was changed, and offers no such placement any more.
        """
        if self.options.placement not in self.cluster.placements:
            placement = self.options.placement.value
            raise ConfigError(
                f"The cluster {self.cluster.name} offers no placement {placement!r} any more.", PUT_BACK
            )
        return self.cluster.server_runtime_dir(self.options.placement, self.record.id)

    async def prepare(self) -> None:
        """Make the folder with all that the server needs.

        Raises:
            AccountProblem: The home is missing, full or not writable.
        """
        user = self.record.user
        with self.progress.meter.step("connect"):
            self.record.login_node = await self.choose_node()
        files = {LAUNCHER_NAME: launcher_source(), EXTENSION: extension_source()}
        result = await self.run(prepare_command(self.record.id, files))
        self.record.folder = parse_prepare(result, user, self.record.login_node)
        self.note_load(parse_prepared_load(result))
        if result.noise:
            self.progress.tell(
                Phase.CONNECTING,
                f"Your login shell prints text when it starts ({_first_line(result.noise)!r}). "
                "It is skipped here, but may disturb other programs, such as scp.",
            )
        await self.add_files({SCRIPT_NAME: self.script().encode(), **self.own_files()})

    def script(self) -> str:
        """What the job or the node runs."""
        return render_notebook_script(
            self.cluster,
            self.options,
            server_id=self.record.id,
            server_name=self.record.server_name,
            folder=self.record.folder,
        )

    async def choose_node(self) -> str:
        """The login node to work on: any will do that the person has a connection to."""
        return await self.pool.node_of(self.record.user, self.cluster.name)

    def note_load(self, load: float | None) -> None:
        """What the login node says of its load; of interest to those who choose one."""

    def own_files(self) -> dict[str, bytes]:
        """What this place needs in the folder besides."""
        return {}

    async def add_files(self, files: Mapping[str, bytes]) -> None:
        """Put files into the folder."""
        result = await self.run(add_command(self.record.folder, files))
        parse_add(result, self.record.user, self.record.login_node)

    async def outcome(self) -> Outcome:
        """The exit code, where the folder holds one, and the end of the log."""
        return parse_outcome(await self.run(outcome_command(self.record.folder)))

    async def failure(self, what: str) -> StartFailed:
        """An error that says what happened, with the end of the log where it can be had."""
        return self.failed(what, await self.log_tail())

    async def log_tail(self) -> str:
        """The end of the log; empty where it cannot be had."""
        with suppress(HpchubError):  # what there is to tell is worth telling without it
            return (await self.outcome()).log_tail
        return ""

    def failed(self, what: str, tail: str) -> StartFailed:
        """An error that says what happened, with the end of the log."""
        return StartFailed(
            what,
            "The end of its log says more." if tail else "",
            log_tail=tail,
            log_path=f"{self.record.folder}/{LOG_NAME}",
        )

    async def clean_up(self, *, keep_log: bool) -> None:
        """Remove the folder, or all of it but the log."""
        command = keep_log_command if keep_log else remove_command
        await self.run(command(self.record.folder))


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:60]
