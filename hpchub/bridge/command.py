"""`hpchub bridge`: runs the bridge until it is told to end."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from pathlib import Path

from aiohttp import web

from hpchub.bridge.server import make_app
from hpchub.bridge.service import Service
from hpchub.bridge.settings import BridgeSettings, load_settings
from hpchub.bridge.store import Store
from hpchub.core.cluster_file import load_clusters


def configure(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("--config", type=Path, required=True, help="bridge.toml")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT. Servers run on without us."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("asyncssh").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    asyncio.run(_serve(load_settings(args.config)))
    return 0


async def _serve(settings: BridgeSettings) -> None:
    os.umask(0o077)
    settings.runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    clusters = load_clusters(settings.clusters)
    store = Store(settings.database)
    await asyncio.to_thread(store.upgrade)
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, done.set)
    async with Service(settings, clusters, store) as service:
        runner = web.AppRunner(make_app(service), access_log=None)
        await runner.setup()
        settings.socket.unlink(missing_ok=True)
        # The umask makes it 0600 from the first moment.
        await web.UnixSite(runner, settings.socket).start()
        logging.getLogger(__name__).info("bridge.ready socket=%s", settings.socket)
        await done.wait()
        await runner.cleanup()
    store.close()
