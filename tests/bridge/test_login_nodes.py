"""hpchub.bridge.login_nodes: which node comes first, and what is remembered of each."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpchub.bridge.login_nodes import LoginNodes, NodeFacts, parse_load, rank
from hpchub.core.cluster import Cluster, LoginNode

NAMES = [f"login{number}" for number in range(1, 5)]
FACTS = st.builds(
    NodeFacts,
    servers=st.integers(0, 50),
    load=st.none() | st.floats(0, 100),
    rests=st.booleans(),
)


@pytest.mark.parametrize(
    ("facts", "order"),
    [
        ({}, "1234"),
        ({"login1": NodeFacts(servers=2), "login3": NodeFacts(servers=1)}, "2431"),
        ({"login1": NodeFacts(load=1.2), "login2": NodeFacts(load=0.3, servers=9)}, "3421"),
        ({"login1": NodeFacts(load=0.1), "login2": NodeFacts(load=0.49)}, "1234"),
        ({"login1": NodeFacts(rests=True), "login2": NodeFacts(load=9.0)}, "3421"),
    ],
)
def test_the_order(facts: dict[str, NodeFacts], order: str) -> None:
    """Healthy, then idle, then empty; noise in the load does not count, and equals stay as they came."""
    assert rank(NAMES, facts) == [f"login{digit}" for digit in order]


@given(st.dictionaries(st.sampled_from(NAMES), FACTS))
def test_no_node_is_lost(facts: dict[str, NodeFacts]) -> None:
    """Whatever is known, all are tried, failed ones last."""
    order = rank(NAMES, facts)
    assert sorted(order) == NAMES
    rests = [node in facts and facts[node].rests for node in order]
    assert rests == sorted(rests)


@pytest.mark.parametrize(
    ("text", "load"),
    [("1.50 3\n", 0.5), ("0.00 64", 0.0), ("", None), ("x y", None), ("1 0", None), ("-1 2", None),
     ("nan 2", None), ("inf 2", None), ("1 2 3", None), ("1 nan", None)],
)  # fmt: skip
def test_a_load_is_read_or_unknown(text: str, load: float | None) -> None:
    """A shell may print anything."""
    assert parse_load(text) == load


@given(st.text())
def test_any_load_is_a_number_or_none(text: str) -> None:
    """And never one that breaks the order."""
    load = parse_load(text)
    assert load is None or 0 <= load < math.inf


def test_people_are_spread_and_a_crowd_is_levelled(clusters: dict[str, Cluster]) -> None:
    """With nothing known each person has a node of their own; then every start goes where fewest are."""
    cluster = replace(clusters["alpha"], login_nodes=tuple(LoginNode(name=n, address=n) for n in NAMES))
    servers: Counter[str] = Counter()
    nodes = LoginNodes(lambda _cluster: servers, lambda _cluster, node: node == "login4")
    assert len({nodes.order(cluster, f"user{number}")[0] for number in range(50)}) == 3
    for number in range(30):
        order = nodes.order(cluster, f"user{number}")
        assert order[-1] == "login4"
        servers[order[0]] += 1
    assert servers == {"login1": 10, "login2": 10, "login3": 10}


def test_a_load_is_forgotten(clusters: dict[str, Cluster]) -> None:
    """A busy node is avoided for five minutes, and then tried again; one cluster's load is no other's."""
    cluster = replace(clusters["alpha"], login_nodes=tuple(LoginNode(name=n, address=n) for n in NAMES[:2]))
    now = 1000.0
    nodes = LoginNodes(lambda _cluster: {}, lambda _cluster, _node: False, lambda: now)
    first = nodes.order(cluster, "alice")[0]
    nodes.note("alpha", first, 3.0)
    nodes.note("alpha", first, None)
    assert nodes.order(cluster, "alice")[1] == first
    assert nodes.order(replace(cluster, name="beta"), "alice")[0] == first
    now += 301
    assert nodes.order(cluster, "alice")[0] == first
