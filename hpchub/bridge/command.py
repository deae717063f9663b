"""`hpchub bridge`: runs the bridge until it is told to end."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from pathlib import Path

from hpchub.bridge.seal import Seal
from hpchub.bridge.server import make_bridge_app
from hpchub.bridge.service import Service
from hpchub.bridge.settings import BridgeSettings, load_settings
from hpchub.bridge.store import Store
from hpchub.core.cluster_file import load_clusters
from hpchub.local_api.server import listening
from hpchub.memory import forbid_dumps
from hpchub.private_files import make_private_folder
from hpchub.ssh.key_agent import KeyAgent


def configure(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("--config", type=Path, required=True, help="bridge.toml")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT. Servers run on without us."""
    forbid_dumps()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("asyncssh").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    asyncio.run(_serve(load_settings(args.config)))
    return 0


async def _serve(settings: BridgeSettings) -> None:
    os.umask(0o077)
    make_private_folder(settings.runtime_dir)
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
    async with listening(make_bridge_app(service), settings.socket), service:
        await done.wait()
    store.close()
