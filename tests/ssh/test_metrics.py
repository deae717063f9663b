"""What the pool counts of real connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from hpchub.core.command import Command
from hpchub.errors import HostKeyMismatch, HostUnreachable
from hpchub.ssh.forward import LocalForward, serve_by_channel
from hpchub.ssh.line import channels_of
from hpchub.ssh.metrics import SshMetrics
from hpchub.ssh.pool import Pool
from support.ports import free_port

from .conftest import USER, RealNode, Starter

PoolFor = Callable[..., Pool]
TRUE = Command(argv=("true",))


def handshakes(pool: Pool) -> dict[str, float]:
    return {
        sample.labels["result"]: sample.value
        for family in (pool.metrics._handshakes,)
        for metric in family.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }


async def test_handshakes_by_result(fake_node: Starter, pool_for: PoolFor) -> None:
    """One that went well, one to a host with another key, one to nobody."""
    async with fake_node() as node, pool_for(node.port) as pool:
        await pool.run(USER, "alpha", TRUE)
        await pool.run(USER, "alpha", TRUE)
        assert handshakes(pool) == {"ok": 1}
        (view,) = pool.connections()
        assert (view.user, view.node, view.use, view.sessions) == (USER, "login1", "commands", 0)
    assert pool.connections() == []
    async with fake_node() as node, pool_for(node.port, lines="") as pool:
        with pytest.raises(HostKeyMismatch):
            await pool.run(USER, "alpha", TRUE)
        assert handshakes(pool) == {"HostKeyMismatch": 1}
        assert "host key" in pool.unreachable("alpha", 600)["login1"]


async def test_what_is_unreachable(fake_node: Starter, pool_for: PoolFor) -> None:
    """A node that failed lately is told with the reason; one that was never tried, or works, is not."""
    async with fake_node() as node, pool_for(free_port(), node.port) as pool:
        assert pool.login_nodes("alpha") == 2 and pool.unreachable("alpha", 600) == {}
        with pytest.raises(HostUnreachable):
            await pool.run(USER, "alpha", TRUE, node="login1")
        await pool.run(USER, "alpha", TRUE, node="login2")
        failed = pool.unreachable("alpha", 600)
        assert set(failed) == {"login1"} and "refused" in failed["login1"]
        await asyncio.sleep(0.01)
        assert pool.unreachable("alpha", 0.001) == {}


async def test_bytes_both_ways(bash_node: RealNode, pool_for: PoolFor) -> None:
    """What goes through a forwarded socket is counted in each direction."""
    far = bash_node.home / "echo.sock"
    near = bash_node.home.parent / "near.sock"

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(2 * await reader.read())
        writer.close()

    server = await asyncio.start_unix_server(echo, far)
    far.chmod(0o666)
    async with pool_for(bash_node.port) as pool, server:
        connection = await pool.tunnel(USER, "alpha")
        channels = channels_of(connection, 10)
        forward = LocalForward(lambda local: serve_by_channel(connection, channels, str(far), local))
        forward.listen(near)
        reader, writer = await asyncio.open_unix_connection(near)
        writer.write(b"x" * 1000)
        writer.write_eof()
        assert len(await reader.read()) == 2000
        writer.close()
        await forward.close()
        assert (pool.metrics.traffic.sent, pool.metrics.traffic.received) == (1000, 2000)
    far.unlink()


def test_registries_are_apart() -> None:
    """Two pools in one process count for themselves."""
    one, other = SshMetrics(CollectorRegistry()), SshMetrics(CollectorRegistry())
    one.traffic.sent += 5
    assert other.traffic.sent == 0
