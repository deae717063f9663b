"""What the pool counts. docs/howto/monitoring.md explains each name."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from hpchub.errors import HpchubError

# A handshake is 30 ms on a quiet node, and 20 s is where it is given up.
_HANDSHAKE_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30)


@dataclass(slots=True)
class Traffic:
    """Bytes carried by tunnels: `sent` to the cluster, `received` from it. Plain numbers, for speed."""

    sent: int = 0
    received: int = 0


class SshMetrics(Collector):
    """Handshakes and traffic of one pool."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.traffic = Traffic()
        self._handshakes = Counter(
            "hpchub_ssh_handshakes_total",
            "SSH handshakes, by how they ended: ok, or the class of the error",
            ("cluster", "result"),
            registry=registry,
        )
        self._seconds = Histogram(
            "hpchub_ssh_handshake_seconds",
            "How long an SSH handshake took, in seconds, from TCP to the login",
            ("cluster",),
            buckets=_HANDSHAKE_BUCKETS,
            registry=registry,
        )
        registry.register(self)

    @contextmanager
    def handshake(self, cluster: str) -> Iterator[None]:
        """Around one handshake."""
        began = time.monotonic()
        try:
            yield
        except HpchubError as error:
            self._handshakes.labels(cluster, type(error).__name__).inc()
            raise
        self._handshakes.labels(cluster, "ok").inc()
        self._seconds.labels(cluster).observe(time.monotonic() - began)

    def collect(self) -> Iterable[Metric]:
        """The traffic so far, as Prometheus asks for it."""
        carried = CounterMetricFamily(
            "hpchub_tunnel_bytes", "Bytes that tunnels carried, by direction", labels=("direction",)
        )
        carried.add_metric(("sent",), self.traffic.sent)
        carried.add_metric(("received",), self.traffic.received)
        yield carried
