"""Starts servers by asking the bridge, and says what became of them. Holds nothing of its own.

JupyterHub 6.1.1 and unix sockets: `User.spawn` keeps only host and port of the URL that `start`
returns, lower-cases the host and appends port 80. Its own client (`httpclient.py`) then opens the
socket without the port, configurable-http-proxy the one with it. The bridge makes both.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from jupyterhub.spawner import Spawner
from markupsafe import Markup
from traitlets import Unicode, default

from hpchub.bridge.client import BridgeClient
from hpchub.core.server import SETTLED, Event, Phase, ServerView
from hpchub.errors import HpchubError, InvalidRequest, ProcessAway, RemoteError, StartFailed, UserError
from hpchub.hub.endings import EndedServers, ended_servers
from hpchub.hub.form import Form
from hpchub.hub.last_end import LastEnd, last_end
from hpchub.hub.refusals import spawn_exception
from hpchub.hub.servers import servers_html

# How long one question for news waits at the bridge, which answers at once where there is some.
_WAIT_S = 20.0
_PAUSE_S = 1.0

# A queue may hold a job for a day. The bridge notices at once when one dies, so nothing waits in vain.
_START_TIMEOUT_S = 24 * 3600

# The bridge has seen the server answer; until JupyterHub does, a tunnel may be lost and made again.
_HTTP_TIMEOUT_S = 600

# The bridge restarts within seconds. Beyond this a person who pressed stop should hear of it.
_STOP_PATIENCE_S = 60
_START_PATIENCE_S = 60

_Answer = TypeVar("_Answer")


class HpchubSpawner(Spawner):
    """One server of one person, on a login node or in a batch job."""

    bridge_socket = Unicode(help="The unix socket of `hpchub bridge`.").tag(config=True)
    clusters = Unicode(help="The folder of cluster files, `clusters.d`.").tag(config=True)
    server_id = Unicode(help="The bridge's id of the server; empty until it has one.")

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.bridge = BridgeClient(Path(self.bridge_socket))
        # Whether the bridge may hold a server of ours that we do not know the id of.
        self._may_live = True
        self._beginning: asyncio.Task[ServerView] | None = None
        self._begun = asyncio.Event()
        self._usual_http_timeout: int = self.http_timeout

    @default("http_timeout")
    def _default_http_timeout(self) -> int:
        return _HTTP_TIMEOUT_S

    @default("start_timeout")
    def _default_start_timeout(self) -> int:
        return _START_TIMEOUT_S

    @default("poll_interval")
    def _default_poll_interval(self) -> int:
        # The bridge tells at once that a server has ended (`start_polling`). This finds what was missed.
        return 300

    @default("options_form")
    def _default_options_form(self) -> object:
        return self._form().render

    @default("options_from_form")
    def _default_options_from_form(self) -> object:
        return self._form().read_form

    @default("apply_user_options")
    def _default_apply_user_options(self) -> object:
        # Nothing to apply: `start` sends them to the bridge, which checks them. An error raised in
        # this hook is logged with a traceback, and one raised in `start` as the refusal it is.
        return lambda _spawner, _options: None

    def options_from_query(self, query_data: dict[str, list[str]]) -> object:
        """A link fills the form; one in JupyterHub's own `opt-` form starts the server."""
        return self._form().read_link(query_data)

    def get_state(self) -> dict[str, Any]:
        """What finds the server again after the hub restarts."""
        state: dict[str, Any] = super().get_state()
        if self.server_id:
            state["server_id"] = self.server_id
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """From JupyterHub's database, once. A hub that died while starting has kept no id: ask by name."""
        super().load_state(state)
        self.server_id = state.get("server_id", "")
        self._may_live = True
        # For one whose start failed, JupyterHub 6.1.1 makes another and does not keep it, then a third, which
        # it starts. Its API looked at the second, and said that the server ran.
        self.user.spawners.setdefault(self.name, self)

    def clear_state(self) -> None:
        """JupyterHub calls this before each start and after each stop."""
        super().clear_state()
        self.server_id = ""
        self._may_live = False
        self._beginning = None
        self._begun = asyncio.Event()
        self.http_timeout = self._usual_http_timeout

    async def start(self) -> str:
        """The URL of the server's socket, once it answers.

        A cancelled start leaves the server to `stop`, which JupyterHub calls next. A hub that ends
        while a job waits in the queue calls nothing, and finds the job again.

        Raises:
            SpawnException: An option is refused, or the server ended before it was ready.
        """
        with _as_spawn_exceptions():
            try:
                await self._begin()
            except UserError:
                # JupyterHub has saved them already, as the next start's own.
                self.orm_spawner.user_options = {}
                raise
            view = await self._until_up()
            if view.phase is not Phase.READY:
                raise view.error or StartFailed("The server was stopped before it was ready.")
            return _url(view)

    async def stop(self, now: bool = False) -> None:
        """Returns once the job or process is gone.

        Raises:
            HpchubError: Neither the bridge nor the cluster could be told for a minute.
        """
        if self._beginning is not None:
            await asyncio.wait([self._beginning])
            if not self._beginning.cancelled() and self._beginning.exception() is None:
                self.server_id = self._beginning.result().id
        # A start that the bridge never answered has most likely begun nothing: ask once.
        patience_s = _STOP_PATIENCE_S if self.server_id else 0
        try:
            await self._patiently(self._stop_once, patience_s)
        except HpchubError as error:
            # JupyterHub counts a failed stop and drops the error.
            self.log.error(
                "server.stop_failed id=%s server=%s error=%s", self.server_id, self._log_name, error
            )
            raise

    async def poll(self) -> int | None:
        """None while the server lives or nobody can say; else 0, or 1 where it ended badly."""
        if self._beginning is not None and not self._beginning.done():
            return None
        try:
            if not await self._known_id():
                return 0
            view = await self.bridge.server(self.server_id)
        except InvalidRequest:
            return 0  # there never was such a server, says the bridge
        except HpchubError as error:
            self.log.warning(
                "server.poll_unavailable id=%s server=%s error=%s",
                self.server_id,
                self._log_name,
                error.message,
            )
            return None
        if view.phase is not Phase.ENDED:
            return None
        return 1 if view.error else 0

    def start_polling(self) -> None:
        """JupyterHub calls this once the server runs, or runs on: hear of its end as well."""
        super().start_polling()
        if self.server_id:
            self._ended_servers().watch(self.server_id, self.poll_and_notify)

    def stop_polling(self) -> None:
        """JupyterHub calls this before it stops the server, and once it has ended."""
        super().stop_polling()
        if self.server_id:
            self._ended_servers().forget(self.server_id)

    async def get_url(self) -> str:
        """The server's URL after a restart of the hub; waits where the server is not ready yet.

        JupyterHub gives a server `http_timeout` to answer at this URL and stops it otherwise. A job
        that is still queued must not be asked for.
        """
        try:
            known = await self._patiently(self._known_id)
            view = await self._as_a_start_does() if known else None
        except InvalidRequest:
            view = None  # there never was such a server, says the bridge
        if view is None or view.phase is not Phase.READY:
            self.http_timeout = 1  # nobody will answer: JupyterHub then ends it on its own side
            return str(self.server.url)
        # A hub that died while starting has saved no address, and 6.1.1 does not fill in the scheme.
        self.server.proto = "http+unix"
        self.server.port = 80
        return f"{_url(view)}:80{self.server.base_url}"

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """What happens while the server starts, in the bridge's words; the bar never goes back."""
        await self._begun.wait()
        after = shown = 0
        while True:
            view, events, after = await self._news(after)
            for event in events:
                if event.phase is Phase.ENDED:
                    continue  # JupyterHub's own last line says how it failed
                shown = max(shown, min(event.percent, 99))
                yield {"progress": shown, "message": event.message}
            if view.phase in SETTLED:
                return

    def get_env(self) -> dict[str, str]:
        """JupyterHub's, as text. The addresses in it are the hub's own: the bridge puts in those
        that hold on the node.
        """
        return {name: str(value) for name, value in super().get_env().items() if value is not None}

    def _ended_servers(self) -> EndedServers:
        return ended_servers(self.user.settings, Path(self.bridge_socket))

    async def servers_html(self, only: str | None = None) -> Markup:
        """For the templates: what the person's servers are doing, or the one named `only`."""
        return await servers_html(self.bridge, Path(self.clusters), self.user, only)

    async def last_end(self) -> LastEnd:
        """For the page that stands where this server was: why it ended, if by itself."""
        return await last_end(self.bridge, self.user, self.name)

    def _form(self) -> Form:
        return Form(self, Path(self.clusters), self.bridge)

    async def _begin(self) -> None:
        """Asks the bridge to start, and learns the server's id even if this start is cancelled."""
        self._may_live = True
        self._beginning = asyncio.ensure_future(self._start_once_the_bridge_is_there())
        try:
            view = await asyncio.shield(self._beginning)
        except UserError:
            self._may_live = False
            raise
        self.server_id = view.id
        self.log.info("server.begun id=%s server=%s", self.server_id, self._log_name)
        self._begun.set()

    async def _as_a_start_does(self) -> ServerView:
        """Wait until the server is up, in the state in which a start waits.

        JupyterHub 6.1.1 has no word for a start that a restart of the hub interrupted: while it checks
        such a server, nobody can watch or stop it. Its flags for a start make both work.
        """
        self._spawn_pending, self._check_pending = True, False
        waiting = asyncio.ensure_future(self._until_up())
        self._spawn_future: asyncio.Future[ServerView] | None = waiting
        self._begun.set()
        await asyncio.wait([waiting])
        self._spawn_future, self._spawn_pending = None, False
        if waiting.cancelled():
            # A stop goes on from here. JupyterHub's check would ask for an answer next, and then stop
            # whatever the person has started meanwhile.
            await asyncio.Event().wait()
        self._check_pending = True
        return waiting.result()

    async def _start_once_the_bridge_is_there(self) -> ServerView:
        """Ask again where the bridge restarts meanwhile: it knows the same start again."""
        deadline = time.monotonic() + _START_PATIENCE_S
        while True:
            try:
                return await self.bridge.start(
                    user=self.user.name,
                    server_name=self.name,
                    options=self.user_options,
                    environ=self.get_env(),
                    base_url=self.server.base_url,
                )
            except ProcessAway as error:
                if time.monotonic() >= deadline:
                    raise
                self.log.warning("server.delayed server=%s error=%s", self._log_name, error.message)
            await asyncio.sleep(_PAUSE_S)

    async def _until_up(self) -> ServerView:
        """The server once it is ready or has ended."""
        after = 0
        while True:
            view, _, after = await self._news(after, settled=True)
            if view.phase in SETTLED:
                return view

    async def _news(self, after: int, *, settled: bool = False) -> tuple[ServerView, list[Event], int]:
        """The server, its events beyond the first `after`, and where to go on.

        With `settled` only what comes with the end of the start: each question costs both sides.
        """
        asked = after

        async def ask() -> tuple[ServerView, list[Event], int]:
            nonlocal asked
            # A bridge that was away counts from the start again.
            start, asked = asked, 0
            return await self.bridge.events(self.server_id, start, _WAIT_S, settled=settled)

        return await self._patiently(ask)

    async def _patiently(
        self, ask: Callable[[], Awaitable[_Answer]], patience_s: float = math.inf
    ) -> _Answer:
        """The answer, asked for again while the bridge or the cluster is away."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                return await ask()
            except RemoteError as error:
                if not error.retryable or time.monotonic() >= deadline:
                    raise
                self.log.warning(
                    "server.delayed id=%s server=%s error=%s", self.server_id, self._log_name, error.message
                )
            await asyncio.sleep(_PAUSE_S)

    async def _stop_once(self) -> None:
        if await self._known_id():
            await self.bridge.stop(self.server_id)

    async def _known_id(self) -> str:
        """The bridge's id of this server, looked for by its name where we have none; may be empty."""
        if not self.server_id and self._may_live:
            views = await self.bridge.servers(self.user.name)
            mine = [view.id for view in views if view.server_name == self.name]
            self.server_id = mine[0] if mine else ""
        return str(self.server_id)


@contextmanager
def _as_spawn_exceptions() -> Iterator[None]:
    try:
        yield
    except HpchubError as error:
        raise spawn_exception(error) from error


def _url(view: ServerView) -> str:
    return f"http+unix://{quote(view.socket, safe='').lower()}"
