"""What the pages tell about servers, without a hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpchub.core.server import Phase, ServerView
from hpchub.hub.known import clusters_in
from hpchub.hub.servers_view import rows_of, time_left

NOW = 1_900_000_000.0

WAITING = ServerView(
    id="9f",
    user="alice",
    server_name="",
    cluster="demo",
    placement="compute",
    phase=Phase.QUEUED,
    job_id="42",
    node="",
    native_state="PENDING",
    socket="",
    error=None,
    created_at=NOW,
    reason="waiting for resources (Resources)",
    queue_place=0,
    expected_start=int(NOW) + 60,
    ends_at=None,
)
RUNNING = replace(WAITING, phase=Phase.READY, node="c1", reason="", ends_at=int(NOW) + 800)


def _row(view: ServerView, clusters_dir: Path, **options: object) -> dict[str, Any]:
    [row] = rows_of([view], clusters_in(clusters_dir), {view.server_name: options}, NOW)
    return row


def test_waiting(clusters_dir: Path) -> None:
    """While it waits: where, why, how many go first, and when; the partition is the one it was given."""
    row = _row(WAITING, clusters_dir)
    assert row["where"] == "Demo, partition cpu, job 42"
    assert row["state"] == "waiting"
    assert row["reason"] == "waiting for resources (Resources)"
    assert row["place"] == "It is the next of its partition."
    assert row["start"]["utc"] == "17 Mar 17:47 UTC"
    assert row["end"] is None
    assert _row(WAITING, clusters_dir, partition="gpu")["where"] == "Demo, partition gpu, job 42"
    assert _row(replace(WAITING, queue_place=1), clusters_dir)["place"].startswith("1 job of its partition")
    assert _row(replace(WAITING, queue_place=None, expected_start=None), clusters_dir)["place"] == ""


def test_running(clusters_dir: Path) -> None:
    """While it runs: the node and the time left, and no word of a queue."""
    row = _row(RUNNING, clusters_dir)
    assert row["where"] == "Demo, node c1, job 42"
    assert (row["reason"], row["place"], row["start"]) == ("", "", None)
    assert row["left"] == "13 min"
    lost = _row(replace(RUNNING, reason="login1 could not be reached."), clusters_dir)
    assert lost["reason"] == "login1 could not be reached."
    assert row["end"]["at"] == NOW + 800


def test_login_node(clusters_dir: Path) -> None:
    """A server on a login node has neither partition nor end."""
    view = replace(RUNNING, placement="login", node="login1", job_id="", ends_at=None)
    row = _row(view, clusters_dir)
    assert row["where"] == "Demo, node login1"
    assert (row["left"], row["successor"]) == (None, False)
    assert _row(replace(view, phase=Phase.CONNECTING, node=""), clusters_dir)["where"] == "Demo, a login node"


@pytest.mark.parametrize(("left", "offered"), [(901, False), (900, True), (-5, True)])
def test_successor(clusters_dir: Path, left: int, offered: bool) -> None:
    """A successor is offered from the first warning on, and not by a cluster file that says no."""
    view = replace(RUNNING, ends_at=int(NOW) + left)
    assert _row(view, clusters_dir)["successor"] is offered
    cluster = clusters_in(clusters_dir)["demo"]
    assert cluster.compute is not None
    without = replace(cluster, compute=replace(cluster.compute, successor=False))
    assert rows_of([view], {"demo": without}, {}, NOW)[0]["successor"] is False


def test_cluster_that_is_gone(clusters_dir: Path) -> None:
    """A server whose cluster file was removed is still told of, by the cluster's name."""
    row = _row(replace(RUNNING, cluster="old"), clusters_dir)
    assert row["where"] == "old, node c1, job 42"
    assert row["successor"] is False


def test_reason_is_one_bounded_line(clusters_dir: Path) -> None:
    """Control characters, and those that turn text around, are blanks; a reason without end is cut."""
    row = _row(replace(WAITING, reason="a\nb\u202ec" + "x" * 9999), clusters_dir)
    assert row["reason"].startswith("a b cxxx")
    assert len(row["reason"]) == 300


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "no time"), (0.9, "no time"), (59, "59 s"), (120, "2 min"), (3599, "59 min"), (7500, "2 h 5 min")],
)
def test_time_left(seconds: float, words: str) -> None:
    """Seconds near the end, else minutes."""
    assert time_left(seconds) == words
