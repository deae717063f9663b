"""hpchub.core.caps: when there is no place, what is said, and what does not count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hpchub.core.caps import Held, refuse_beyond_caps
from hpchub.core.cluster import (
    Caps,
    Cluster,
    ComputePlacement,
    Defaults,
    Environment,
    LoginNode,
    LoginPlacement,
    Placement,
)
from hpchub.errors import TooManyServers

LOGIN, COMPUTE = Placement.LOGIN, Placement.COMPUTE
ALPHA = Cluster(
    name="alpha",
    title="Alpha",
    scheduler="slurm",
    login_nodes=(LoginNode(name="login1", address="login1"),),
    known_hosts=Path("known_hosts"),
    login=LoginPlacement(),
    compute=ComputePlacement(),
    environments={"lab": Environment(name="lab", title="Lab")},
    defaults=Defaults(placement=LOGIN, environment="lab"),
)


def refusal(cluster: Cluster, placement: Placement, servers: list[Held]) -> str:
    with pytest.raises(TooManyServers) as caught:
        refuse_beyond_caps(cluster, placement, "alice", servers)
    return str(caught.value)


def test_no_cap_is_no_cap() -> None:
    """A file that says nothing lets everybody have any number."""
    refuse_beyond_caps(ALPHA, LOGIN, "alice", [("alpha", LOGIN, "alice", str(n)) for n in range(5000)])


def test_a_persons_own_cap() -> None:
    """It counts that person's servers on that cluster, of both placements, and names them."""
    cluster = replace(ALPHA, caps=Caps(servers_per_user=2))
    others: list[Held] = [("alpha", LOGIN, "bob", str(n)) for n in range(9)]
    others += [("beta", LOGIN, "alice", "elsewhere"), ("alpha", LOGIN, "alice", "")]
    refuse_beyond_caps(cluster, COMPUTE, "alice", others)
    said = refusal(cluster, COMPUTE, [*others, ("alpha", COMPUTE, "alice", "gpu")])
    assert said == (
        "You have 2 servers on Alpha, the most that one person may have there (limits.servers_per_user). "
        "Stop one of them first: the default server, gpu."
    )


def test_a_placements_own_cap() -> None:
    """It counts that placement alone, and leaves the other open."""
    cluster = replace(ALPHA, login=LoginPlacement(caps=Caps(servers_per_user=1)))
    servers: list[Held] = [("alpha", LOGIN, "alice", "a"), ("alpha", COMPUTE, "alice", "b")]
    assert refusal(cluster, LOGIN, servers) == (
        "You have 1 server on login nodes of Alpha, the most that one person may have there "
        "(placements.login.servers_per_user). Stop one of them first: a."
    )
    refuse_beyond_caps(cluster, COMPUTE, "alice", servers)


def test_everybodys_cap() -> None:
    """Who has none is told to come again or to go elsewhere; who has one may stop it."""
    cluster = replace(ALPHA, login=LoginPlacement(caps=Caps(servers=2)))
    bobs: list[Held] = [("alpha", LOGIN, "bob", "x"), ("alpha", LOGIN, "carol", "")]
    assert refusal(cluster, LOGIN, bobs) == (
        "There are 2 servers on login nodes of Alpha, the most that its staff allow "
        "(placements.login.servers). Try again later or choose another placement."
    )
    said = refusal(cluster, LOGIN, [bobs[0], ("alpha", LOGIN, "alice", "mine")])
    assert "stop one of yours first (mine)" in said
    whole = refusal(
        replace(ALPHA, login=None, caps=Caps(servers=1)), COMPUTE, [("alpha", COMPUTE, "bob", "")]
    )
    assert whole.endswith("(limits.servers). Try again later.")


def test_a_long_list_is_cut() -> None:
    """Who has hundreds is not told all their names."""
    cluster = replace(ALPHA, caps=Caps(servers_per_user=1))
    said = refusal(cluster, LOGIN, [("alpha", LOGIN, "alice", f"n{n:03}") for n in range(300)])
    assert said.endswith("n009 and 290 more.")
