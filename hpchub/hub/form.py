"""The options form: what JupyterHub shows before a start, and what it makes of the answer.

A browser's form, a link and a refused form all show the same page. What was typed stays typed, and
each refused field says why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from jupyterhub.spawner import Spawner

from hpchub.bridge.client import BridgeClient
from hpchub.core.choices import choose
from hpchub.errors import ConfigError, HpchubError, InvalidRequest
from hpchub.hub.form_view import notices, view_of
from hpchub.hub.known import Known, ask, check, clusters_in
from hpchub.hub.last_end import last_end
from hpchub.hub.pages import render
from hpchub.hub.refusals import refusal_html, spawn_exception

# What this request's form or link says. Each request of tornado's runs in a context of its own;
# JupyterHub 6.1.1 hands a refused form of a named server to the default server's spawner.
_typed: ContextVar[Mapping[str, object] | None] = ContextVar("hpchub_typed", default=None)


class LinkFillsForm(Exception):
    """Not an error: the way to tell JupyterHub 6.1 to show the form instead of starting at once."""

    # Nothing to say above the form: jupyterhub.utils.format_exception.
    jupyterhub_message = None
    jupyterhub_html_message = None


class LinksAreNoErrors(logging.Filter):
    """Drops the error that JupyterHub logs for each link that fills the form."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be kept."""
        return not (record.exc_info and isinstance(record.exc_info[1], LinkFillsForm))


class Form:
    """The form of one server."""

    def __init__(self, spawner: Spawner, clusters: Path, bridge: BridgeClient) -> None:
        self._spawner = spawner
        self._folder = clusters
        self._bridge = bridge

    async def render(self, _spawner: Spawner) -> str:
        """HTML for JupyterHub's spawn page. It is shown whatever is down, with a word about it."""
        try:
            clusters = clusters_in(self._folder)
        except ConfigError as error:
            self._spawner.log.error("form.no_clusters error=%s", error)
            hidden = ConfigError("The hub's cluster files are wrong.", "Tell the site's staff.")
            return refusal_html(hidden)
        user = self._spawner.user
        known, last = await asyncio.gather(
            ask(self._bridge, user.name, clusters), last_end(self._bridge, user, self._spawner.name)
        )
        typed = _typed.get()
        values: Mapping[str, object] = self._spawner.user_options if typed is None else typed
        refused = self._refused(values, known)
        if typed is None:
            # An old choice that no longer holds is forgotten, not complained of.
            values = {name: value for name, value in values.items() if name not in refused}
            refused = {}
        return render(
            "hpchub_form.html",
            notices=notices(clusters, known),
            # Of a refused form JupyterHub does not say whose it is.
            last_end=last.why if typed is None and last.server_name == self._spawner.name else "",
            **view_of(clusters, known, values, refused),
        )

    def read_form(self, form_data: Mapping[str, list[Any]]) -> Awaitable[dict[str, object]]:
        """Options from a submitted form, checked. Not a coroutine itself: a context variable that
        is set inside a task does not reach the request that waits for it.
        """
        options = flat(form_data)
        _typed.set(options)
        return self._checked(options)

    def read_link(self, query: Mapping[str, list[Any]]) -> Awaitable[dict[str, object]]:
        """Options from the query of a link to the spawn page.

        JupyterHub starts a server from such a link at once. That is kept for `opt-` names, its
        documented form. With plain names the link fills the form, and the person presses start.

        Raises:
            LinkFillsForm: There are plain names.
        """
        options = flat(query)
        _typed.set(options)
        request = self._spawner.handler.request
        if not any(name.startswith("opt-") for name in request.query_arguments):
            raise LinkFillsForm
        return self._checked(options)

    async def _checked(self, options: dict[str, object]) -> dict[str, object]:
        try:
            await check(self._bridge, self._spawner.user.name, clusters_in(self._folder), options)
        except HpchubError as error:
            raise spawn_exception(error) from error
        return options

    def _refused(self, values: Mapping[str, object], known: Known) -> Mapping[str, str]:
        try:
            choose(clusters_in(self._folder), values, known.associations)
        except InvalidRequest as error:
            return error.fields
        return {}


def flat(form_data: Mapping[str, list[Any]]) -> dict[str, object]:
    """A form's lists as single values. What is left empty is left out; the rest stays as it came,
    for `choose` to refuse what it does not know.
    """
    options: dict[str, object] = {}
    for name, values in form_data.items():
        if name == "_xsrf":  # JupyterHub's own, where a script posts it in the body
            continue
        value = values[0].strip(" ") if len(values) == 1 and isinstance(values[0], str) else values
        if value != "":
            options[name] = value
    return options
