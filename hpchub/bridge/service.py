"""Everything the bridge knows: sessions, servers and their lives, and what people may charge."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpchub.bridge.in_job import InJob
from hpchub.bridge.life import ServerLife
from hpchub.bridge.on_login_node import OnLoginNode
from hpchub.bridge.places import Place
from hpchub.bridge.progress import Progress
from hpchub.bridge.sessions import Sessions
from hpchub.bridge.settings import BridgeSettings
from hpchub.bridge.store import ServerRecord, Store
from hpchub.bridge.watcher import Watcher
from hpchub.core.choices import ServerOptions, choose
from hpchub.core.cluster import Cluster, Placement
from hpchub.core.job import Association
from hpchub.core.secret import Secret
from hpchub.core.server import Phase, ServerView
from hpchub.errors import AccountProblem, ConfigError, HostUnreachable, InvalidRequest, from_wire, to_wire
from hpchub.schedulers.registry import scheduler_for
from hpchub.signer.client import SignerClient
from hpchub.ssh.pool import Pool

log = logging.getLogger(__name__)

# Accounts change by a staff member's hand; a form asks each time it is opened.
_ASSOCIATIONS_KEPT_S = 60.0

_EVENTS_KEPT_S = 600.0


class Service:
    """An async context manager: entering takes up the servers that a previous bridge left."""

    def __init__(self, settings: BridgeSettings, clusters: Mapping[str, Cluster], store: Store) -> None:
        self.settings = settings
        self.sessions = Sessions(SignerClient(settings.signer_socket))
        self.lives: dict[str, ServerLife] = {}
        self._clusters = clusters
        self._schedulers = {name: scheduler_for(cluster) for name, cluster in clusters.items()}
        self._store = store
        self._pool = Pool(clusters, self.sessions)
        self._watcher = Watcher(self._pool, self._schedulers)
        self._associations: dict[tuple[str, str], tuple[float, list[Association]]] = {}
        self._closing = False
        self._starting: dict[tuple[str, str], asyncio.Lock] = {}

    async def __aenter__(self) -> Service:
        sockets = self._sockets_dir()
        sockets.mkdir(mode=0o700, exist_ok=True)
        for stale in sockets.iterdir():
            stale.unlink()
        await self._pool.__aenter__()
        for record in await asyncio.to_thread(self._store.unfinished):
            if record.cluster in self._clusters:
                self.lives[record.id] = self._life(record, None)
            else:
                await self._give_up(record)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._closing = True  # the API still answers, but nothing begins that nobody would look after
        await asyncio.gather(*(life.leave() for life in self.lives.values()))
        await self._watcher.close()
        await self._pool.__aexit__(None, None, None)

    async def open_session(self, user: str, key_id: str, grant: Secret) -> float:
        """Begin a session, and take up the user's servers that waited for one; its end, Unix seconds."""
        self._refuse_when_closing()
        expires_at = await self.sessions.open(user, key_id, grant)
        for record in self.servers_of(user):
            self.lives[record.id].begin()
        return expires_at

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
            result = await self._pool.run(user, cluster_name, scheduler.associations_command(user))
            rows = scheduler.parse_associations(result)
            self._associations[user, cluster_name] = (time.monotonic(), rows)
        if not rows:
            raise AccountProblem(
                f"{user} has no account in the scheduler of {cluster_name} (no association).",
                "Ask the site's staff, or your project's leader, to add you to an account.",
            )
        return rows

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
        """
        self._refuse_when_closing()
        self.sessions.expires_at(user)
        chosen = choose(self._clusters, options)
        if chosen.placement is Placement.COMPUTE:
            rows = await self.associations(user, chosen.cluster)
            chosen = choose(self._clusters, options, {chosen.cluster: rows})
        async with self._starting.setdefault((user, server_name), asyncio.Lock()):
            for record in self.servers_of(user):
                if record.server_name != server_name:
                    continue
                same = record.options == chosen.as_dict()
                if same and await self.lives[record.id].adopt(environ, base_url):
                    return record
                await self.stop(record.id)
            self._forget_ended()
            return await self._start_new(user, server_name, chosen, environ, base_url)

    async def find(self, server_id: str) -> ServerRecord:
        """A server, ended or not. InvalidRequest where there never was one."""
        life = self.lives.get(server_id)
        record = life.record if life else await asyncio.to_thread(self._store.find, server_id)
        if record is None:
            raise InvalidRequest(f"There is no server {server_id!r}.")
        return record

    async def stop(self, server_id: str) -> ServerRecord:
        """End a server and return once it is gone."""
        record = await self.find(server_id)
        life = self.lives.get(server_id)
        if life is not None:
            await life.stop()
        return record

    def servers_of(self, user: str) -> list[ServerRecord]:
        """A user's servers that have not ended."""
        return [
            life.record
            for life in self.lives.values()
            if life.record.user == user and life.record.phase is not Phase.ENDED
        ]

    def view(self, record: ServerRecord) -> ServerView:
        """A server as others see it: its socket only while it is ready."""
        life = self.lives.get(record.id)
        ready = life is not None and record.phase is Phase.READY
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
            ends_at=life.progress.end.at if life is not None else None,
        )

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise HostUnreachable("The hub's bridge is ending.", "Try again in a minute.")

    async def _give_up(self, record: ServerRecord) -> None:
        """End what nobody can reach any more: the others must be taken up all the same."""
        log.error("server.cluster_gone id=%s user=%s cluster=%s", record.id, record.user, record.cluster)
        gone = ConfigError(
            f"The cluster {record.cluster} is not described any more, so its server was given up."
        )
        record.phase, record.error = Phase.ENDED, to_wire(gone)
        await asyncio.to_thread(self._store.save, record)

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
        )
        await asyncio.to_thread(self._store.add, record)
        life = self.lives[record.id] = self._life(record, environ)
        life.progress.tell(
            Phase.CONNECTING, f"Connecting to {self._clusters[chosen.cluster].title} as {user}"
        )
        life.begin()
        return record

    def _life(self, record: ServerRecord, environ: Mapping[str, str] | None) -> ServerLife:
        options = ServerOptions.from_dict(record.options)
        cluster = self._clusters[record.cluster]
        progress = Progress(record, cluster.compute)
        return ServerLife(
            record,
            self._place(record, cluster, options, progress),
            self._store,
            local_socket=self._sockets_dir() / f"{record.id}.sock",
            hub_socket=self.settings.hub_socket,
            environ=environ,
            progress=progress,
        )

    def _place(
        self, record: ServerRecord, cluster: Cluster, options: ServerOptions, progress: Progress
    ) -> Place:
        if options.placement is Placement.LOGIN:
            return OnLoginNode(record, cluster, options, self._pool, progress)
        scheduler = self._schedulers[record.cluster]
        return InJob(record, cluster, options, self._pool, progress, scheduler, self._watcher)

    def _sockets_dir(self) -> Path:
        return self.settings.runtime_dir / "s"
