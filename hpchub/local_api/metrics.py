"""Prometheus' text format, on the unix socket and, where a site wants it, on a loopback address."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from hpchub.core.toml_table import Table
from hpchub.errors import ConfigError

_log = logging.getLogger(__name__)

_HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class LoopbackAddress:
    """Where to listen for the machine's own Prometheus."""

    host: str
    port: int


def read_metrics_listen(table: Table) -> LoopbackAddress | None:
    """The setting `metrics_listen`; None where it is left out. An address that others reach is a fault."""
    key = "metrics_listen"
    if not table.has(key):
        return None
    text = table.text(key)
    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        if address.is_loopback and 0 < int(port) <= _HIGHEST_PORT:
            return LoopbackAddress(str(address), int(port))
    except ValueError:
        pass  # told below, with the rest
    if text:
        table.fault(key, f'{text!r} is not a loopback address and port, such as "127.0.0.1:9101"')
    return None


def metrics_handler(registry: CollectorRegistry) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Answers with everything in the registry."""

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4}
        )

    return metrics


@asynccontextmanager
async def serving_metrics(
    address: LoopbackAddress | None, registry: CollectorRegistry
) -> AsyncIterator[None]:
    """`/metrics` and nothing else at the address, while the context lasts.

    Raises:
        ConfigError: Somebody listens there already.
    """
    if address is None:
        yield
        return
    app = web.Application()
    app.router.add_get("/metrics", metrics_handler(registry))
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, address.host, address.port).start()
        except OSError as error:
            raise ConfigError(
                f"Nothing can listen on {address.host}:{address.port} for metrics: {error.strerror}.",
                "Choose another metrics_listen.",
            ) from error
        _log.info("metrics.listening host=%s port=%d", address.host, address.port)
        yield
    finally:
        await runner.cleanup()
