"""What the pages tell about a person's servers, as plain values: pure, tested without a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from hpchub.core.cluster import Cluster, Placement
from hpchub.core.server import Phase, ServerView

# A reason comes from a command in the user's own shell, which may print whatever it likes.
_LONGEST_REASON = 300

# The word for each phase, and Bootstrap's colour of it.
_STATES = {
    Phase.CONNECTING: ("connecting", "secondary"),
    Phase.SUBMITTED: ("waiting", "warning"),
    Phase.QUEUED: ("waiting", "warning"),
    Phase.STARTING: ("starting", "info"),
    Phase.READY: ("running", "success"),
    Phase.STOPPING: ("stopping", "secondary"),
    Phase.ENDED: ("ended", "secondary"),
}
_WAITING = frozenset({Phase.SUBMITTED, Phase.QUEUED})
_RUNNING = frozenset({Phase.STARTING, Phase.READY})


def rows_of(
    views: Sequence[ServerView],
    clusters: Mapping[str, Cluster],
    options: Mapping[str, Mapping[str, object]],
    now: float,
) -> list[dict[str, Any]]:
    """One row for each server, the default one first.

    Args:
        views: The person's servers, as the bridge tells of them.
        clusters: The cluster files, by name; a server's own may be gone from them.
        options: By server name, what the person had chosen.
        now: Unix seconds.
    """
    rows = [_row(view, clusters.get(view.cluster), options.get(view.server_name, {}), now) for view in views]
    return sorted(rows, key=lambda row: row["name"])


def _row(
    view: ServerView, cluster: Cluster | None, options: Mapping[str, object], now: float
) -> dict[str, Any]:
    waits, runs = view.phase in _WAITING, view.phase in _RUNNING
    state, colour = _STATES[view.phase]
    ends_at = view.ends_at if runs else None
    return {
        "name": view.server_name,
        "state": state,
        "colour": colour,
        "where": _where(view, cluster, options),
        "reason": _printable(view.reason),
        "place": _place(view.queue_place) if waits else "",
        "start": _moment(view.expected_start) if waits else None,
        "end": _moment(ends_at),
        "left": None if ends_at is None else time_left(ends_at - now),
        "successor": ends_at is not None and _offers_successor(cluster, ends_at - now),
    }


def _where(view: ServerView, cluster: Cluster | None, options: Mapping[str, object]) -> str:
    parts = [cluster.title if cluster else view.cluster]
    if view.node:
        parts.append(f"node {view.node}")
    elif view.placement == Placement.LOGIN:
        parts.append("a login node")
    else:
        partition = options.get("partition") or (cluster.defaults.partition if cluster else "")
        parts.append(f"partition {partition}" if partition else "")
    parts.append(f"job {view.job_id}" if view.job_id else "")
    return _printable(", ".join(part for part in parts if part))


def _place(ahead: int | None) -> str:
    if ahead is None:
        return ""
    if ahead == 0:
        return "It is the next of its partition."
    return "1 job of its partition goes first." if ahead == 1 else f"{ahead} jobs of its partition go first."


def _offers_successor(cluster: Cluster | None, left_s: float) -> bool:
    """Only near the end: before, it would be one more button to misread."""
    compute = cluster.compute if cluster else None
    return compute is not None and compute.successor and left_s <= max(compute.warn_before_s, default=0)


def _moment(at: float | None) -> dict[str, Any] | None:
    """A time for people, for programs and for our script, which shows it in the browser's own zone."""
    if at is None:
        return None
    when = datetime.fromtimestamp(at, UTC)
    return {"at": int(at), "iso": when.isoformat(timespec="seconds"), "utc": f"{when:%d %b %H:%M} UTC"}


def time_left(seconds: float) -> str:
    """`2 h 5 min`, `14 min`, `50 s`, `no time`."""
    whole = int(seconds)
    if whole <= 0:
        return "no time"
    if whole < 120:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text[:_LONGEST_REASON])
