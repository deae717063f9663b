"""The notebook server's part in JupyterLab's view of kernels in jobs: a real server, and a stand-in for Slurm."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_server.serverapp import ServerApp
from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from traitlets.config import Config

from support.kernel_jobs import OneJob

from .conftest import Install

_TOKEN = "secret"


class Server:
    """A notebook server in this process, as a browser reaches it."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def ask(
        self, path: str, method: str = "GET", body: object = None, token: str = _TOKEN
    ) -> HTTPResponse:
        """The answer, whatever its status."""
        request = HTTPRequest(
            self.url + path, method=method, headers={"Authorization": f"token {token}"} if token else {},
            body=None if body is None else json.dumps(body), request_timeout=60,
        )  # fmt: skip
        return await AsyncHTTPClient().fetch(request, raise_error=False)

    async def waiting(self) -> list[dict[str, Any]]:
        """The kernels that wait."""
        rows: list[dict[str, Any]] = json.loads((await self.ask("hpchub/kernels/waiting")).body)
        return rows


@pytest.fixture
async def server(home: Path) -> AsyncIterator[Server]:
    """One with our extension, whose root is the home."""
    config = Config()
    config.ServerApp.update(
        base_url="/user/alice/", root_dir=str(home), allow_root=True, open_browser=False,
        jpserver_extensions={"hpchub.kernels.server": True},
    )  # fmt: skip
    config.IdentityProvider.token = _TOKEN
    app = ServerApp(config=config)
    app.initialize(argv=[], find_extensions=False, new_httpserver=False)
    socket, port = bind_unused_port()
    http = HTTPServer(app.web_app)
    http.add_socket(socket)
    yield Server(f"http://127.0.0.1:{port}/user/alice/")
    http.stop()
    await app._cleanup()
    ServerApp.clear_instance()


async def test_a_kernel_that_waits_is_listed_and_can_be_given_up(
    job: OneJob, kernel: Install, home: Path, server: Server
) -> None:
    """With its notebook as JupyterLab has it, and the queue's reason. Its job is cancelled then, the request that
    started it says why it failed, and nothing is left in the list or the home.
    """
    kernel()
    job.hold()
    (home / "work").mkdir()
    session = {"path": "work/9f3a", "name": "train.ipynb", "type": "notebook", "kernel": {"name": "node"}}
    starting = asyncio.create_task(server.ask("api/sessions", "POST", session))
    async with asyncio.timeout(30):
        while not (rows := await server.waiting()) or not rows[0]["reason"]:
            await asyncio.sleep(0.02)
    (row,) = rows
    gone = row.pop("id")
    assert row == {
        "kernel": "node", "title": "Node", "notebook": "work/train.ipynb", "job": "4242",
        "reason": "Job 4242: Pending: waiting for resources to become free (Resources).",
    }  # fmt: skip
    assert (await server.ask(f"hpchub/kernels/waiting/{gone}", "DELETE")).code == 204
    answer = await starting
    assert answer.code == 500
    assert "The kernel's job 4242 is wanted no more." in json.loads(answer.body)["message"].replace("\n", " ")
    assert [line.split()[-1] for line in job.cancelled] == ["4242"]
    assert await server.waiting() == []
    assert list((home / ".hpchub/kernels").iterdir()) == []
    again = await server.ask(f"hpchub/kernels/waiting/{gone}", "DELETE")
    assert (again.code, json.loads(again.body)["message"]) == (404, "This kernel does not wait, or no longer.")
