"""What JupyterLab asks the notebook server about kernels in jobs: an extension of jupyter_server.

docs/reference/kernels.md lists the requests. A file in etc/jupyter of the environment enables it.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path, PurePath
from typing import Any

from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado.web import HTTPError, authenticated

from hpchub.errors import ConfigError, HpchubError, InvalidRequest
from hpchub.kernels.kernelspec import Kernelspec, load_kernelspec
from hpchub.kernels.partitions import Partitions, in_texts
from hpchub.kernels.sessions import follow
from hpchub.kernels.waiting import GLANCE_S, SETTING, Waiting

# Of the server's own settings: held while a kernel is made, for two pages may ask for the same one.
_MAKING = "hpchub_kernel_making"
_PARTITIONS = "hpchub_partitions"


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(app: Any) -> None:
    """What jupyter_server calls with its application."""
    app.web_app.settings[SETTING] = {}
    app.web_app.settings[_MAKING] = asyncio.Lock()
    app.web_app.settings[_PARTITIONS] = Partitions()
    follow(app.session_manager)
    root = url_path_join(app.base_url, "hpchub", "kernels")
    handlers = [
        (root, Kernels),
        (url_path_join(root, "partitions"), ClusterPartitions),
        (url_path_join(root, "waiting"), WaitingKernels),
        (url_path_join(root, "waiting", "(?P<kernel_id>[^/]+)"), WaitingKernel),
    ]
    app.web_app.add_handlers(".*$", handlers)


class WaitingKernels(APIHandler):
    """The kernels that wait, and why."""

    auth_resource = "kernels"

    _track_activity = False  # a page that looks by itself is nobody's work

    @authenticated
    @authorized
    async def get(self) -> None:
        """Those that nobody has given up."""
        root = self.settings.get("server_root_dir", "")
        rows = [
            {"id": one.kernel_id, "kernel": one.kernel, "title": one.title, "job": one.job,
             "notebook": _as_shown(one.purpose.notebook, root), "session": one.session, "reason": one.reason}
            for one in _waiting(self).values()
            if not one.is_given_up
        ]  # fmt: skip
        self.finish(json.dumps(rows))


class WaitingKernel(APIHandler):
    """One of them."""

    auth_resource = "kernels"

    @authenticated
    @authorized
    async def delete(self, kernel_id: str) -> None:
        """Gives it up: the request that started it fails. Answers when its job is cancelled."""
        one = _waiting(self).get(kernel_id)
        if one is None:
            raise HTTPError(404, "This kernel does not wait, or no longer.")
        one.is_given_up = True
        while _waiting(self).get(kernel_id) is one:  # noqa: ASYNC110  who waits looks as often
            await asyncio.sleep(GLANCE_S)
        self.set_status(204)
        self.finish()


class ClusterPartitions(APIHandler):
    """The partitions that a kernel's job may ask for."""

    auth_resource = "kernelspecs"

    @authenticated
    @authorized
    async def get(self) -> None:
        """Each with its limits; or why they cannot be listed, in words for the form."""
        try:
            found = await self.settings[_PARTITIONS].get()
        except HpchubError as error:
            self.set_status(error.status)
            self.finish(json.dumps({"message": str(error)}))
            return
        self.finish(json.dumps([in_texts(one) for one in found]))


class Kernels(APIHandler):
    """The kernels of this person that run in jobs."""

    auth_resource = "kernelspecs"

    @authenticated
    @authorized
    async def post(self) -> None:
        """Makes one from another one: `kernel` is that one's name, `settings` what the form holds.

        Answers with name and title; or with why not, in words for the form.
        """
        # Imported late: what it brings along would delay the start of each server.
        from hpchub.kernels.choosing import FIELDS, choose

        name, fields, title = _read(self._body(), FIELDS)
        try:
            source = await self._source(name)
            async with self.settings[_MAKING]:
                made = await asyncio.to_thread(lambda: choose(source, fields, title))
        except HpchubError as error:
            self.set_status(error.status)
            self.finish(json.dumps({"message": str(error)}))
            return
        self.finish(json.dumps({"name": made.name, "title": made.title}))

    def _body(self) -> Any:
        try:
            return self.get_json_body()
        except UnicodeDecodeError as error:
            raise HTTPError(400, "The body of the request is no UTF-8.") from error

    async def _source(self, name: str) -> Kernelspec:
        """The kernel of that name. HTTPError where there is none, InvalidRequest where it cannot be read."""
        # Not what Jupyter makes of its kernel.json, which stumbles over one that is wrong.
        folders = await ensure_async(self.kernel_spec_manager.find_kernel_specs())
        if name.lower() not in folders:
            raise HTTPError(404, "There is no such kernel.")
        try:
            return load_kernelspec(Path(folders[name.lower()]))
        except ConfigError as error:
            raise InvalidRequest(str(error)) from error


def _read(body: Any, known: tuple[str, ...]) -> tuple[str, dict[str, str], str]:
    """Kernel, settings and title of a request. HTTPError where it is none."""
    match body:
        case {"kernel": str(name), "settings": dict(fields)}:
            title = body.get("title", "")
            texts = (title, *fields.values())
            if set(fields) <= set(known) and all(isinstance(text, str) for text in texts):
                return name, fields, title
    raise HTTPError(400, f"Wanted are a kernel, and settings of {', '.join(known)}.")


def _waiting(handler: APIHandler) -> dict[str, Waiting]:
    """By the kernels' ids."""
    waiting: dict[str, Waiting] = handler.settings[SETTING]
    return waiting


def _as_shown(notebook: str, root: str) -> str:
    """A notebook's path as JupyterLab has it, from the server's root on."""
    path, above = PurePath(notebook), Path(root).expanduser()  # jupyter_server writes ~ for the home
    return str(path.relative_to(above)) if root and path.is_relative_to(above) else notebook
