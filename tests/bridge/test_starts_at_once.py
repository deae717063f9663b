"""Starts that come together, one after another, or where no place is left, through the whole bridge."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from hpchub.bridge import life as life_module
from hpchub.bridge.settings import BridgeSettings
from hpchub.bridge.store import Store
from hpchub.core.cluster import Caps, Cluster
from hpchub.core.server import Phase, ServerView
from hpchub.errors import (
    SchedulerUnavailable,
    TooManyServers,
)
from hpchub.ssh.key_agent import KeyAgent

from .bridges import Bridge, a_bridge
from .conftest import Login
from .places import SlowToSubmit
from .slurm import FakeSlurm


async def test_two_starts_at_once_make_one_server(bridge: Bridge) -> None:
    """A double click, and the hub's retry: one job, and the newest environment."""
    await bridge.log_in("alice")
    views = await asyncio.gather(*(bridge.start(name="slow", environ={"T": str(n)}) for n in range(3)))
    assert len({view.id for view in views}) == 1 and len(bridge.service.lives) == 1
    place = bridge.service.places[views[0].id]
    assert isinstance(place, SlowToSubmit)
    place.gate.set()
    await bridge.until(views[0], Phase.READY)
    assert place.calls.count("submit") == 1
    assert place.node.handovers[0]["environ"]["T"] == "2"


async def test_two_names_are_two_servers(bridge: Bridge) -> None:
    """Also of two people with servers of one name."""
    await bridge.log_in("alice")
    await bridge.log_in("bob")
    views = await asyncio.gather(bridge.start(), bridge.start(name="other"), bridge.start(user="bob"))
    assert len({view.id for view in views}) == 3
    assert len(await bridge.client.servers("alice")) == 2


@pytest.mark.parametrize("name", ["never-runs", ""])
async def test_a_start_with_other_options_replaces(bridge: Bridge, name: str) -> None:
    """The server that waits or runs is stopped first; one that runs is replaced in any case."""
    await bridge.log_in("alice")
    first = await bridge.until(await bridge.start(name=name), Phase.QUEUED, Phase.READY)
    if name:
        same = await bridge.start(name=name)
        assert same.id == first.id
    second = await bridge.start(name=name, cluster="beta" if name else "alpha")
    assert second.id != first.id
    assert (await bridge.client.server(first.id)).phase is Phase.ENDED
    assert "cancel" in bridge.service.places[first.id].calls
    assert [view.id for view in await bridge.client.servers("alice")] == [second.id]


async def test_a_start_while_it_is_being_stopped_waits(bridge: Bridge) -> None:
    """The dying server is not adopted: a new one is made once it is gone."""
    await bridge.log_in("alice")
    first = await bridge.start(name="slow")
    stop = asyncio.create_task(bridge.client.stop(first.id))
    await bridge.until(first, Phase.STOPPING)
    start = asyncio.create_task(bridge.start(name="slow"))
    await asyncio.sleep(0.05)
    assert not start.done()
    place = bridge.service.places[first.id]
    assert isinstance(place, SlowToSubmit)
    place.gate.set()
    assert (await stop).phase is Phase.ENDED
    second = await start
    assert second.id != first.id
    place = bridge.service.places[second.id]
    assert isinstance(place, SlowToSubmit)
    place.gate.set()


async def test_a_start_whose_predecessor_cannot_be_stopped(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No second server of that name: the error says why, and the first one stays visible."""
    monkeypatch.setattr(life_module, "_END_LIMIT_S", 0.05)
    await bridge.log_in("alice")
    first = await bridge.until(await bridge.start(name="stubborn"), Phase.READY)
    with pytest.raises(SchedulerUnavailable):
        await bridge.start(name="stubborn")
    assert await bridge.client.servers("alice") == [first]
    assert (await bridge.start(name="stubborn")).id != first.id


async def test_the_last_place_is_taken_once(bridge: Bridge, clusters: dict[str, Cluster]) -> None:
    """However many ask in the same moment; a stop, or a start of the same name, makes place."""
    clusters["alpha"] = replace(clusters["alpha"], caps=Caps(servers=3, servers_per_user=2))
    for user in ("alice", "bob"):
        await bridge.log_in(user)
    starts = (bridge.start(name=f"s{number}") for number in range(6))
    results = await asyncio.gather(*starts, return_exceptions=True)
    refused = [result for result in results if isinstance(result, TooManyServers)]
    views = [result for result in results if isinstance(result, ServerView)]
    assert (len(views), len(refused)) == (2, 4) and "limits.servers_per_user" in refused[0].message
    starts = (bridge.start("bob", name=f"s{number}") for number in range(2))
    results = await asyncio.gather(*starts, return_exceptions=True)
    assert [type(result) for result in results].count(TooManyServers) == 1
    assert len(bridge.service.lives) == 3
    views = [await bridge.until(view, Phase.READY) for view in views]
    again = await bridge.start(name=views[0].server_name)
    assert again.id != views[0].id
    await bridge.client.stop(views[1].id)
    await bridge.start(name="s9")


async def test_a_refused_replacement_ends_nothing(bridge: Bridge, clusters: dict[str, Cluster]) -> None:
    """The old server stays where the new one would be one too many on its own cluster."""
    clusters["beta"] = replace(clusters["beta"], caps=Caps(servers=1))
    for user in ("alice", "bob"):
        await bridge.log_in(user)
    first = await bridge.until(await bridge.start(), Phase.READY)
    await bridge.start("bob", cluster="beta")
    with pytest.raises(TooManyServers, match=r"limits\.servers"):
        await bridge.start(cluster="beta")
    assert await bridge.client.servers("alice") == [first]


async def test_starts_wait_for_each_other(
    settings: BridgeSettings,
    clusters: dict[str, Cluster],
    store: Store,
    login: Login,
    agent: KeyAgent,
    slurm: FakeSlurm,
) -> None:
    """A cluster's own number of starts goes through at once, whoever's they are; another's do not count."""
    clusters["alpha"] = replace(clusters["alpha"], starts_at_once=1)
    async with a_bridge(settings, clusters, store, login, agent) as bridge:
        await bridge.log_in("alice")
        await bridge.log_in("bob")
        slow = await bridge.start(name="slow")
        waits = await bridge.start("bob")
        await bridge.until(await bridge.start(name="elsewhere", cluster="beta"), Phase.READY)
        _, events, _ = await bridge.client.events(waits.id, 1, 1)
        assert events[-1].message == "Many servers start at once: yours is the next"
        place = bridge.service.places[slow.id]
        assert isinstance(place, SlowToSubmit)
        place.gate.set()
        await bridge.until(waits, Phase.READY)


async def test_twenty_people_at_once(bridge: Bridge) -> None:
    """Each gets one server of their own."""
    people = [f"user{number}" for number in range(20)]
    await asyncio.gather(*(bridge.log_in(user) for user in people))
    views = await asyncio.gather(*(bridge.start(user=user) for user in people))
    views = await asyncio.gather(*(bridge.until(view, Phase.READY) for view in views))
    assert [view.user for view in views] == people and len({view.socket for view in views}) == 20
    ended = await asyncio.gather(*(bridge.client.stop(view.id) for view in views))
    assert {view.phase for view in ended} == {Phase.ENDED}
