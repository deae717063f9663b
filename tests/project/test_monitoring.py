"""Metrics, dashboard, pages and log events agree with each other and with the code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from hpchub.bridge.metrics import BridgeMetrics
from hpchub.signer.metrics import SignerMetrics
from support.tree import ROOT

PAGE = (ROOT / "docs" / "howto" / "monitoring.md").read_text()
OPERATIONS = (ROOT / "docs" / "howto" / "operations.md").read_text()
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "hpchub.json").read_text())
_NAME = re.compile(r"\b(?:hpchub|process)_[a-z_]+\b")
_PROCESS_NAMES = {
    "process_virtual_memory_bytes", "process_resident_memory_bytes", "process_start_time_seconds",
    "process_cpu_seconds_total", "process_open_fds", "process_max_fds",
}  # fmt: skip


def _families(registry: CollectorRegistry) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Each metric as a person writes it: its name, its kind, its labels."""
    for collector in set(registry._collector_to_names):
        for family in collector.collect():
            labels = getattr(collector, "_labelnames", None) or getattr(family, "_labelnames", ())
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield name, family.type, tuple(labels)


DEFINED = {
    name: (kind, labels)
    for registry in (BridgeMetrics().registry, SignerMetrics().registry)
    for name, kind, labels in _families(registry)
}
OURS = sorted(name for name in DEFINED if name.startswith("hpchub_"))


def _queries() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


def test_what_is_defined_is_what_is_expected() -> None:
    """The collection above sees the metrics: one of each kind, and the process's own."""
    assert set(DEFINED) >= _PROCESS_NAMES
    assert DEFINED["hpchub_servers"] == ("gauge", ("cluster", "placement", "phase"))
    assert DEFINED["hpchub_spawn_seconds"] == ("histogram", ("cluster", "placement", "step"))
    assert DEFINED["hpchub_tunnel_bytes_total"] == ("counter", ("direction",))
    assert len(OURS) >= 17


@pytest.mark.parametrize("name", OURS)
def test_each_metric_is_documented_with_its_labels(name: str) -> None:
    """One row of monitoring.md has its name and exactly its labels."""
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
    labels = tuple(re.findall(r"`([a-z]+)`", row.split("|")[2]))
    assert labels == DEFINED[name][1]


@pytest.mark.parametrize("text", [PAGE, OPERATIONS, *_queries()])
def test_each_name_that_is_used_exists(text: str) -> None:
    """In queries, alerts and pages: a histogram by its parts, any other as it is."""
    allowed = set(DEFINED)
    for name, (kind, _labels) in DEFINED.items():
        if kind == "histogram":
            allowed |= {f"{name}_{part}" for part in ("bucket", "count", "sum")}
    assert set(_NAME.findall(text)) - allowed == set()


@pytest.mark.parametrize("query", _queries())
def test_each_label_in_a_query_is_the_metrics_own(query: str) -> None:
    """A misspelt label would show an empty panel for ever."""
    names = [re.sub(r"_(bucket|count|sum)$", "", name) for name in _NAME.findall(query)]
    known = {"le", "job"}.union(*(DEFINED[name][1] for name in names))
    used = set(re.findall(r"[{,]\s*([a-z]+)(?==|!)", query))
    used |= {word for words in re.findall(r"by \(([^)]*)\)", query) for word in words.split(", ")}
    assert used - known == set()


def test_every_metric_is_on_the_dashboard() -> None:
    """What is worth counting is worth a look."""
    shown = " ".join(_queries())
    assert [name for name in OURS if name not in shown] == []


def test_panels_do_not_overlap() -> None:
    """Grafana shows the panels where the file puts them."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_no_label_can_name_a_person_or_a_job() -> None:
    """Each would be a time series for ever."""
    used = {label for _kind, labels in DEFINED.values() for label in labels}
    assert not used & {"user", "username", "job", "job_id", "server", "server_id", "id", "name", "path"}


def test_the_events_in_the_page_are_logged() -> None:
    """operations.md names only events that the code has."""
    sources = "\n".join(path.read_text() for path in (ROOT / "hpchub").rglob("*.py"))
    table = OPERATIONS.partition("## What the log says")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z]+\.[a-z_]+)`", table))
    phases = {"server.connecting", "server.ended"}  # made of the phase's name
    assert [event for event in named - phases if f'"{event} ' not in sources] == []
