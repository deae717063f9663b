"""What the bridge counts. docs/howto/monitoring.md explains each name.

No label ever holds a user's name or a job's id: they are what the log is for, and each would be a
time series for ever.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from hpchub.bridge.store import ServerRecord
from hpchub.core.server import Phase
from hpchub.errors import HpchubError
from hpchub.ssh.metrics import SshMetrics

# From an idle cluster's 50 ms to a job that waits for a day.
_SPAWN_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 43200)
_QUERY_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """What there is at this moment.

    Attributes:
        servers: Those that have not ended, by cluster, placement and phase.
        tunnels: Servers whose tunnel is open, by cluster.
        connections: Open SSH connections, by cluster, node and use.
        sessions: SSH sessions in use on them, by the same.
        logins: People who could start a server without a new login.
    """

    servers: Tally[tuple[str, str, str]] = field(default_factory=Tally)
    tunnels: Tally[tuple[str]] = field(default_factory=Tally)
    connections: Tally[tuple[str, str, str]] = field(default_factory=Tally)
    sessions: Tally[tuple[str, str, str]] = field(default_factory=Tally)
    logins: int = 0


class BridgeMetrics(Collector):
    """One bridge's numbers, in a registry of their own."""

    def __init__(self, census: Callable[[], Census] = Census) -> None:
        """`census` is called at each scrape."""
        self.registry = CollectorRegistry()
        self.ssh = SshMetrics(self.registry)
        self._census = census
        self._queries = Counter(
            "hpchub_scheduler_queries_total",
            "Commands for the scheduler, by kind and by how they ended: ok, or the class of the error",
            ("cluster", "kind", "result"),
            registry=self.registry,
        )
        self._query_seconds = Histogram(
            "hpchub_scheduler_query_seconds",
            "How long a scheduler command took, in seconds, the way there and back included",
            ("cluster", "kind"),
            buckets=_QUERY_BUCKETS,
            registry=self.registry,
        )
        self._spawn_seconds = Histogram(
            "hpchub_spawn_seconds",
            "How long each step of a start took, in seconds",
            ("cluster", "placement", "step"),
            buckets=_SPAWN_BUCKETS,
            registry=self.registry,
        )
        self._failures = Counter(
            "hpchub_server_failures_total",
            "Servers that ended badly, by the class of the error",
            ("cluster", "placement", "cause"),
            registry=self.registry,
        )
        self._certificate_seconds = Histogram(
            "hpchub_certificate_seconds",
            "How long the signer took for a certificate, in seconds",
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    @contextmanager
    def query(self, cluster: str, kind: str) -> Iterator[None]:
        """Around one command for the scheduler and the reading of its answer."""
        began = time.monotonic()
        result = "ok"
        try:
            yield
        except HpchubError as error:
            result = type(error).__name__
            raise
        finally:
            self._queries.labels(cluster, kind, result).inc()
            self._query_seconds.labels(cluster, kind).observe(time.monotonic() - began)

    @contextmanager
    def minting(self) -> Iterator[None]:
        """Around one question to the signer for a certificate."""
        with self._certificate_seconds.time():
            yield

    def spawn_step(self, cluster: str, placement: str, step: str, seconds: float) -> None:
        """A step of a start is done."""
        self._spawn_seconds.labels(cluster, placement, step).observe(max(0.0, seconds))

    def failure(self, cluster: str, placement: str, cause: HpchubError) -> None:
        """A server has ended badly."""
        self._failures.labels(cluster, placement, type(cause).__name__).inc()

    def collect(self) -> Iterable[Metric]:
        """What there is now, as Prometheus asks for it."""
        now = self._census()
        yield _gauge(
            "hpchub_servers", "Servers that have not ended", ("cluster", "placement", "phase"), now.servers
        )
        yield _gauge("hpchub_tunnels", "Servers whose tunnel is open", ("cluster",), now.tunnels)
        where = ("cluster", "node", "use")
        yield _gauge("hpchub_ssh_connections", "Open SSH connections to login nodes", where, now.connections)
        yield _gauge("hpchub_ssh_sessions", "SSH sessions in use", where, now.sessions)
        yield GaugeMetricFamily(
            "hpchub_logins_live", "People who are logged in to the clusters", value=now.logins
        )


class ServerMeter:
    """Counts for one server: the steps of its first start, and a bad end."""

    def __init__(self, metrics: BridgeMetrics, record: ServerRecord) -> None:
        self._metrics = metrics
        self._where = (record.cluster, str(record.options.get("placement", "")))
        self._created_at = record.created_at
        self._starting = record.phase not in {Phase.READY, Phase.STOPPING}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Around one step. One that fails is not counted: its time says nothing about the step."""
        began = time.monotonic()
        yield
        if self._starting:
            self._metrics.spawn_step(*self._where, name, time.monotonic() - began)

    def ready(self) -> None:
        """The server is ready; the first time ends its start, and what follows is none."""
        if self._starting:
            self._starting = False
            self._metrics.spawn_step(*self._where, "total", time.time() - self._created_at)

    def failed(self, error: HpchubError) -> None:
        """The server has ended badly."""
        self._metrics.failure(*self._where, error)


def _gauge(
    name: str, words: str, labels: tuple[str, ...], values: Tally[tuple[str, str, str]] | Tally[tuple[str]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, words, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
