"""Metrics on a loopback port: there for the machine's own Prometheus, and nowhere else."""

from __future__ import annotations

import socket
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from hpchub.core.toml_table import load_table
from hpchub.errors import ConfigError
from hpchub.local_api.metrics import LoopbackAddress, read_metrics_listen, serving_metrics
from support.ports import free_port


async def test_only_metrics_are_served() -> None:
    """GET /metrics answers in Prometheus' text form; nothing else is there; the port closes at the end."""
    registry = CollectorRegistry()
    Counter("seen_total", "Seen", registry=registry).inc(3)
    address = LoopbackAddress("127.0.0.1", free_port())
    async with serving_metrics(address, registry), aiohttp.ClientSession() as session:
        url = f"http://{address.host}:{address.port}"
        async with session.get(f"{url}/metrics") as answer:
            assert answer.status == 200 and "seen_total 3.0" in await answer.text()
        for path in ("/", "/v1/health", "/v1/servers"):
            async with session.get(url + path) as answer:
                assert answer.status == 404
        with pytest.raises(ConfigError, match="Nothing can listen"):
            async with serving_metrics(address, registry):
                pass
    with socket.socket() as probe:
        assert probe.connect_ex((address.host, address.port)) != 0


async def test_off_by_default() -> None:
    """Without an address nothing listens."""
    async with serving_metrics(None, CollectorRegistry()):
        pass


def read(tmp_path: Path, text: str) -> LoopbackAddress | None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    found: list[LoopbackAddress | None] = []
    load_table(path, lambda table: found.append(read_metrics_listen(table)) or found, "wrong:")
    return found[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"127.0.0.1:9101"', LoopbackAddress("127.0.0.1", 9101)),
        ('"127.8.8.8:1"', LoopbackAddress("127.8.8.8", 1)),
        ('"[::1]:9101"', LoopbackAddress("::1", 9101)),
    ],
)
def test_loopback_addresses(tmp_path: Path, text: str, expected: LoopbackAddress) -> None:
    """Any address of the loopback interface."""
    assert read(tmp_path, f"metrics_listen = {text}") == expected
    assert read(tmp_path, "") is None


@pytest.mark.parametrize(
    "text",
    ['"0.0.0.0:9101"', '"192.0.2.1:9101"', '":9101"', '"9101"', '"localhost:9101"', '"127.0.0.1:0"',
     '"127.0.0.1:65536"', '"127.0.0.1:x"', '"[::]:9101"', "9101"],
)  # fmt: skip
def test_whatever_others_reach_is_refused(tmp_path: Path, text: str) -> None:
    """The metrics tell how a site works: they are for the machine itself."""
    with pytest.raises(ConfigError):
        read(tmp_path, f"metrics_listen = {text}")
