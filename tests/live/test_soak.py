"""A short soak: seeded faults while two people work. `make soak` is the long one."""

from __future__ import annotations

import pytest

from support.demo import Demo
from support.faults import FAULTS
from support.soak import plan, quick_names, report, soak

_SEED = 4
_LENGTH_S = 40.0


@pytest.mark.live
def test_nothing_is_lost(demo: Demo) -> None:
    """Whatever fails while people start, run and stop servers: none that should run is lost."""
    ledger = soak(demo, _SEED, _LENGTH_S, names=quick_names(), longest_s=6.0)
    print(report(ledger))
    assert ledger.lost == []
    assert ledger.counts["servers started"] >= 2 and ledger.counts["cells run"] >= 5


def test_a_plan_follows_from_its_seed() -> None:
    """The same seed gives the same faults, another one others; overlapping ones touch different things."""
    names = list(FAULTS)
    planned = plan(7, 1200, names=names)
    assert planned == plan(7, 1200, names=names) != plan(8, 1200, names=names)
    assert {one.name for one in planned} == set(names), "20 minutes are long enough for each"
    for one in planned:
        for other in planned:
            together = one is not other and other.at_s <= one.at_s < other.at_s + other.lasts_s
            assert not together or one.name.split()[0] != other.name.split()[0]
