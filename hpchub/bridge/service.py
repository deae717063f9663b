"""Everything the bridge knows: sessions, servers and their lives, and what people may charge."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from hpchub.bridge.endings import Endings
from hpchub.bridge.ends import Ends
from hpchub.bridge.in_job import InJob
from hpchub.bridge.keeper import Keeper, reading
from hpchub.bridge.life import ServerLife
from hpchub.bridge.login_nodes import LoginNodes
from hpchub.bridge.metrics import BridgeMetrics, Census
from hpchub.bridge.on_login_node import OnLoginNode
from hpchub.bridge.outlook import Outlook
from hpchub.bridge.places import Place
from hpchub.bridge.progress import Progress
from hpchub.bridge.readiness import missing_parts, take_census
from hpchub.bridge.service_account import WithServiceAccounts
from hpchub.bridge.sessions import Sessions
from hpchub.bridge.settings import BridgeSettings
from hpchub.bridge.start_queue import StartQueue
from hpchub.bridge.store import ServerRecord, Store
from hpchub.bridge.sweep import RUNNING, WAITING, Sweep
from hpchub.bridge.watcher import Watcher
from hpchub.core.caps import refuse_beyond_caps
from hpchub.core.choices import ServerOptions, choose
from hpchub.core.cluster import Cluster, Placement
from hpchub.core.job import Association
from hpchub.core.secret import Secret
from hpchub.core.server import ConnectionView, Phase, ServerView
from hpchub.errors import (
    AccountProblem,
    ConfigError,
    HostUnreachable,
    InvalidRequest,
    RemoteError,
    SchedulerUnavailable,
    from_wire,
)
from hpchub.private_files import make_folder
from hpchub.schedulers.registry import scheduler_for
from hpchub.schedulers.slurm import Slurm
from hpchub.schedulers.slurm_token import SlurmToken, parse_token, token_command
from hpchub.signer.client import SignerClient
from hpchub.ssh.key_agent import KeyAgent
from hpchub.ssh.pool import Pool

log = logging.getLogger(__name__)

# Accounts change by a staff member's hand; a form asks each time it is opened.
_ASSOCIATIONS_KEPT_S = 60.0

_EVENTS_KEPT_S = 600.0


class Service:
    """An async context manager: entering takes up the sessions and servers that a previous bridge left."""

    def __init__(
        self, settings: BridgeSettings, clusters: Mapping[str, Cluster], store: Store, agent: KeyAgent
    ) -> None:
        self.settings = settings
        self.metrics = BridgeMetrics(self._census)
        self.signer = SignerClient(settings.signer_socket)
        self.sessions = Sessions(self.signer, agent, store, metrics=self.metrics)
        self.lives: dict[str, ServerLife] = {}
        self.endings = Endings()
        self.up = asyncio.Event()
        self._clusters = clusters
        self._schedulers = {name: scheduler_for(cluster) for name, cluster in clusters.items()}
        self._store = store
        self._keeper = Keeper(store)
        credentials = WithServiceAccounts(self.sessions, self.signer)
        self._pool = Pool(clusters, credentials, settings.limits, metrics=self.metrics.ssh)
        accounts = {name: cluster.status_account for name, cluster in clusters.items()}
        self._ends = Ends(
            self.sessions, self._pool, self.signer, credentials, keep_tunnels=settings.keep_tunnels
        )
        self._watcher = Watcher(self._pool, self._schedulers, accounts, self.metrics)
        self._sweep = Sweep(self._watcher.queries, lambda: [life.progress for life in self.lives.values()])
        self._associations: dict[tuple[str, str], tuple[float, list[Association]]] = {}
        self._closing = False
        self._starting: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._queues = {name: StartQueue(cluster.starts_at_once) for name, cluster in clusters.items()}
        self._being_added: list[ServerRecord] = []
        self._nodes = LoginNodes(self._servers_on, lambda *node: self._pool.rests(*node))

    async def __aenter__(self) -> Service:
        sockets = self._sockets_dir()
        make_folder(sockets, self.settings.group)
        for stale in sockets.iterdir():
            stale.unlink()
        await self._pool.__aenter__()
        with reading():
            unfinished = await asyncio.to_thread(self._store.unfinished)
        for record in unfinished:
            if record.cluster in self._clusters:
                self.lives[record.id] = self._life(record)
            else:  # it lives on, and is taken up by the first bridge that knows its cluster again
                log.error(
                    "server.cluster_gone id=%s user=%s cluster=%s", record.id, record.user, record.cluster
                )
        await self.sessions.restore()
        present = set(self.sessions.users())
        for life in self.lives.values():
            if life.record.user in present:
                life.begin()
        self._sweep.begin()
        self._ends.begin()
        self.up.set()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._closing = True  # the API still answers, but nothing begins that nobody would look after
        await asyncio.gather(*(life.leave() for life in self.lives.values()))
        await self._ends.close()
        await self._sweep.close()
        await self._watcher.close()
        await self._keeper.close()
        await self._pool.__aexit__(None, None, None)

    async def open_session(self, user: str, key_id: str, grant: Secret) -> float:
        """Begin a session, and take up the user's servers that waited for one; its end, Unix seconds."""
        self._refuse_when_closing()
        expires_at = await self.sessions.open(user, key_id, grant)
        self._take_up(user)
        return expires_at

    async def close_session(self, user: str) -> None:
        """End a session and close the user's connections. Servers run on, and are reached after a login."""
        await self._ends.log_out(user)

    async def associations(self, user: str, cluster_name: str) -> list[Association]:
        """What a user may charge on a cluster.

        Raises:
            AccountProblem: There is nothing the user may charge.
            InvalidRequest: There is no such cluster.
        """
        if cluster_name not in self._clusters:
            raise InvalidRequest(f"There is no cluster {cluster_name!r}.")
        kept_at, rows = self._associations.get((user, cluster_name), (0.0, []))
        self.sessions.expires_at(user)
        if not rows or time.monotonic() - kept_at > _ASSOCIATIONS_KEPT_S:
            scheduler = self._schedulers[cluster_name]
            try:
                with self.metrics.query(cluster_name, "associations"):
                    result = await self._pool.run(user, cluster_name, scheduler.associations_command(user))
                    rows = scheduler.parse_associations(result)
            except RemoteError as error:
                if not rows or not error.retryable:
                    raise
                log.warning("associations.old user=%s cluster=%s error=%s", user, cluster_name, error)
            else:
                self._associations[user, cluster_name] = (time.monotonic(), rows)
        if not rows:
            raise AccountProblem(
                f"{user} has no account in the scheduler of {cluster_name} (no association).",
                "Ask the site's staff, or your project's leader, to add you to an account.",
            )
        return rows

    async def slurm_token(self, user: str, cluster_name: str, lifespan_s: int) -> SlurmToken:
        """A token of Slurm's, asked for as the user on a login node. Nobody here ever holds Slurm's key.

        Raises:
            InvalidRequest: There is no such cluster, it has another scheduler, or the time is out of bounds.
            NotAllowed: The user has no session, or the site lets people make no tokens.
            SiteError: The cluster's Slurm has no tokens.
        """
        scheduler = self._schedulers.get(cluster_name)
        if not isinstance(scheduler, Slurm):
            raise InvalidRequest(f"There is no Slurm cluster {cluster_name!r}.")
        self.sessions.expires_at(user)
        command = token_command(lifespan_s, scheduler.cluster)
        with self.metrics.query(cluster_name, "token"):
            return parse_token(await self._pool.run(user, cluster_name, command), user)

    async def start(
        self,
        *,
        user: str,
        server_name: str,
        options: Mapping[str, Any],
        environ: Mapping[str, str],
        base_url: str,
    ) -> ServerRecord:
        """Start a server, or take up the one of that name which still waits.

        Raises:
            InvalidRequest: Some option is refused; `fields` says which and why.
            NotAllowed: The user has no session.
            AccountProblem: The user may charge nothing on that cluster.
            TooManyServers: A cap of the cluster file is reached.
        """
        self._refuse_when_closing()
        self.sessions.expires_at(user)
        chosen = choose(self._clusters, options)
        if chosen.placement is Placement.COMPUTE:
            chosen = await self._check_account(user, chosen, options)
        async with self._starting.setdefault((user, server_name), asyncio.Lock()):
            for record in self.servers_of(user):
                if record.server_name != server_name:
                    continue
                same = record.options == chosen.as_dict()
                if same and await self.lives[record.id].adopt(_sealable(environ), base_url):
                    return record
                self._refuse_beyond_caps(user, server_name, chosen)
                await self.stop(record.id)
            self._forget_ended()
            return await self._start_new(user, server_name, chosen, environ, base_url)

    async def _check_account(
        self, user: str, chosen: ServerOptions, options: Mapping[str, Any]
    ) -> ServerOptions:
        """The options, with an account that the user may charge. Is the accounting away, sbatch decides."""
        node = await self._pool.node_of(user, chosen.cluster)
        try:
            try:
                rows = await self.associations(user, chosen.cluster)
            except HostUnreachable:
                # It may let people in and yet end no command of the scheduler's, as without munge.
                if not self._pool.avoid(user, chosen.cluster, node):
                    raise
                rows = await self.associations(user, chosen.cluster)
        except SchedulerUnavailable as error:
            log.warning("associations.unchecked user=%s cluster=%s error=%s", user, chosen.cluster, error)
            return chosen
        return choose(self._clusters, options, {chosen.cluster: rows})

    async def find(self, server_id: str) -> ServerRecord:
        """A server, ended or not. InvalidRequest where there never was one."""
        life = self.lives.get(server_id)
        record = life.record if life else await self._keeper.find(server_id)
        if record is None:
            raise InvalidRequest(f"There is no server {server_id!r}.")
        return record

    async def last(self, user: str, server_name: str) -> ServerRecord | None:
        """A user's server of that name, or the last one that was; None where there never was one."""
        lives = [life.record for life in self.lives.values() if life.record.user == user]
        named = [record for record in lives if record.server_name == server_name]
        if named:
            return max(named, key=lambda record: record.created_at)
        return await self._keeper.last(user, server_name)

    async def stop(self, server_id: str) -> ServerRecord:
        """End a server and return once it is gone."""
        record = await self.find(server_id)
        life = self.lives.get(server_id)
        if life is not None:
            await life.stop()
        elif record.phase is not Phase.ENDED:
            raise ConfigError(
                f"The cluster {record.cluster} is not described any more, so its server cannot be stopped.",
                "Have the site's staff put its cluster file back.",
            )
        return record

    def servers_of(self, user: str) -> list[ServerRecord]:
        """A user's servers that have not ended."""
        alive = (life.record for life in self.lives.values() if life.record.user == user)
        return [record for record in alive if record.phase is not Phase.ENDED]

    def servers(self) -> list[ServerRecord]:
        """Everybody's servers that have not ended."""
        return [life.record for life in self.lives.values() if life.record.phase is not Phase.ENDED]

    def connections(self) -> list[ConnectionView]:
        """The open connections to login nodes."""
        return self._pool.connections()

    def tunnels(self) -> list[str]:
        """Ids of the servers whose tunnel is open."""
        return [server_id for server_id, life in self.lives.items() if life.tunnel_open]

    async def missing(self) -> dict[str, str]:
        """What keeps the bridge from starting servers, and why; empty where nothing does."""
        return await missing_parts(self._store, self.signer, self._pool, list(self._clusters))

    def view(self, record: ServerRecord) -> ServerView:
        """A server as others see it: its socket only while it is ready."""
        life = self.lives.get(record.id)
        ready = life is not None and record.phase is Phase.READY
        outlook = life.progress.outlook if life else Outlook()
        waits, runs, lives = record.phase in WAITING, record.phase in RUNNING, record.phase is not Phase.ENDED
        return ServerView(
            id=record.id,
            user=record.user,
            server_name=record.server_name,
            cluster=record.cluster,
            placement=record.options["placement"],
            phase=record.phase,
            job_id=record.job_id,
            node=record.node,
            native_state=record.native_state,
            socket=str(life.local_socket) if life is not None and ready else "",
            error=None if record.error is None else from_wire(record.error),
            created_at=record.created_at,
            reason=outlook.reason if waits else life.progress.trouble if life is not None and lives else "",
            queue_place=outlook.queue_place if waits else None,
            expected_start=outlook.expected_start if waits else None,
            ends_at=life.progress.end.at if life is not None and runs else None,
        )

    def _take_up(self, user: str) -> None:
        """Go on with the servers that waited for the user's session."""
        for record in self.servers_of(user):
            self.lives[record.id].begin()
            self.lives[record.id].try_now()

    def _census(self) -> Census:
        return take_census(
            self._clusters, self.servers(), self.tunnels(), self.connections(), len(self.sessions.users())
        )

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise HostUnreachable("The hub's bridge is ending.", "Try again in a minute.")

    def _forget_ended(self) -> None:
        """Ended servers stay in memory for their last events; the store remembers the rest."""
        oldest = time.time() - _EVENTS_KEPT_S
        for server_id, life in list(self.lives.items()):
            if life.ended_at and life.ended_at < oldest:
                del self.lives[server_id]

    async def _start_new(
        self,
        user: str,
        server_name: str,
        chosen: ServerOptions,
        environ: Mapping[str, str],
        base_url: str,
    ) -> ServerRecord:
        record = ServerRecord(
            id=secrets.token_hex(16),
            user=user,
            server_name=server_name,
            cluster=chosen.cluster,
            options=chosen.as_dict(),
            base_url=base_url,
            created_at=time.time(),
            environ=_sealable(environ),
        )
        # Nothing may wait between the two: two starts at once cannot both take the last place.
        self._refuse_beyond_caps(user, server_name, chosen)
        self._being_added.append(record)
        try:
            await self._keeper.add(record)
            life = self.lives[record.id] = self._life(record)
        finally:
            self._being_added.remove(record)
        life.progress.tell(
            Phase.CONNECTING, f"Connecting to {self._clusters[chosen.cluster].title} as {user}"
        )
        life.begin()
        return record

    def _life(self, record: ServerRecord) -> ServerLife:
        options = ServerOptions.from_dict(record.options)
        cluster = self._clusters[record.cluster]
        progress = Progress(record, cluster.compute, self.metrics, self.endings)
        return ServerLife(
            record,
            self._place(record, cluster, options, progress),
            self._keeper,
            local_socket=self._sockets_dir() / f"{record.id}.sock",
            hub_socket=self.settings.hub_socket,
            progress=progress,
            queue=self._queues[record.cluster],
            group=self.settings.group,
        )

    def _servers_on(self, cluster: str) -> Mapping[str, int]:
        """How many servers each login node of a cluster holds."""
        return Counter(
            record.login_node
            for record in (life.record for life in self.lives.values())
            if record.cluster == cluster
            and record.phase is not Phase.ENDED
            and record.options["placement"] == Placement.LOGIN
        )

    def _refuse_beyond_caps(self, user: str, server_name: str, chosen: ServerOptions) -> None:
        """TooManyServers where there is no place for one more; one of the same name makes place."""
        cluster = self._clusters[chosen.cluster]
        alive = (life.record for life in self.lives.values() if life.record.cluster == cluster.name)
        others = [
            (record.cluster, Placement(record.options["placement"]), record.user, record.server_name)
            for record in (*alive, *self._being_added)
            if record.phase is not Phase.ENDED and (record.user, record.server_name) != (user, server_name)
        ]
        refuse_beyond_caps(cluster, chosen.placement, user, others)

    def _place(
        self, record: ServerRecord, cluster: Cluster, options: ServerOptions, progress: Progress
    ) -> Place:
        if options.placement is Placement.LOGIN:
            return OnLoginNode(record, cluster, options, self._pool, progress, self._nodes)
        scheduler = self._schedulers[record.cluster]
        return InJob(record, cluster, options, self._pool, progress, scheduler, self._watcher)

    def _sockets_dir(self) -> Path:
        return self.settings.runtime_dir / "s"


def _sealable(environ: Mapping[str, str]) -> Secret:
    return Secret(json.dumps(dict(environ)))
