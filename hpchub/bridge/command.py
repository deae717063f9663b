"""`hpchub bridge`: runs the bridge until it is told to end."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from contextlib import suppress
from pathlib import Path

from hpchub.bridge.seal import Seal
from hpchub.bridge.server import make_bridge_app
from hpchub.bridge.service import Service
from hpchub.bridge.settings import BridgeSettings, load_settings
from hpchub.bridge.store import Store
from hpchub.core.cluster_file import load_clusters
from hpchub.errors import ConfigError, StoreTaken
from hpchub.local_api.metrics import serving_metrics
from hpchub.local_api.server import listening
from hpchub.logs import configure_logging
from hpchub.prctl import forbid_dumps
from hpchub.private_files import make_folder
from hpchub.ssh.key_agent import KeyAgent

log = logging.getLogger(__name__)

# How soon a bridge that has nothing to write notices that its database is another's.
_CLAIM_CHECK_S = 1.0


def configure(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("--config", type=Path, required=True, help="bridge.toml")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT. Servers run on without us."""
    forbid_dumps()
    settings = load_settings(args.config)
    configure_logging(settings.log_format)
    asyncio.run(_serve(settings))
    return 0


async def _serve(settings: BridgeSettings) -> None:
    os.umask(0o077)
    make_folder(settings.runtime_dir, settings.group)
    clusters = load_clusters(settings.clusters)
    agent = KeyAgent(settings.agent_socket)
    store = Store(settings.database, await Seal.of(agent))
    store.claim()
    await asyncio.to_thread(store.upgrade)
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, done.set)
    service = Service(settings, clusters, store, agent)
    # The socket first: a second bridge is refused before it could touch what the first one holds.
    async with (
        listening(make_bridge_app(service), settings.socket, group=settings.group),
        serving_metrics(settings.metrics_listen, service.metrics.registry),
        service,
    ):
        error = await _until_ended(done, store)
    store.close()
    if error is not None:
        raise error


async def _until_ended(done: asyncio.Event, store: Store) -> StoreTaken | None:
    """Return once we are told to end, or why we must: another bridge has our database."""
    while not done.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLAIM_CHECK_S if store.can_be_taken else None):
                await done.wait()
                break
        try:
            await asyncio.to_thread(store.check)
        except StoreTaken as error:
            return error
        except ConfigError as error:  # it is away; what cannot be written waits
            log.warning("store.away error=%s", error)
    return None
