"""A real configurable-http-proxy, killed and started again, and what it is given back."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from jupyterhub.httpclient import JupyterHubHTTPClient
from jupyterhub.objects import Server
from jupyterhub.proxy import ConfigurableHTTPProxy

from hpchub.hub.proxy import HpchubProxy
from hpchub.hub.spawner import HpchubSpawner

from .harness import configurable_http_proxy

TOKEN = "a-proxy-token-of-the-tests"
ALICE = SimpleNamespace(
    ready=True,
    pending=None,
    proxy_spec="/user/alice/",
    server=SimpleNamespace(host="http://127.0.0.1:1"),
    _log_name="alice",
)
BOB = SimpleNamespace(**{**vars(ALICE), "proxy_spec": "/user/bob/", "_log_name": "bob"})


class App(SimpleNamespace):
    """As much of the hub as its proxy looks at."""

    hub = SimpleNamespace(routespec="/", host="http://127.0.0.1:2")


@contextmanager
def a_proxy(socket: Path) -> Iterator[subprocess.Popen[bytes]]:
    socket.unlink(missing_ok=True)
    process = subprocess.Popen(
        [configurable_http_proxy(), "--ip", "127.0.0.1", "--port", "0", "--api-socket", str(socket)],
        env={**os.environ, "CONFIGPROXY_AUTH_TOKEN": TOKEN},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def socket() -> Iterator[Path]:
    with TemporaryDirectory(prefix="hpchub-t-", dir="/tmp") as folder:
        yield Path(folder) / "proxy.sock"


@pytest.fixture
async def proxy(socket: Path) -> AsyncIterator[HpchubProxy]:
    users = {
        1: SimpleNamespace(name="alice", spawners={"": ALICE}),
        2: SimpleNamespace(name="bob", spawners={"": BOB}),
    }
    proxy = HpchubProxy(
        app=App(users=users, _service_map={}),
        hub=App.hub,
        api_url=f"http+unix://{quote(str(socket), safe='')}",
        auth_token=TOKEN,
        look_interval=3600,
    )
    yield proxy
    if proxy._looking is not None:
        proxy._looking.stop()
    await JupyterHubHTTPClient.loop_instance().close()


async def table(proxy: HpchubProxy) -> set[str]:
    """What the proxy itself says that it has, asked past what we remember."""
    return set(await ConfigurableHTTPProxy.get_all_routes(proxy))


@pytest.mark.slow
async def test_a_proxy_that_restarts_is_given_everything(proxy: HpchubProxy, socket: Path) -> None:
    """While it is away a look says so and raises nothing; the first look after it fills its table."""
    users = proxy.app.users
    with a_proxy(socket):
        await proxy.check_routes(users, {})
        assert await table(proxy) == {"/", "/user/alice/", "/user/bob/"}
    await proxy.look()
    assert proxy._is_away
    with a_proxy(socket):
        async with asyncio.timeout(10):
            while proxy._is_away:
                await proxy.look()
        assert await table(proxy) == {"/", "/user/alice/", "/user/bob/"}


async def test_a_whole_table_costs_one_small_question(
    proxy: HpchubProxy, socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No look fetches the whole table while nothing is missing."""
    with a_proxy(socket):
        await proxy.check_routes(proxy.app.users, {})

        def refuse(*_: object) -> None:
            raise AssertionError("the whole table was asked for")

        monkeypatch.setattr(ConfigurableHTTPProxy, "get_all_routes", refuse)
        for _ in range(3):
            await proxy.look()


@pytest.mark.slow
async def test_a_route_that_could_not_be_added_is_owed(
    proxy: HpchubProxy, socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JupyterHub would stop the server; here it is no error, and the next look adds the route."""
    users = proxy.app.users
    with a_proxy(socket):
        bob = users.pop(2)
        await proxy.check_routes(users, {})

        async def time_out(*_: object, **__: object) -> None:
            raise TimeoutError("Repeated api_request to proxy path failed.")

        with monkeypatch.context() as patch:
            patch.setattr(ConfigurableHTTPProxy, "api_request", time_out)
            await proxy.add_user(bob)
        users[2] = bob
        assert "/user/bob/" not in await table(proxy)
        await proxy.look()
        assert "/user/bob/" in await table(proxy)
        await proxy.delete_route("/user/bob/")
        assert "/user/bob/" not in proxy._given


async def test_a_server_without_its_socket_has_no_route(proxy: HpchubProxy, socket: Path) -> None:
    """JupyterHub's made-up port of an interrupted start is not routed to: anybody could listen there."""
    spawner = HpchubSpawner(proxy_spec="/user/carol/", user=None)
    carol = SimpleNamespace(name="carol", spawners={"": spawner})
    with a_proxy(socket):
        await proxy.check_routes({}, {})
        spawner.server = Server.from_url("http://127.0.0.1:3/user/carol/")
        await proxy.add_user(carol)
        assert await table(proxy) == {"/"}
        spawner.server = Server.from_url("http+unix://%2Frun%2Fcarol.sock/user/carol/")
        await proxy.add_user(carol)
        assert await table(proxy) == {"/", "/user/carol/"}
