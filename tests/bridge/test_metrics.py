"""What the bridge counts, by unit and behind its socket."""

from __future__ import annotations

import time
from collections import Counter

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hpchub.bridge.metrics import BridgeMetrics, Census, ServerMeter
from hpchub.bridge.store import ServerRecord
from hpchub.core.server import ConnectionView, Phase
from hpchub.errors import HpchubError, RemoteError, SchedulerUnavailable

from .bridges import Bridge
from .slurm import FakeSlurm


def a_record(**values: object) -> ServerRecord:
    usual = {
        "id": "9f", "user": "alice", "server_name": "", "cluster": "alpha", "options": {"placement": "login"},
        "base_url": "/", "created_at": time.time() - 7,
    }  # fmt: skip
    return ServerRecord(**(usual | values))  # type: ignore[arg-type]


def value(metrics: BridgeMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_queries_by_result() -> None:
    """Each is counted once, by the class of its error, and timed whatever came of it."""
    metrics = BridgeMetrics()
    with metrics.query("alpha", "status"):
        pass
    with pytest.raises(SchedulerUnavailable), metrics.query("alpha", "status"):
        raise SchedulerUnavailable("slurmctld is away")
    for result in ("ok", "SchedulerUnavailable"):
        labels = {"cluster": "alpha", "kind": "status", "result": result}
        assert value(metrics, "hpchub_scheduler_queries_total", **labels) == 1
    assert value(metrics, "hpchub_scheduler_query_seconds_count", cluster="alpha", kind="status") == 2


def test_a_start_is_timed_once() -> None:
    """Steps and the total count for the first start; coming back after a lost connection is none."""
    metrics = BridgeMetrics()
    meter = ServerMeter(metrics, a_record())
    for _ in range(2):
        with meter.step("attach"):
            pass
        meter.ready()
    where = {"cluster": "alpha", "placement": "login"}
    assert value(metrics, "hpchub_spawn_seconds_count", step="attach", **where) == 1
    assert value(metrics, "hpchub_spawn_seconds_count", step="total", **where) == 1
    assert 7 <= (value(metrics, "hpchub_spawn_seconds_sum", step="total", **where) or 0) < 9


def test_a_server_of_an_earlier_bridge_is_no_start() -> None:
    """A bridge that takes up a ready server does not count the time since its click."""
    metrics = BridgeMetrics()
    meter = ServerMeter(metrics, a_record(phase=Phase.READY))
    with meter.step("attach"):
        pass
    meter.ready()
    assert next(iter(metrics._spawn_seconds.collect())).samples == []


def test_a_step_that_fails_is_not_timed() -> None:
    """Its error is counted as the server's, where the server ends by it."""
    metrics = BridgeMetrics()
    meter = ServerMeter(metrics, a_record())
    with pytest.raises(HpchubError), meter.step("submit"):
        raise HpchubError("no")
    meter.failed(SchedulerUnavailable("no"))
    assert (
        value(metrics, "hpchub_spawn_seconds_count", cluster="alpha", placement="login", step="submit")
        is None
    )
    labels = {"cluster": "alpha", "placement": "login", "cause": "SchedulerUnavailable"}
    assert value(metrics, "hpchub_server_failures_total", **labels) == 1


def test_the_census_is_taken_at_each_scrape() -> None:
    """What is gone is not shown any more, and two registries know nothing of each other."""
    census = Census(servers=Counter({("alpha", "login", "ready"): 3}), logins=2)
    metrics = BridgeMetrics(lambda: census)
    where = {"cluster": "alpha", "placement": "login", "phase": "ready"}
    assert value(metrics, "hpchub_servers", **where) == 3
    assert value(metrics, "hpchub_logins_live") == 2
    census = Census()
    assert value(metrics, "hpchub_servers", **where) is None
    assert value(BridgeMetrics(), "hpchub_logins_live") == 0


async def scrape(bridge: Bridge) -> dict[tuple[str, ...], float]:
    connector = aiohttp.UnixConnector(str(bridge.socket))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get("http://bridge/v1/metrics") as response,
    ):
        assert response.status == 200 and response.content_type == "text/plain"
        text = await response.text()
    # Labels come sorted by their names.
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_a_servers_life_in_numbers(bridge: Bridge, slurm: FakeSlurm) -> None:
    """Started, ready, failed, stopped: each is in the answer to a scrape, and nobody's name or id is."""
    slurm.open = [
        ConnectionView(
            user="alice", cluster="alpha", node="login1", use="commands", sessions=2, channels=0, idle_s=0
        )
    ]
    await bridge.log_in("alice")
    view = await bridge.until(await bridge.start(), Phase.READY)
    await bridge.until(await bridge.start(name="dies"), Phase.ENDED)
    numbers = await scrape(bridge)
    assert numbers["hpchub_servers", "alpha", "ready", "login"] == 1
    assert numbers["hpchub_tunnels", "alpha"] == 1
    assert numbers["hpchub_spawn_seconds_count", "alpha", "login", "total"] == 1
    assert numbers["hpchub_server_failures_total", "StartFailed", "alpha", "login"] == 1
    assert numbers["hpchub_ssh_connections", "alpha", "login1", "commands"] == 1
    assert numbers["hpchub_ssh_sessions", "alpha", "login1", "commands"] == 2
    assert numbers["hpchub_logins_live",] == 1 and numbers["hpchub_certificate_seconds_count",] >= 1
    assert not any("alice" in key or view.id in key or view.job_id in key for key in numbers)
    await bridge.client.stop(view.id)
    after = await scrape(bridge)
    assert after["hpchub_tunnels", "alpha"] == after["hpchub_tunnels", "beta"] == 0
    assert not any(key[0] == "hpchub_servers" for key in after)


async def test_everybodys_servers_and_connections(bridge: Bridge, slurm: FakeSlurm) -> None:
    """Without a user the list has everybody's; the connections come with the open tunnels' servers."""
    slurm.open = [
        ConnectionView(
            user="bob", cluster="alpha", node="login1", use="tunnels", sessions=0, channels=4, idle_s=0
        )
    ]
    views = []
    for user in ("alice", "bob"):
        await bridge.log_in(user)
        views.append(await bridge.until(await bridge.start(user), Phase.READY))
    assert {one.id for one in await bridge.client.servers()} == {one.id for one in views}
    assert await bridge.client.connections() == (slurm.open, frozenset(one.id for one in views))


async def test_ready_says_what_is_missing(bridge: Bridge, slurm: FakeSlurm) -> None:
    """Ready with a store, a signer and a login node; 503 that names the cluster without one."""
    await bridge.client.ready()
    slurm.down = {"login1": "connection refused"}
    with pytest.raises(RemoteError, match=r"cluster alpha: No login node.*login1: connection refused"):
        await bridge.client.ready()
    status, body = await bridge.raw("GET", "/v1/ready")
    assert (status, body["ready"]) == (503, False)
    assert set(body["missing"]) == {"cluster alpha", "cluster beta"}


async def test_not_ready_without_store_or_signer(bridge: Bridge, slurm: FakeSlurm) -> None:
    """Each is tried at every question, not remembered from the start."""
    bridge.service.signer.socket_path = bridge.socket.with_name("nowhere.sock")
    (bridge.service.settings.clusters.parent / "bridge.db").write_bytes(b"not a database" * 99)
    bridge.service._store.close()
    _, body = await bridge.raw("GET", "/v1/ready")
    assert set(body["missing"]) == {"store", "signer"}
    await bridge.client.health()
